"""Copies between processes of one machine: without TLS, and files that are passed instead of sent."""

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from brokers.repository.errors import IncompleteCopy
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
from schemas.brokers import CopyGrant
from tests.integration.filesystem.certificates import Authority
from tests.integration.filesystem.site import Site

pytestmark = pytest.mark.skipif(not near.available(), reason="this system has no such sockets")

CLOSED = "https://127.0.0.1:1/v0/copies"
SMALL, BIG = os.urandom(3000), os.urandom(9 << 20)
METADATA = {"mode": "0644"}


@pytest.fixture
async def here(tmp_path: Path, authority: Authority) -> AsyncIterator[Site]:
    site = Site("here", directory=tmp_path, authority=authority, near=True)
    await site.start()
    yield site
    await site.stop()


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
