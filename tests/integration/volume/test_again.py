"""A copy after another: what did not change is neither read nor sent, and what did is noticed."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brokers.volume.moments import CLOCK_NS
from bus.connection import Bus
from tests.integration.broker_process import eventually
from tests.integration.filesystem.site import Site
from tests.integration.volume.services import Volume
from tests.integration.volume.trees import nasty, same
from tests.servers import NatsServer

BIG = 3 << 20


@pytest.fixture
async def paranoid(nats_server: NatsServer, bus: Bus, tmp_path: Path) -> AsyncIterator[Volume]:
    made = Volume(bus=bus, nats_url=nats_server.url, directory=tmp_path, name="paranoid-volume", paranoid=True)
    await made.start()
    yield made
    await made.stop()


async def settled(tree: Path) -> None:
    """What was written this very moment counts as changed the next time."""
    latest = max(path.lstat().st_ctime_ns for path in (tree, *tree.rglob("*")))
    await eventually(lambda: time.time_ns() > latest + 3 * CLOCK_NS, seconds=30, what="it is no recent change")


async def again(broker: Volume, repository: Site, service: str, copy: str, *, parent: str) -> int:
    """Save once more, on top of ``parent``; how many bytes of files were read for it."""
    await broker.stage(service, copy)
    await broker.prepare(service, copy)
    (content,) = (broker.volumes / "moments").glob("*/content")
    read = content.stat().st_size
    await broker.copy(service, copy, repository.open_write(copy, parent=parent))
    repository.repository.commit(copy)
    await broker.discard(copy)
    return read


async def test_what_did_not_change_is_not_read_again(own_broker: Volume, repository: Site) -> None:
    tree = await own_broker.tree("again")
    nasty(tree)
    (tree / "changes").write_bytes(os.urandom(BIG))
    await settled(tree)
    assert await again(own_broker, repository, "again", "copy-again-1", parent="") > BIG
    assert await again(own_broker, repository, "again", "copy-again-2", parent="copy-again-1") == 0
    info = (tree / "changes").stat()
    (tree / "changes").write_bytes(b"x" * BIG)
    os.utime(tree / "changes", ns=(info.st_atime_ns, info.st_mtime_ns))
    (tree / "empty").unlink()
    (tree / "a new one").write_bytes(b"new")
    (tree / "plain").rename(tree / "renamed")
    await settled(tree)
    assert BIG < await again(own_broker, repository, "again", "copy-again-3", parent="copy-again-2") < BIG + (1 << 20)
    for number in (2, 3):
        grant = repository.open_read(f"copy-again-{number}")
        restored = await own_broker.tree(f"again-restored-{number}", restore=grant)
        if number == 3:
            same(tree, restored)
        else:
            assert (restored / "empty").exists()


@pytest.mark.parametrize("near", [True, False])
async def test_whatever_happens_to_a_tree_the_copy_after_shows_it(
    own_broker: Volume, repository: Site, monkeypatch: pytest.MonkeyPatch, near: bool
) -> None:
    monkeypatch.setattr(repository, "told_near", near)
    service = f"whatever-{near}"
    tree = await own_broker.tree(service)
    nasty(tree)
    for folder in range(6):
        (tree / f"{folder}").mkdir()
        for at in range(40):
            (tree / f"{folder}" / f"{at:02}").write_bytes(os.urandom(2000 + at))
    await settled(tree)
    copies = [f"copy-{service}-{number}" for number in range(4)]
    await again(own_broker, repository, service, copies[0], parent="")
    await again(own_broker, repository, service, copies[1], parent=copies[0])
    first, second = (repository.repository.committed(copy).manifest for copy in copies[:2])
    assert first.parts == second.parts, "nothing changed"
    (tree / "0" / "00").chmod(0o600)
    (tree / "1" / "05").unlink()
    (tree / "1" / "a new one").write_bytes(b"new")
    (tree / "2" / "39").write_bytes(b"other")
    (tree / "3").rename(tree / "6")
    (tree / "4" / "link").symlink_to("00")
    os.link(tree / "4" / "00", tree / "4" / "hard link")
    (tree / "5").chmod(0o700)
    await settled(tree)
    assert await again(own_broker, repository, service, copies[2], parent=copies[1]) < 200_000
    # and back, on top of one that was taken on top of another one
    (tree / "4" / "hard link").unlink()
    (tree / "6").rename(tree / "3")
    await settled(tree)
    await again(own_broker, repository, service, copies[3], parent=copies[2])
    same(tree, await own_broker.tree(f"{service}-restored", restore=repository.open_read(copies[3])))
    for copy in copies:
        assert not repository.repository.verify(copy, progress=lambda _: None).findings


async def test_numbers_of_another_copy_are_not_taken_for_those_of_the_parent(
    own_broker: Volume, repository: Site
) -> None:
    tree = await own_broker.tree("numbers")
    for at in range(20):
        (tree / f"{at:02}").write_bytes(os.urandom(5000))
    await settled(tree)
    await again(own_broker, repository, "numbers", "copy-numbers-1", parent="")
    for at in range(3):
        (tree / f"{at:02}").unlink()
    await settled(tree)
    await again(own_broker, repository, "numbers", "copy-numbers-2", parent="copy-numbers-1")
    # the latest that was taken is not the one that this is taken on top of
    await again(own_broker, repository, "numbers", "copy-numbers-3", parent="copy-numbers-1")
    same(tree, await own_broker.tree("numbers-restored", restore=repository.open_read("copy-numbers-3")))


async def test_a_parent_that_is_gone_when_it_is_copied_is_no_parent(own_broker: Volume, repository: Site) -> None:
    tree = await own_broker.tree("orphan")
    for at in range(20):
        (tree / f"{at:02}").write_bytes(os.urandom(5000))
    await settled(tree)
    await again(own_broker, repository, "orphan", "copy-orphan-1", parent="")
    grant = repository.open_write("copy-orphan-2", parent="copy-orphan-1")
    await own_broker.stage("orphan", "copy-orphan-2")
    await own_broker.prepare("orphan", "copy-orphan-2")
    repository.repository.delete("copy-orphan-1")
    await own_broker.copy("orphan", "copy-orphan-2", grant)
    repository.repository.commit("copy-orphan-2")
    same(tree, await own_broker.tree("orphan-restored", restore=repository.open_read("copy-orphan-2")))


async def test_another_repository_gets_all_of_it(own_broker: Volume, repository: Site) -> None:
    tree = await own_broker.tree("elsewhere")
    nasty(tree)
    (tree / "many").mkdir()
    for at in range(700):
        (tree / "many" / f"{at}").write_bytes(os.urandom(10_000))
    await settled(tree)
    await again(own_broker, repository, "elsewhere", "copy-elsewhere-1", parent="")
    # as if it were another one: there is no copy before
    assert await again(own_broker, repository, "elsewhere", "copy-elsewhere-2", parent="") == 0
    grant = repository.open_read("copy-elsewhere-2")
    same(tree, await own_broker.tree("elsewhere-restored", restore=grant))


async def test_a_file_that_is_only_in_the_tree_and_changes_after_the_moment_is_noticed(
    own_broker: Volume, repository: Site
) -> None:
    tree = await own_broker.tree("late")
    (tree / "file").write_bytes(b"1" * 10_000)
    await settled(tree)
    await again(own_broker, repository, "late", "copy-late-1", parent="")
    await own_broker.stage("late", "copy-late-2")
    await own_broker.prepare("late", "copy-late-2")
    (tree / "file").write_bytes(b"2" * 10_000)
    request = own_broker.copy_request("late", "copy-late-2", repository.open_write("copy-late-2"))
    assert (await own_broker.fails("copy", request)).code == "moment_lost"
    await own_broker.discard("copy-late-2")
    await settled(tree)
    assert await again(own_broker, repository, "late", "copy-late-3", parent="copy-late-1") == 10_000
    restored = await own_broker.tree("late-restored", restore=repository.open_read("copy-late-3"))
    assert (restored / "file").read_bytes() == b"2" * 10_000


async def test_a_paranoid_broker_reads_all_of_it(paranoid: Volume, repository: Site) -> None:
    tree = await paranoid.tree("paranoid")
    (tree / "file").write_bytes(os.urandom(10_000))
    await settled(tree)
    assert await again(paranoid, repository, "paranoid", "copy-paranoid-1", parent="") == 10_000
    assert await again(paranoid, repository, "paranoid", "copy-paranoid-2", parent="copy-paranoid-1") == 10_000
    same(tree, await paranoid.tree("paranoid-restored", restore=repository.open_read("copy-paranoid-2")))
