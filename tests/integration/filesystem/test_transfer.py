"""Copies move between two repositories over mutual TLS."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator

import msgspec
import pytest

from brokers.repository.errors import CopyNotFound
from brokers.sdk.copystream import CopyReader, CopyStreamError, CopyWriter
from brokers.sdk.copystream_http import connection, request
from tests.integration.filesystem.site import Site, blocks

RANDOM = random.Random(3)
BIG = RANDOM.randbytes(30_000_000)


async def test_a_copy_arrives_whole_and_is_the_same_copy(north: Site, south: Site) -> None:
    there = await north.write_copy("c1", dump=BIG, other=b"small")
    progress: list[tuple[int, int]] = []
    transfer = south.transfer(
        north.open_read("c1", peer=south), progress=lambda done, total: progress.append((done, total))
    )
    here = await transfer.run()
    assert here.raw == there.raw
    assert progress[-1] == (there.manifest.logical_bytes, there.manifest.logical_bytes)
    assert south.repository.verify("c1", progress=lambda _done: None).sound
    assert await south.read("c1", "dump") == BIG
    again = south.transfer(north.open_read("c1", peer=south))
    assert (await again.run()).raw == there.raw
    assert again.fetched_bytes == 0


async def test_only_what_is_missing_is_fetched(north: Site, south: Site) -> None:
    await north.write_copy("c1", dump=BIG)
    await south.transfer(north.open_read("c1", peer=south)).run()
    changed = BIG[:10_000_000] + b"a change" + BIG[10_000_000:]
    await north.write_copy("c2", dump=changed)
    transfer = south.transfer(north.open_read("c2", peer=south))
    await transfer.run()
    assert transfer.fetched_bytes < 3_000_000
    assert await south.read("c2", "dump") == changed


async def test_many_entries_move_by_their_index(north: Site, south: Site) -> None:
    async def source() -> AsyncIterator[tuple[str, dict[str, str], int, AsyncIterator[bytes]]]:
        for number in range(1200):
            data = number.to_bytes(4, "big") * 20
            yield f"k{number}", {}, len(data), blocks(data)

    await CopyWriter(north.open_write("c1")).write_entries("objects", source())
    there = north.repository.commit("c1")
    here = await south.transfer(north.open_read("c1", peer=south)).run()
    assert here.manifest == there.manifest
    assert south.repository.verify("c1", progress=lambda _done: None).sound


async def test_a_grant_works_for_its_peer_copy_and_time_only(north: Site, south: Site) -> None:
    await north.write_copy("c1", dump=b"one")
    await north.write_copy("c2", dump=b"two")
    with pytest.raises(CopyStreamError, match="bound to another client certificate"):
        await south.transfer(north.open_read("c1", peer=north)).run()
    grant = north.open_read("c1", peer=south)
    with pytest.raises(CopyStreamError, match="bound to another client certificate"):
        # No client certificate at all.
        await _read_without_certificate(grant_holder=north, peer=south)
    north.offset_seconds = 3600
    with pytest.raises(CopyStreamError, match="expired"):
        await south.transfer(grant).run()
    north.offset_seconds = 0
    other = north.open_read("c2", peer=south)
    with pytest.raises(CopyStreamError, match="another copy"):
        await south.transfer(msgspec.structs.replace(other, copy="c1", url=grant.url)).run()
    assert list(south.repository.copies()) == []


async def _read_without_certificate(*, grant_holder: Site, peer: Site) -> None:
    await CopyReader(grant_holder.open_read("c1", peer=peer)).describe()


async def test_a_token_gives_no_chunk_of_another_copy(north: Site, south: Site) -> None:
    secret = await north.write_copy("c1", dump=b"of copy one")
    await north.write_copy("c2", dump=b"of copy two")
    grant = north.open_read("c2")
    chunk = north.chunks(secret, "dump")[0]
    async with connection(grant) as session:
        body = f'["{chunk}"]'.encode()
        with pytest.raises(CopyStreamError, match="no such chunk"):
            async with request(session, "POST", f"{grant.url}/chunks", part="dump", data=body):
                pytest.fail("the chunk was given")


class Stall:
    """Lets a repository give some chunks, and then none until it is released."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
        self._read = site.repository.packed_chunk
        self._left = after
        self._released = threading.Event()
        monkeypatch.setattr(site.repository, "packed_chunk", self._slow)

    def release(self) -> None:
        self._released.set()

    def _slow(self, digest: str, *, copy: str) -> bytes:
        self._left -= 1
        if self._left < 0:
            self._released.wait(20)
        return self._read(digest, copy=copy)


