"""Bytes go no faster than a grant, or the repository, allows; and what is slow is cancelled at once."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from brokers.sdk.copystream import CopyReader, CopyWriter
from brokers.sdk.pacing import AHEAD_SECONDS, Pace
from tests.integration.filesystem.site import Site, blocks

DATA = random.Random(3).randbytes(300_000)
RATE = 600_000
LEAST_SECONDS = len(DATA) / RATE - AHEAD_SECONDS


async def _written(site: Site) -> None:
    grant = msgspec.structs.replace(site.open_write("c1"), bytes_per_second=RATE)
    await CopyWriter(grant).write_stream("dump", blocks(DATA))


async def _read(site: Site) -> None:
    grant = msgspec.structs.replace(site.open_read("there"), bytes_per_second=RATE)
    assert b"".join([bytes(block) async for block in CopyReader(grant).read_stream("dump")]) == DATA


async def _written_slowly(site: Site) -> None:
    site.endpoint.pace = Pace(RATE)
    await site.write("c1", "dump", DATA)


async def _read_slowly(site: Site) -> None:
    site.endpoint.pace = Pace(RATE)
    assert await site.read("there", "dump") == DATA


@pytest.mark.parametrize("move", [_written, _read, _written_slowly, _read_slowly])
async def test_bytes_go_no_faster_than_allowed(north: Site, move: Callable[[Site], Awaitable[None]]) -> None:
    await north.write_copy("there", dump=DATA)
    begun = time.monotonic()
    await move(north)
    assert time.monotonic() - begun >= LEAST_SECONDS


async def test_a_transfer_keeps_its_limit(north: Site, south: Site) -> None:
    await north.write_copy("c1", dump=DATA)
    grant = msgspec.structs.replace(north.open_read("c1", peer=south), bytes_per_second=RATE)
    begun = time.monotonic()
    await south.transfer(grant).run()
    assert time.monotonic() - begun >= LEAST_SECONDS
    assert await south.read("c1", "dump") == DATA


async def test_what_is_slowed_down_is_cancelled_at_once_and_leaves_nothing(north: Site) -> None:
    grant = msgspec.structs.replace(north.open_write("c1"), bytes_per_second=1000)
    passed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield DATA

    writing = asyncio.ensure_future(
        CopyWriter(grant, progress=lambda _count: passed.set()).write_stream("dump", endless())
    )
    await asyncio.wait_for(passed.wait(), 30)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(writing, 30)
    await north.settled("c1")
    assert not north.repository.writing("c1").sealed()
    north.repository.abort("c1")
    assert north.repository.stats().staging_bytes == 0
    assert north.repository.stats().stored_bytes == 0
