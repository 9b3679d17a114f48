"""Moments on file systems whose files share blocks: fixed without copying, and true to the moment."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from brokers.volume.linux import clone_range, clones
from bus.connection import Bus
from schemas.ids import new_id
from tests.bench.trees import can_mount, fresh_filesystem
from tests.integration.filesystem.site import Site
from tests.integration.volume.services import Volume
from tests.integration.volume.trees import look, nasty
from tests.servers import NatsServer

MIB = 1 << 20
BIG = 96 * MIB + 12_345


@pytest.fixture(params=["xfs", "btrfs"])
def sharing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where a new file system of this kind is mounted."""
    kind: str = request.param
    if not can_mount(kind):
        pytest.skip(f"no {kind} can be mounted here: that needs root, mkfs.{kind} and loop devices")
    with ExitStack() as stack:
        try:
            place = stack.enter_context(fresh_filesystem(kind, size=1 << 30, directory=tmp_path))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no {kind} can be mounted here: {error.stderr.decode(errors='replace').strip()}")
        yield place


@pytest.fixture
async def broker(
    sharing: Path,
    nats_server: NatsServer,
    bus: Bus,
) -> AsyncIterator[Volume]:
    """A broker whose volumes lie there."""
    made = Volume(bus=bus, nats_url=nats_server.url, directory=sharing, name="sharing")
    try:
        await made.start()
        yield made
    finally:
        await made.stop()  # whatever happened: else the file system can't be unmounted


def used(place: Path) -> int:
    """Bytes in use on the file system, once all is written."""
    os.sync()
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def fill(tree: Path) -> None:
    nasty(tree)
    block = os.urandom(MIB)
    for name in ("big", "bigger", "biggest"):
        with (tree / name).open("wb") as file:
            for at in range(BIG // MIB):
                file.write(name.encode() + at.to_bytes(4) + block[len(name) + 4 :])
            file.write(block[: BIG % MIB])


@pytest.mark.full
@pytest.mark.parametrize("staged", [True, False])
async def test_a_moment_takes_no_room_of_its_own_and_stays_what_it_was(
    broker: Volume, repository: Site, sharing: Path, staged: bool
) -> None:
    assert clones(sharing)
    copy = new_id()
    tree = await broker.tree("shared")
    await asyncio.to_thread(fill, tree)
    before, moment = await asyncio.to_thread(used, sharing), await asyncio.to_thread(look, tree)
    if staged:
        await broker.stage("shared", copy)
    prepared = await broker.prepare("shared", copy, hold_seconds=3600)
    assert prepared.level == "application"
    grown = await asyncio.to_thread(used, sharing) - before
    assert grown < BIG // 4, f"{grown} bytes were copied"
    for name in ("big", "bigger"):
        with (tree / name).open("r+b") as file:
            file.write(b"written after the moment")
    (tree / "biggest").unlink()
    grant = await broker.finish(repository, "shared", copy)
    restored = await broker.tree("shared-2", restore=grant)
    assert await asyncio.to_thread(look, restored) == moment


@pytest.mark.full
def test_part_of_a_block_is_copied_where_it_can_not_be_shared(sharing: Path) -> None:
    content = os.urandom(300_001)
    source = sharing / "source"
    source.write_bytes(content)
    with source.open("rb") as from_, (sharing / "target").open("w+b") as to:
        for at in (1 << 20, 0):  # the second one does not end where the file ends
            assert clone_range(from_.fileno(), to.fileno(), offset=0, length=len(content), at=at)
            assert os.pread(to.fileno(), len(content), at) == content
        assert to.seek(0, os.SEEK_END) == (1 << 20) + len(content)
