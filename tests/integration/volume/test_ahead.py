"""Stages that go straight into the repository: what came ahead is no copy, and the moment is what it is without."""

from __future__ import annotations

import asyncio
import mmap
import os
import time
from pathlib import Path

import pytest

from brokers.repository.errors import CopyNotFound, IncompleteCopy
from brokers.volume.moments import CLOCK_NS
from schemas.brokers import Copied, Done, StageCopy
from schemas.ids import new_id
from tests.integration.broker_process import eventually
from tests.integration.filesystem.site import Site
from tests.integration.volume.services import Volume
from tests.integration.volume.trees import look, nasty, same

FILES = 600
WHOLE = (30 << 20) + 12_345
"""More than fits into the memory that is passed."""


async def settled(tree: Path) -> None:
    latest = max(path.lstat().st_ctime_ns for path in (tree, *tree.rglob("*")))
    await eventually(lambda: time.time_ns() > latest + 3 * CLOCK_NS, seconds=30, what="it is no recent change")


def many(tree: Path) -> None:
    for folder in range(20):
        (tree / f"{folder:02}").mkdir()
        for file in range(FILES // 20):
            (tree / f"{folder:02}" / f"{file:03}").write_bytes(os.urandom(3000 + file))


def kept_here(broker: Volume) -> int:
    """How many bytes of files lie in the moments of the broker."""
    return sum(file.stat().st_size for file in (broker.volumes / "moments").glob("*/content"))


async def finish(broker: Volume, repository: Site, service: str, copy: str, *, parent: str = "") -> Path:
    """Copy what is prepared, commit it, restore it."""
    await broker.copy(service, copy, repository.open_write(copy, parent=parent))
    repository.repository.commit(copy)
    await broker.discard(copy)
    assert not repository.repository.verify(copy, progress=lambda _: None).findings
    return await broker.tree(f"{copy}-restored", restore=repository.open_read(copy))


async def test_what_is_staged_lies_in_the_repository_alone_and_is_no_copy(broker: Volume, repository: Site) -> None:
    tree, copy = await broker.tree("lies"), "copy-lies"
    nasty(tree)
    many(tree)
    (tree / "whole").write_bytes(os.urandom(1 << 20) * 30 + os.urandom(WHOLE - (30 << 20)))
    with (tree / "big with holes").open("wb") as file:
        file.seek(40 << 20)
        file.write(b"end")
    await settled(tree)
    await broker.stage("lies", copy, grant=repository.open_write(copy))
    assert kept_here(broker) == 0
    opened = repository.repository.writing(copy)
    assert opened.sealed() == {}
    ahead = opened.ahead("tree")
    assert ahead is not None
    assert ahead.size > WHOLE
    with pytest.raises(CopyNotFound):
        repository.repository.committed(copy)
    with pytest.raises(IncompleteCopy):
        repository.repository.commit(copy)
    prepared = await broker.prepare("lies", copy)
    assert prepared.level == "application"
    assert kept_here(broker) == 0
    same(tree, await finish(broker, repository, "lies", copy))
    assert repository.repository.committed(copy).parts == (ahead,)


async def test_what_changes_after_it_is_what_the_moment_says(broker: Volume, repository: Site) -> None:
    tree, copy = await broker.tree("says"), "copy-says"
    many(tree)
    (tree / "mapped").write_bytes(b"0" * 8192)
    (tree / "big").write_bytes(os.urandom(6 << 20))
    (tree / "later big").write_bytes(os.urandom(6 << 20))
    with (tree / "mapped").open("r+b") as file, mmap.mmap(file.fileno(), 8192) as mapped:
        mapped[0:3] = b"one"
        await settled(tree)
        await broker.stage("says", copy, grant=repository.open_write(copy))
        mapped[0:3] = b"two"
        info = (tree / "05" / "003").stat()
        (tree / "05" / "003").write_bytes(os.urandom(info.st_size))
        os.utime(tree / "05" / "003", ns=(info.st_atime_ns, info.st_mtime_ns))
        (tree / "06" / "001").unlink()
        (tree / "06" / "new").write_bytes(b"new")
        (tree / "07").rename(tree / "renamed")
        (tree / "08" / "000").chmod(0o600)
        (tree / "big").unlink()
        with (tree / "later big").open("r+b") as later:
            later.seek(5 << 20)
            later.write(b"changed")
        before = look(tree)
        assert (await broker.prepare("says", copy)).level == "application"
        mapped[0:3] = b"far"
        (tree / "05" / "003").write_bytes(b"after the moment")
        (tree / "later big").write_bytes(b"after the moment")
    assert 0 < kept_here(broker) < 7 << 20
    restored = await finish(broker, repository, "says", copy)
    assert {path: seen[:-1] for path, seen in look(restored).items()} == {
        path: seen[:-1] for path, seen in before.items()
    }
    assert (restored / "mapped").read_bytes()[:3] == b"two"


async def test_only_what_changed_since_the_copy_before_is_sent(own_broker: Volume, repository: Site) -> None:
    tree = await own_broker.tree("since")
    many(tree)
    await settled(tree)
    for number, parent in ((1, ""), (2, "copy-since-1"), (3, "copy-since-2"), (4, "copy-since-3")):
        copy = f"copy-since-{number}"
        if number > 2:
            (tree / "03" / "007").write_bytes(os.urandom(5000))
        if number > 3:
            (tree / "04" / "007").unlink()
            await settled(tree)
        await own_broker.stage("since", copy, grant=repository.open_write(copy, parent=parent))
        sent = repository.repository.writing(copy).ahead("tree")
        assert (sent is None) == (number == 2), "nothing changed, so nothing is sent"
        await own_broker.prepare("since", copy)
        assert kept_here(own_broker) < 20_000
        same(tree, await finish(own_broker, repository, "since", copy, parent=parent))


async def test_much_is_kept_between_little_that_changed(own_broker: Volume, repository: Site) -> None:
    tree = await own_broker.tree("between")
    for at in range(36):
        (tree / f"{at:02}").mkdir()
        (tree / f"{at:02}" / "big").write_bytes(os.urandom(1000) * 2000)
        (tree / f"{at:02}" / "small").write_bytes(b"0")
    await settled(tree)
    for number, parent in ((1, ""), (2, "copy-between-1")):
        for at in range(36):
            (tree / f"{at:02}" / "small").write_bytes(b"%d" % number)
        copy = f"copy-between-{number}"
        await own_broker.stage("between", copy, grant=repository.open_write(copy, parent=parent))
        await own_broker.prepare("between", copy)
        restored = await finish(own_broker, repository, "between", copy, parent=parent)
    same(tree, restored)


async def test_a_stage_is_repeated_after_a_crash_and_goes_on_after_one(own_broker: Volume, repository: Site) -> None:
    tree, copy = await own_broker.tree("crash"), "copy-crash"
    many(tree)
    (tree / "whole").write_bytes(os.urandom(1 << 20) * 60)
    await settled(tree)
    stage = StageCopy(id=new_id(), service_id="crash", copy=copy, grant=repository.open_write(copy))
    await own_broker.begin("stage_copy", stage)
    await own_broker.kill()
    await repository.settled(copy)
    await own_broker.start()
    again = StageCopy(id=new_id(), service_id="crash", copy=copy, grant=repository.open_write(copy))
    await own_broker.run("stage_copy", again, Done)
    await own_broker.kill()
    await own_broker.start()
    (tree / "00" / "000").write_bytes(b"since")
    await own_broker.prepare("crash", copy)
    assert kept_here(own_broker) < 10_000
    await own_broker.kill()
    await own_broker.start()
    same(tree, await finish(own_broker, repository, "crash", copy))
    await eventually(lambda: own_broker.leftovers() == set(), seconds=30, what="all is tidy")


async def test_cancelling_a_stage_leaves_nothing_here(own_broker: Volume, repository: Site) -> None:
    tree, copy = await own_broker.tree("cancelled"), "copy-cancelled"
    (tree / "whole").write_bytes(os.urandom(1 << 20) * 200)
    request = StageCopy(id=new_id(), service_id="cancelled", copy=copy, grant=repository.open_write(copy))
    await own_broker.begin("stage_copy", request)
    assert (await own_broker.cancel(request.id)).state in ("cancelled", "succeeded")
    await own_broker.discard(copy)
    await repository.settled(copy)
    repository.repository.abort(copy)
    await eventually(lambda: own_broker.leftovers() == set(), seconds=30, what="all is tidy")
    with pytest.raises(CopyNotFound):
        repository.repository.writing(copy)


async def test_a_repository_that_was_started_anew_still_has_what_came_ahead(
    own_broker: Volume, tmp_path: Path, repository: Site
) -> None:
    tree, copy = await own_broker.tree("anew"), "copy-anew"
    many(tree)
    await settled(tree)
    await own_broker.stage("anew", copy, grant=repository.open_write(copy))
    (tree / "01" / "001").write_bytes(b"since")
    await own_broker.prepare("anew", copy)
    await repository.stop()
    await repository.start()
    same(tree, await finish(own_broker, repository, "anew", copy))


@pytest.mark.parametrize("written", [False, True])
async def test_what_came_ahead_and_is_lost_is_read_again_if_it_still_can_be(
    own_broker: Volume, repository: Site, written: bool
) -> None:
    service = f"lost-{written}"
    tree, copy = await own_broker.tree(service), f"copy-{service}"
    many(tree)
    await settled(tree)
    await own_broker.stage(service, copy, grant=repository.open_write(copy))
    (tree / "01" / "001").write_bytes(b"since")
    await own_broker.prepare(service, copy)
    repository.repository.abort(copy)
    if not written:
        same(tree, await finish(own_broker, repository, service, copy))
        return
    (tree / "02" / "001").write_bytes(b"after the moment")
    request = own_broker.copy_request(service, copy, repository.open_write(copy))
    problem = await own_broker.fails("copy", request)
    assert (problem.code, problem.temporary) == ("moment_lost", False)
    repository.repository.abort(copy)


async def test_a_repository_that_is_away_or_elsewhere_lets_it_be_staged_here(
    own_broker: Volume, repository: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = await own_broker.tree("here")
    many(tree)
    monkeypatch.setattr(repository, "told_near", False)
    await own_broker.stage("here", "copy-here-1", grant=repository.open_write("copy-here-1"))
    assert kept_here(own_broker) >= FILES * 3000
    monkeypatch.setattr(repository, "told_near", True)
    grant = repository.open_write("copy-here-2")
    repository.repository.abort("copy-here-2")
    await own_broker.stage("here", "copy-here-2", grant=grant)
    assert kept_here(own_broker) >= 2 * FILES * 3000
    for copy in ("copy-here-1", "copy-here-2"):
        await own_broker.prepare("here", copy)
        same(tree, await finish(own_broker, repository, "here", copy))


async def test_a_tree_that_is_written_to_all_the_while_is_copied_as_it_was_at_a_moment(
    own_broker: Volume, repository: Site
) -> None:
    """Every file holds its number again and again: a mixture of two would be seen."""
    tree = await own_broker.tree("busy")
    for at in range(60):
        (tree / f"{at}").write_bytes(b"%08d" % 0 * 40_000)
    number, writing = 0, True

    def write() -> None:
        nonlocal number
        while writing:
            number += 1
            for at in range(0, 60, 7):
                beside = tree / "beside"
                beside.write_bytes(b"%08d" % number * (40_000 + number % 5))
                beside.rename(tree / f"{at}")

    writer = asyncio.create_task(asyncio.to_thread(write))
    try:
        for turn in range(3):
            copy = f"copy-busy-{turn}"
            await own_broker.stage("busy", copy, grant=repository.open_write(copy))
            await own_broker.prepare("busy", copy)
            copied: Copied = await own_broker.copy("busy", copy, repository.open_write(copy))
            assert copied.parts[0].entries is not None
            repository.repository.commit(copy)
            await own_broker.discard(copy)
    finally:
        writing = False
        await writer
    for turn in range(3):
        restored = await own_broker.tree(f"busy-{turn}", restore=repository.open_read(f"copy-busy-{turn}"))
        for at in range(60):
            data = (restored / f"{at}").read_bytes()
            assert data == data[:8] * (len(data) // 8)
