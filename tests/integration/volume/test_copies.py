"""Copies: of one moment whatever is done afterwards, restored elsewhere, whole or not at all."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import time
from pathlib import Path

import pytest

from brokers.volume.moments import CLOCK_NS
from schemas.brokers import PrepareCopy, Prepared, Provisioned, StageCopy
from schemas.ids import new_id
from tests.integration.broker_process import eventually
from tests.integration.filesystem.site import Site
from tests.integration.volume.services import Volume
from tests.integration.volume.trees import look, nasty, same

FILES = 1500


def many(tree: Path) -> None:
    for folder in range(30):
        (tree / f"{folder:02}").mkdir()
        for file in range(FILES // 30):
            (tree / f"{folder:02}" / f"{file:03}").write_bytes(os.urandom(2000))


@pytest.mark.parametrize("near", [True, False])
@pytest.mark.parametrize("staged", [True, False])
async def test_all_that_a_tree_can_hold_comes_through(
    broker: Volume, repository: Site, monkeypatch: pytest.MonkeyPatch, staged: bool, near: bool
) -> None:
    monkeypatch.setattr(repository, "told_near", near)
    service = f"nasty-{staged}-{near}"
    tree = await broker.tree(service)
    nasty(tree)
    copy = f"copy-{service}"
    if staged:
        await broker.stage(service, copy)
    prepared = await broker.prepare(service, copy)
    assert prepared.level == "application"
    assert (prepared.estimated_bytes or 0) < 10 << 20, "holes are not data"
    grant = await broker.finish(repository, service, copy)
    restored = await broker.tree(f"{service}-2", restore=grant)
    same(tree, restored)
    for name in ("sparse", "all hole"):
        assert (restored / name).stat().st_blocks * 512 <= (tree / name).stat().st_blocks * 512 + 65536


async def test_an_empty_tree_is_a_copy_too(broker: Volume, repository: Site) -> None:
    tree = await broker.tree("empty")
    restored = await broker.tree("empty-2", restore=await broker.save(repository, "empty", "copy-empty"))
    same(tree, restored)


@pytest.mark.parametrize("staged", [True, False])
async def test_a_copy_shows_the_moment_whatever_is_done_after_it(
    broker: Volume, repository: Site, staged: bool
) -> None:
    service, copy = f"moment-{staged}", f"copy-moment-{staged}"
    tree = await broker.tree(service)
    for name in ("overwritten", "appended", "removed", "renamed", "written after staging", "removed after staging"):
        (tree / name).write_bytes(name.encode() * 100)
    (tree / "directory").mkdir()
    (tree / "directory" / "file").write_bytes(b"1")
    if staged:
        await broker.stage(service, copy)
    info = (tree / "written after staging").stat()
    (tree / "written after staging").write_bytes(b"WRITTEN AFTER STAGING" * 100)
    os.utime(tree / "written after staging", ns=(info.st_atime_ns, info.st_mtime_ns))
    (tree / "removed after staging").unlink()
    (tree / "directory").rename(tree / "another directory")
    before = look(tree)
    prepared = await broker.prepare(service, copy)
    assert prepared.level == "application"
    with (tree / "overwritten").open("r+b") as file:
        file.write(b"changed in place")
    with (tree / "appended").open("ab") as file:
        file.write(b"more")
    (tree / "removed").unlink()
    (tree / "renamed").rename(tree / "renamed later")
    (tree / "another directory" / "later").touch()
    assert await broker.prepare(service, copy) == prepared
    restored = await broker.tree(f"{service}-2", restore=await broker.finish(repository, service, copy))
    assert {path: seen[:-1] for path, seen in look(restored).items()} == {
        path: seen[:-1] for path, seen in before.items()
    }
    (restored / "removed").unlink()
    assert (tree / "overwritten").exists()


async def test_files_written_through_a_memory_map_after_staging_are_seen(broker: Volume, repository: Site) -> None:
    tree = await broker.tree("mapped")
    (tree / "mapped").write_bytes(b"0" * 8192)
    with (tree / "mapped").open("r+b") as file, mmap.mmap(file.fileno(), 8192) as mapped:
        mapped[0:3] = b"one"
        changed = (tree / "mapped").stat().st_ctime_ns
        await eventually(lambda: time.time_ns() > changed + 3 * CLOCK_NS, seconds=5, what="it is no recent change")
        await broker.stage("mapped", "copy-mapped")
        mapped[0:3] = b"two"
        await broker.prepare("mapped", "copy-mapped")
        mapped[0:3] = b"far"
    restored = await broker.tree("mapped-2", restore=await broker.finish(repository, "mapped", "copy-mapped"))
    assert (restored / "mapped").read_bytes()[:3] == b"two"


async def test_what_is_written_while_the_moment_is_fixed_makes_it_level_crash(broker: Volume) -> None:
    tree = await broker.tree("written")
    await asyncio.to_thread(many, tree)
    writing = True

    def write() -> None:
        while writing:
            for folder in range(30):
                (tree / f"{folder:02}" / "000").write_bytes(os.urandom(3000))
                (tree / f"{folder:02}" / "new").touch()
                (tree / f"{folder:02}" / "new").unlink()

    writer = asyncio.create_task(asyncio.to_thread(write))
    levels: list[str] = []
    try:
        # on a busy machine the writer may sleep all the while that one moment is fixed
        while "crash" not in levels and len(levels) < 50:
            copy = f"copy-written-{len(levels)}"
            levels.append((await broker.prepare("written", copy)).level)
            await broker.discard(copy)
    finally:
        writing = False
        await writer
    assert levels[-1] == "crash"


async def test_sockets_are_left_out_and_told(broker: Volume, repository: Site) -> None:
    tree = await broker.tree("sockets")
    (tree / "kept").touch()
    # the path of a socket is short, so it is made through a descriptor
    directory = os.open(tree, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{directory}/socket")
    finally:
        os.close(directory)
    prepared = await broker.prepare("sockets", "copy-sockets")
    assert "1 sockets or devices left out" in prepared.moment
    restored = await broker.tree("sockets-2", restore=await broker.finish(repository, "sockets", "copy-sockets"))
    assert [path.name for path in restored.iterdir()] == ["kept"]


async def test_a_moment_outlives_the_broker(own_broker: Volume, repository: Site) -> None:
    tree = await own_broker.tree("outlives")
    (tree / "a").write_bytes(b"1")
    await own_broker.stage("outlives", "copy-outlives")
    prepared = await own_broker.prepare("outlives", "copy-outlives")
    await own_broker.kill()
    (tree / "a").write_bytes(b"2")
    await own_broker.start()
    assert await own_broker.prepare("outlives", "copy-outlives") == prepared
    grant = await own_broker.finish(repository, "outlives", "copy-outlives")
    assert ((await own_broker.tree("outlives-2", restore=grant)) / "a").read_bytes() == b"1"
    await eventually(lambda: own_broker.leftovers() == set(), seconds=10, what="all is tidy")


async def test_a_moment_of_before_the_machine_was_started_is_lost(own_broker: Volume) -> None:
    await own_broker.tree("boot")
    await own_broker.prepare("boot", "copy-boot")
    await own_broker.stop()
    (note,) = (own_broker.volumes / "moments").glob("*.json")
    text = note.read_text()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert boot in text
    note.write_text(text.replace(boot, "another"))
    await own_broker.start()
    request = PrepareCopy(id=new_id(), service_id="boot", copy="copy-boot")
    assert (await own_broker.refuses("prepare_copy", request, Prepared)).code == "moment_lost"


async def test_a_moment_is_let_go_after_its_time_and_when_discarded(own_broker: Volume, repository: Site) -> None:
    await own_broker.tree("held")
    await own_broker.prepare("held", "copy-short", hold_seconds=0)
    await own_broker.prepare("held", "copy-discarded")
    await own_broker.discard("copy-discarded")
    await own_broker.discard("copy-never-heard-of")
    await eventually(lambda: own_broker.leftovers() == set(), seconds=12, what="the data of the moments is gone")
    for copy in ("copy-short", "copy-discarded", "copy-never-heard-of"):
        request = PrepareCopy(id=new_id(), service_id="held", copy=copy)
        assert (await own_broker.refuses("prepare_copy", request, Prepared)).code == "moment_lost"
        stage = StageCopy(id=new_id(), service_id="held", copy=copy)
        assert (await own_broker.fails("stage_copy", stage)).code == "moment_lost"
        copying = own_broker.copy_request("held", copy, repository.open_write(copy))
        problem = await own_broker.fails("copy", copying)
        assert (problem.code, problem.temporary) == ("moment_lost", False)


async def test_cancelling_a_restore_leaves_nothing_and_another_id_succeeds(broker: Volume, repository: Site) -> None:
    tree = await broker.tree("cancel")
    await asyncio.to_thread(many, tree)
    grant, before = await broker.save(repository, "cancel", "copy-cancel"), broker.leftovers()
    request = broker.provision_request("cancel-2", restore=grant)
    assert (await broker.begin("provision", request)).state == "running"
    await eventually(lambda: _begun(broker), seconds=10, what="the restore has begun")
    assert (await broker.cancel(request.id)).state == "cancelled"
    assert (await broker.begin("provision", request)).state == "cancelled"
    assert await broker.describe("cancel-2") == ()
    await eventually(lambda: broker.leftovers() <= before, seconds=10, what="its pieces are removed")
    same(tree, await broker.tree("cancel-2", restore=grant))


async def test_a_broker_killed_in_a_restore_begins_it_anew(own_broker: Volume, repository: Site) -> None:
    tree = await own_broker.tree("killed")
    await asyncio.to_thread(many, tree)
    grant = await own_broker.save(repository, "killed", "copy-killed")
    request = own_broker.provision_request("killed-2", restore=grant)
    await own_broker.begin("provision", request)
    await eventually(lambda: _begun(own_broker), seconds=10, what="the restore has begun")
    await own_broker.kill()
    assert len(list((own_broker.volumes / "trees").iterdir())) == 1, "half a restore is not to be seen"
    await own_broker.start()
    assert [found.id for found in await own_broker.describe("killed-2")] == ["killed-2"]
    result = await own_broker.run("provision", request, Provisioned)
    same(tree, Path(result.resource["path"]))
    await eventually(lambda: own_broker.leftovers() == set(), seconds=10, what="all is tidy")


async def test_cancelling_a_copy_and_another_try(broker: Volume, repository: Site) -> None:
    tree = await broker.tree("try")
    await asyncio.to_thread(many, tree)
    await broker.prepare("try", "copy-try")
    request = broker.copy_request("try", "copy-try", repository.open_write("copy-try"))
    await asyncio.gather(broker.begin("copy", request), broker.begin("copy", request))
    assert (await broker.cancel(request.id)).state in ("cancelled", "succeeded")
    copied = await broker.copy("try", "copy-try", repository.open_write("copy-try"))
    assert copied.parts[0].entries == FILES + 31


async def test_discarding_ends_a_copy_that_streams(broker: Volume, repository: Site) -> None:
    tree = await broker.tree("ends")
    (tree / "big").write_bytes(os.urandom(1 << 20) * 300)
    await broker.prepare("ends", "copy-ends")
    request = broker.copy_request("ends", "copy-ends", repository.open_write("copy-ends"))
    await broker.begin("copy", request)
    await broker.discard("copy-ends")
    outcome = await broker.ended(request.id)
    assert outcome.problem is not None
    assert outcome.problem.code == "moment_lost"
    await broker.deprovision("ends")


async def test_a_copy_of_something_else_is_refused(broker: Volume, repository: Site) -> None:
    await repository.write_copy("copy-other", other=b"x")
    request = broker.provision_request("other", restore=repository.open_read("copy-other"))
    assert (await broker.fails("provision", request)).code == "wrong_copy"


def _begun(broker: Volume) -> bool:
    return any(path.is_dir() and any(path.iterdir()) for path in (broker.volumes / "making").iterdir())
