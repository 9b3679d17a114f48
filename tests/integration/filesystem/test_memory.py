"""The endpoint's memory doesn't grow with what passes through it."""

import asyncio
import os
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brokers.sdk.copystream import CopyReader, CopyWriter
from tests.integration.filesystem.certificates import Authority
from tests.integration.filesystem.site import Site

MIB = 1 << 20
SIZE_MIB = 300
GROWTH_MIB = 120


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def _stream(mib: int) -> AsyncIterator[bytes]:
    # Half of it new bytes: deduplication and compression must not hide what is held.
    for _ in range(mib):
        yield os.urandom(MIB // 2) + bytes(MIB // 2)


async def _measure(directory: Path) -> None:
    site = Site("north", directory=directory, authority=Authority(directory))
    await site.start()
    await CopyWriter(site.open_write("warm")).write_stream("dump", _stream(40))
    site.repository.commit("warm")
    before = _peak_mib()
    await CopyWriter(site.open_write("big")).write_stream("dump", _stream(SIZE_MIB))
    site.repository.commit("big")
    read = 0
    async for block in CopyReader(site.open_read("big")).read_stream("dump"):
        read += len(block)
    assert read == SIZE_MIB * MIB
    await site.stop()
    print(_peak_mib() - before)


@pytest.mark.full
async def test_memory_is_bounded_for_both_ends_together(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert float(output) < GROWTH_MIB


if __name__ == "__main__":
    asyncio.run(_measure(Path(sys.argv[1])))
