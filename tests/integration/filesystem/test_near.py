"""Copies between processes of one machine: without TLS, and files that are passed instead of sent."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from brokers.repository.compression import compress
from brokers.repository.errors import IncompleteCopy
from brokers.repository.format1 import packs
from brokers.sdk import near
from brokers.sdk.copystream import (
    BigEntry,
    CopyReader,
    CopyStreamError,
    CopyWriter,
    EntrySource,
    KeptEntry,
    PlacedBatch,
    PlacedEntry,
)
from brokers.sdk.copystream_near import Received, check
from brokers.sdk.digests import digest_hex
from brokers.sdk.frames import Data, EntryBegin, FrameError, entry_line
from brokers.sdk.near_frames import Whole, receive, send_whole
from schemas.brokers import CopyGrant
from schemas.problems import Actor
from tests.integration.filesystem.certificates import Authority
from tests.integration.filesystem.site import Site

pytestmark = pytest.mark.skipif(not near.available(), reason="this system has no such sockets")

CLOSED = "https://127.0.0.1:1/v0/copies"
SMALL, BIG = os.urandom(3000), os.urandom(9 << 20)
METADATA = {"mode": "0644"}


@pytest.fixture
async def here(tmp_path: Path, authority: Authority) -> AsyncIterator[Site]:
    async with Site("here", directory=tmp_path, authority=authority, near=True) as site:
        yield site


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A file with a hole between what entries say lies in it."""
    file = tmp_path / "content"
    file.write_bytes(SMALL + b"between" + BIG)
    return file


def only_near(grant: CopyGrant) -> CopyGrant:
    """TLS would lead nowhere."""
    return msgspec.structs.replace(grant, url=f"{CLOSED}/{grant.copy}")


async def blocks(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 100_000):
        yield data[at : at + 100_000]


def whole(key: str, *pieces: tuple[int, int]) -> PlacedEntry:
    return PlacedEntry(key, sum(length for _, length in pieces), METADATA, pieces)


BEGIN_OF_BIG = len(SMALL) + len(b"between")
ENTRIES = {
    "a": SMALL,
    "b": SMALL[:10] + SMALL[20:30],
    "big": BIG,
    "empty": b"",
    "sent": SMALL[::-1],
    "z": BIG[:100_000],
}


async def placed() -> AsyncIterator[EntrySource | KeptEntry | PlacedBatch | BigEntry]:
    small = [whole("a", (0, len(SMALL))), whole("b", (0, 10), (20, 10))]
    yield PlacedBatch(small, sum(entry.size for entry in small))
    yield BigEntry(whole("big", (BEGIN_OF_BIG, len(BIG))))
    yield PlacedBatch([whole("empty")], 0)
    yield "sent", METADATA, len(SMALL), blocks(SMALL[::-1])
    yield PlacedBatch([whole("z", (BEGIN_OF_BIG, 100_000))], 100_000)


async def sent() -> AsyncIterator[EntrySource]:
    for key, data in ENTRIES.items():
        yield key, METADATA, len(data), blocks(data)


async def read(grant: CopyGrant, part: str) -> dict[str, bytes]:
    return {
        head.key: b"".join([bytes(block) async for block in data])
        async for head, data in CopyReader(grant).read_entries(part)
    }


async def test_a_copy_is_written_and_read_without_tls(here: Site) -> None:
    await CopyWriter(only_near(here.open_write("c1"))).write_stream("dump", blocks(BIG))
    here.repository.commit("c1")
    stream = CopyReader(only_near(here.open_read("c1"))).read_stream("dump")
    assert b"".join([bytes(block) async for block in stream]) == BIG


async def test_what_lies_in_a_passed_file_is_stored_as_if_it_was_sent(here: Site, content: Path) -> None:
    told: list[int] = []
    writer = CopyWriter(only_near(here.open_write("c1")), progress=told.append)
    with content.open("rb") as file:
        async with writer.passing(file.fileno()) as passed:
            assert passed
            part = await writer.write_entries("tree", placed())
    assert sum(told) == part.size == sum(map(len, ENTRIES.values()))
    here.repository.commit("c1")
    assert await read(here.open_read("c1"), "tree") == ENTRIES
    stored = here.repository.stats().stored_bytes
    here.told_near = False
    again = await CopyWriter(here.open_write("c2")).write_entries("tree", sent())
    assert (again.digest, again.entries) == (part.digest, part.entries)
    here.repository.commit("c2")
    assert here.repository.stats().stored_bytes - stored < 20_000, "the chunks are the same"


