"""The broker's memory doesn't grow with what passes through it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.integration.filesystem.site import Site
from tests.integration.volume.services import Volume

MIB = 1 << 20
SIZE_MIB = 1000
PEAK_MIB = 220


@pytest.mark.full
async def test_memory_is_bounded_whatever_the_size(own_broker: Volume, repository: Site) -> None:
    tree = await own_broker.tree("memory")

    def fill() -> None:
        block = os.urandom(MIB)
        with (tree / "big").open("wb") as file:
            for at in range(SIZE_MIB):
                file.write(at.to_bytes(4) + block[4:])
        for at in range(60):
            (tree / f"{at}").write_bytes(block[: 900 << 10])

    await asyncio.to_thread(fill)
    grant = await own_broker.save(repository, "memory", "copy-memory")
    restored = await own_broker.tree("memory-2", restore=grant)
    assert (restored / "big").stat().st_size == SIZE_MIB * MIB
    assert _peak_mib(own_broker.pid) < PEAK_MIB


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