@pytest.mark.parametrize("who", ["source", "target"])
async def test_a_transfer_cut_off_goes_on_where_it_was(
    north: Site, south: Site, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await north.write_copy("c1", dump=BIG)
    grant = north.open_read("c1", peer=south)
    stall = Stall(north, monkeypatch, after=40)
    arrived = asyncio.Event()
    first = south.transfer(grant, progress=lambda done, total: arrived.set() if done > total // 10 else None)
    running = asyncio.create_task(first.run())
    await arrived.wait()
    if who == "source":
        stopping = asyncio.create_task(north.stop())
        with pytest.raises(CopyStreamError) as caught:
            await running
        stall.release()
        await stopping
        assert caught.value.problem.temporary
        await north.start()
    else:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        stall.release()
        await south.stop()
        await south.start()
    assert list(south.repository.copies()) == []
    second = south.transfer(grant)
    await second.run()
    assert 0 < second.fetched_bytes < 0.95 * len(BIG)
    assert await south.read("c1", "dump") == BIG


async def test_a_cancelled_transfer_leaves_nothing(north: Site, south: Site) -> None:
    await north.write_copy("c1", dump=BIG)
    started = asyncio.Event()
    transfer = south.transfer(
        north.open_read("c1", peer=south), progress=lambda done, _: started.set() if done else None
    )
    running = asyncio.create_task(transfer.run())
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.to_thread(south.repository.abort, "c1")
    found = south.repository.stats()
    assert (found.copies, found.open_copies, found.chunks) == (0, 0, 0)
    with pytest.raises(CopyNotFound):
        south.repository.writing("c1")


async def test_a_damaged_source_is_not_delivered(north: Site, south: Site) -> None:
    committed = await north.write_copy("c1", dump=BIG)
    chunk = north.chunks(committed, "dump")[5]
    north.damage(chunk)
    # It says which chunk, unless the connection is closed before that is read.
    with pytest.raises(Exception, match=f"{chunk}|connection to the repository failed"):
        await south.transfer(north.open_read("c1", peer=south)).run()
    assert list(south.repository.copies()) == []
    north.place(chunk)[0].unlink()
    with pytest.raises(CopyStreamError, match="is missing"):
        await south.transfer(north.open_read("c1", peer=south)).run()


async def test_between_trust_domains_a_copy_is_named_anew(north: Site, south: Site) -> None:
    await south.stop()
    stranger = Site("west", directory=south.directory.parent, authority=south._authority)
    stranger.domain = "west"
    await stranger.start()
    try:
        await _written_in_both_layouts(north)
        there = north.repository.committed("c1")
        transfer = stranger.transfer(north.open_read("c1", peer=stranger))
        here = await transfer.run()
        assert transfer.fetched_bytes > len(BIG)
        assert here.raw == there.raw
        assert not set(stranger.chunks(here, "dump")) & set(north.chunks(there, "dump"))
        assert stranger.repository.verify("c1", progress=lambda _done: None).sound
        assert await stranger.read("c1", "dump") == BIG
        again = stranger.transfer(north.open_read("c1", peer=stranger))
        assert (await again.run()).raw == there.raw
        assert again.fetched_bytes == 0
    finally:
        await stranger.stop()
        await south.start()


async def _written_in_both_layouts(site: Site) -> None:
    async def source() -> AsyncIterator[tuple[str, dict[str, str], int, AsyncIterator[bytes]]]:
        for number in range(50):
            data = number.to_bytes(4, "big") * number
            yield f"k{number}", {"n": str(number)}, len(data), blocks(data)

    writer = CopyWriter(site.open_write("c1"))
    await writer.write_entries("objects", source())
    await writer.write_stream("dump", blocks(BIG))
    site.repository.commit("c1")