async def test_more_than_may_be_ahead_arrives(here: Site, content: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "AHEAD_BYTES", 1 << 20)

    async def many() -> AsyncIterator[BigEntry | PlacedBatch]:
        for number in range(5):
            yield BigEntry(whole(f"{number}", (BEGIN_OF_BIG + number, len(BIG) - number)))
            yield PlacedBatch([whole(f"{number}-small", (number, 1000))], 1000)

    writer = CopyWriter(here.open_write("c1"))
    with content.open("rb") as file:
        async with writer.passing(file.fileno()):
            part = await writer.write_entries("tree", many())
    assert part.entries == 10


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (PlacedBatch([whole("a", (len(SMALL), len(BIG) + 100))], len(BIG) + 100), "shorter"),
        (PlacedBatch([PlacedEntry("a", 5, {}, ((0, 4),))], 5), "fit its size"),
        (PlacedBatch([PlacedEntry("a", 4, {}, ((-4, 4),))], 4), "fit its size"),
        (BigEntry(whole("a", (len(BIG), len(BIG)))), "shorter"),
    ],
)
async def test_what_does_not_fit_the_file_is_refused(
    here: Site, content: Path, entry: PlacedBatch | BigEntry, said: str
) -> None:
    async def wrong() -> AsyncIterator[PlacedBatch | BigEntry]:
        yield entry

    writer = CopyWriter(here.open_write("c1"))
    with content.open("rb") as file:
        async with writer.passing(file.fileno()):
            with pytest.raises(CopyStreamError, match=said):
                await writer.write_entries("tree", wrong())
    await here.settled("c1")
    with pytest.raises(IncompleteCopy):
        here.repository.commit("c1")


async def test_a_body_that_speaks_of_no_file_is_refused(here: Site, content: Path) -> None:
    writer = CopyWriter(here.open_write("c1"))
    with content.open("rb") as file:
        async with writer.passing(file.fileno()):
            await writer.write_entries("tree", placed())
            with pytest.raises(CopyStreamError, match="was not passed"):
                await writer.write_entries("once more", placed())


async def test_only_regular_files_are_taken(here: Site, tmp_path: Path) -> None:
    writer = CopyWriter(here.open_write("c1"))
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        async with writer.passing(descriptor) as passed:
            assert not passed
    finally:
        os.close(descriptor)


async def test_nobody_who_is_not_trusted_gets_a_token_or_a_file(
    here: Site, content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near, "trusted", lambda _: False)
    grant = here.open_write("c1")
    with pytest.raises(CopyStreamError):
        await CopyWriter(only_near(grant)).write_stream("dump", blocks(SMALL))
    with content.open("rb") as file:
        writer = CopyWriter(grant)
        async with writer.passing(file.fileno()) as passed:
            assert not passed
            await writer.write_entries("tree", sent())  # by TLS


async def test_the_user_of_the_other_end_is_told_by_the_kernel() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert near.trusted(ours)


async def test_a_grant_from_before_a_restart_leads_over_tls(here: Site) -> None:
    grant = here.open_write("c1")
    await here.stop()
    await here.start()
    assert here.open_write("c1").near not in ("", grant.near)
    await CopyWriter(grant).write_stream("dump", blocks(SMALL))
    here.repository.commit("c1")


async def test_who_must_show_a_certificate_is_told_no_short_way(here: Site, south: Site) -> None:
    await here.write_copy("c1", dump=SMALL)
    grant = here.open_read("c1", peer=south)
    assert grant.near == ""
    await south.transfer(grant).run()
    assert await south.read("c1", "dump") == SMALL


# --- reading


async def taken(site: Site, copy: str, *, grant: CopyGrant | None = None) -> dict[str, bytes]:
    """The entries as a reader on the same machine gets them."""
    found: dict[str, bytes] = {}

    def take(events: Iterator[Received]) -> None:
        key = ""
        for event in events:
            if isinstance(event, Whole):
                check("tree", event)
                found.update({entry.key: bytes(data) for entry, data in zip(event.entries, event.data, strict=True)})
                event.release()
            elif isinstance(event, EntryBegin):
                key = event.key
                found[key] = b""
            elif isinstance(event, Data):
                found[key] += bytes(event.data)

    assert await CopyReader(grant or only_near(site.open_read(copy))).take_entries("tree", take)
    return found


async def test_entries_are_taken_in_a_thread(here: Site) -> None:
    told: list[int] = []
    many = {f"{number:05}": os.urandom(number % 50) for number in range(3000)}

    async def entries() -> AsyncIterator[EntrySource]:
        for key, data in {**ENTRIES, **many}.items():
            yield key, METADATA, len(data), blocks(data)

    await CopyWriter(here.open_write("c1"), progress=told.append).write_entries("tree", entries())
    here.repository.commit("c1")
    assert await taken(here, "c1") == {**ENTRIES, **many}


async def test_a_damaged_chunk_ends_what_is_taken_in_an_error(here: Site) -> None:
    await CopyWriter(here.open_write("c1")).write_entries("tree", sent())
    committed = here.repository.commit("c1")
    part = committed.part("tree")
    assert part is not None
    chunk = [ref.digest for entry in here.repository.entries("c1", part) for ref in entry.chunks][-2]
    here.damage(chunk)
    with pytest.raises(CopyStreamError, match=chunk) as caught:
        await taken(here, "c1")
    assert not caught.value.problem.temporary


@pytest.mark.parametrize("key", ["sent", "big"])
async def test_what_is_authentic_and_not_what_was_stored_is_noticed_by_its_digest(here: Site, key: str) -> None:
    await CopyWriter(here.open_write("c1")).write_entries("tree", sent())
    part = here.repository.commit("c1").part("tree")
    assert part is not None
    (chunk, *_) = next(entry.chunks for entry in here.repository.entries("c1", part) if entry.key == key)
    place = here.repository.catalog.places(bytes.fromhex(chunk.digest))[0]
    path, offset, length = here.place(chunk.digest)
    content, other = bytearray(path.read_bytes()), bytearray(length)
    packs.encrypt_chunk_into(
        here.repository.keys.pack_cipher(place.pack), place.pack, place.blob, compress(os.urandom(chunk.size)), other
    )
    content[offset : offset + length] = other
    path.write_bytes(content)
    with pytest.raises(CopyStreamError, match="did not arrive as it was stored") as caught:
        await taken(here, "c1")
    assert not caught.value.problem.temporary


async def test_what_taking_raises_comes_out_as_it_is(here: Site) -> None:
    await CopyWriter(here.open_write("c1")).write_entries("tree", sent())
    here.repository.commit("c1")

    def take(events: Iterator[Received]) -> None:
        next(events)
        raise ValueError("no room here")

    with pytest.raises(ValueError, match="no room here"):
        await CopyReader(only_near(here.open_read("c1"))).take_entries("tree", take)
    assert await taken(here, "c1") == ENTRIES


async def test_taking_ends_when_it_is_cancelled(here: Site) -> None:
    await CopyWriter(here.open_write("c1")).write_entries("tree", sent())
    here.repository.commit("c1")
    began, ended = threading.Event(), threading.Event()

    def take(events: Iterator[Received]) -> None:
        try:
            for _ in events:
                began.set()
            raise AssertionError("it came to its end")
        finally:
            ended.set()

    def slowly(events: Iterator[Received]) -> None:
        take(each for each in events if not began.is_set() or not cancelled.wait(60))

    cancelled = threading.Event()
    taking = asyncio.create_task(CopyReader(only_near(here.open_read("c1"))).take_entries("tree", slowly))
    await asyncio.to_thread(began.wait, 60)
    taking.cancel()
    asyncio.get_running_loop().call_later(0.1, cancelled.set)
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert ended.is_set()


async def test_a_token_for_another_purpose_takes_nothing(here: Site) -> None:
    await CopyWriter(here.open_write("c1")).write_entries("tree", sent())
    here.repository.commit("c1")
    with pytest.raises(CopyStreamError) as caught:
        await taken(here, "c1", grant=only_near(here.open_write("c2")))
    assert caught.value.problem.actor is Actor.CALLER


async def test_there_is_no_short_way_to_another_machine(here: Site) -> None:
    here.told_near = False
    assert not await CopyReader(here.open_read("c1", seconds=60)).take_entries("tree", lambda _: None)


@pytest.mark.parametrize("cut", [0, 3, 5, 9, 40, -1])
def test_frames_that_are_cut_short_are_noticed(cut: int) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    line = entry_line(key="a", size=3, metadata={}, digest=digest_hex(b"abc"))
    with ours, theirs:
        send_whole(ours, line, [b"abc"])
        theirs.settimeout(30)
        whole = theirs.recv(1000)
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with theirs:
        with ours:
            ours.sendall(whole[:cut] if cut >= 0 else whole)
        with pytest.raises(FrameError, match="cut short"):
            list(receive(theirs))


@pytest.mark.parametrize("size", [2, 4, -1])
def test_whole_entries_must_fill_their_frame(size: int) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        send_whole(ours, entry_line(key="a", size=size, metadata={}, digest="00"), [b"abc"])
        with pytest.raises(FrameError, match="than its entries"):
            list(receive(theirs))
