"""Copies that are locked: what refuses, who may take them back, and what a store that locks by itself is told."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from brokers.filesystem.broker import FilesystemBroker
from brokers.filesystem.settings import FilesystemSettings
from brokers.repository.errors import CopyNotFound
from brokers.repository.format1.packs import pack_name
from brokers.repository.format1.repository import Options, Repository
from brokers.repository.manifest import CopyInfo
from brokers.repository.objects import ObjectRetained
from brokers.repository.retention import CopyLocked, RetainingStore, parse_period
from schemas.problems import Actor, CalqueError
from schemas.values import ImageContent, ImageInstance, ImagePart, InstanceConfiguration, Template
from tests.unit.repository.copies import listed, open_repository, read_part, write_copy, write_entries, write_part
from tests.unit.repository.memory_store import MemoryObjects, MemoryStore

RANDOM = random.Random(5)
SMALL = [RANDOM.randbytes(40_000) for _ in range(10)]
DAY = 86400.0
WEEK = 7 * DAY


class LockingStore(MemoryStore):
    """A store that refuses by itself, as a bucket with Object Lock."""

    retains = True

    def __init__(self, there: MemoryObjects) -> None:
        super().__init__(there)
        self.kept: dict[str, str] = {}

    def retain(self, names: Iterable[str], *, until: str) -> None:
        self.kept.update({name: max(until, self.kept.get(name, "")) for name in names})

    def delete(self, name: str) -> None:
        if name in self.kept and name in self.there.objects:
            raise ObjectRetained(name)
        super().delete(name)


@pytest.fixture
def there() -> MemoryObjects:
    found = MemoryObjects()
    found.clock = 1_790_000_000.0
    return found


@pytest.fixture
def repository(tmp_path: Path, there: MemoryObjects) -> Iterator[Repository]:
    with opened(tmp_path, MemoryStore(there)) as found:
        yield found


def opened(directory: Path, store: MemoryStore, *, state: str = "state", seconds: float = WEEK) -> Repository:
    options = Options(recipient_key=directory / "recipient.key", retention_seconds=seconds)
    return Repository.open(store, state=directory / state, options=options)


def saved(repository: Repository, copy: str, data: bytes, *, operation: str = "save-1") -> None:
    write_part(repository.open_write(copy, CopyInfo()), "dump", data)
    repository.commit(copy, operation=operation)


def image_of(*copies: str, image: str = "m1") -> ImageContent:
    parts = tuple(
        ImagePart(
            data_service=copy,
            type="database",
            broker="postgres",
            plan="small",
            copy=copy,
            copy_format="test",
            level="crash",
        )
        for copy in copies
    )
    configuration = InstanceConfiguration(template=Template(name="shop", version="1"))
    one = ImageInstance(instance="i1", instance_name="shop", configuration=configuration, parts=parts)
    return ImageContent(image=image, site="north", level="crash", instances=(one,))


def test_a_locked_copy_is_not_deleted_before_its_time(repository: Repository, there: MemoryObjects) -> None:
    saved(repository, "c1", SMALL[0])
    until = repository.committed("c1").keep_until
    assert until == "2026-09-28T14:13:20.000Z"
    for moment in (0.0, WEEK - 1):
        there.clock += moment
        with pytest.raises(CopyLocked) as refused:
            repository.delete("c1", operation="forget-1")
        problem = refused.value.problem
        assert (problem.code, problem.actor) == ("locked", Actor.CALLER)
        assert "copy c1" in problem.message
        assert until in problem.message
        assert problem.remedy
        assert repository.collect(compact=True).freed_bytes == 0
        assert read_part(repository, "c1", "dump") == SMALL[0]
        there.clock -= moment
    there.clock += WEEK
    assert repository.delete("c1")
    assert repository.collect().freed_bytes > 0


def test_the_lock_is_that_of_the_moment_of_the_commit(tmp_path: Path, there: MemoryObjects) -> None:
    """A retention that is set later locks nothing that is there, and one that is taken away unlocks nothing."""
    with opened(tmp_path, MemoryStore(there), seconds=0) as free:
        saved(free, "before", SMALL[0])
    with opened(tmp_path, MemoryStore(there)) as strict:
        saved(strict, "locked", SMALL[1])
        assert strict.delete("before")
    with opened(tmp_path, MemoryStore(there), seconds=0) as free:
        with pytest.raises(CopyLocked):
            free.delete("locked")
        assert free.committed("locked").keep_until
        assert free.commit("locked").keep_until, "committing again is no change"


def test_who_committed_a_copy_may_take_it_back_and_nobody_else(repository: Repository, there: MemoryObjects) -> None:
    saved(repository, "c1", SMALL[0], operation="save-1")
    saved(repository, "c2", SMALL[1], operation="")
    repository.record_image(image_of("c1"))
    for operation in ("", "save-2"):
        with pytest.raises(CopyLocked):
            repository.forget_image("m1", operation=operation)
    for copy, operation in (("c1", ""), ("c1", "save-2"), ("c2", "")):
        with pytest.raises(CopyLocked):
            repository.delete(copy, operation=operation)
    repository.forget_image("m1", operation="save-1")
    assert repository.delete("c1", operation="save-1")
    assert listed(repository) == ["c2"]


def test_the_manifest_of_a_locked_image_stays(repository: Repository, there: MemoryObjects) -> None:
    saved(repository, "c1", SMALL[0])
    saved(repository, "c2", SMALL[1])
    repository.record_image(image_of("c1", "c2"))
    with pytest.raises(CopyLocked):
        repository.record_image(image_of("c2"))
    repository.record_image(image_of("c1", "c2"))
    with pytest.raises(CopyLocked):
        repository.forget_image("m1")
    assert [found.content for found in repository.images()] == [image_of("c1", "c2")]
    there.clock += WEEK
    repository.forget_image("m1")
    assert list(repository.images()) == []


def test_a_lock_goes_along_when_a_copy_gets_other_packs(repository: Repository, there: MemoryObjects) -> None:
    opened_copy = repository.open_write("big", CopyInfo())
    write_entries(opened_copy, "entries", [(str(at), {}, data) for at, data in enumerate(SMALL)])
    repository.commit("big", operation="own")
    saved(repository, "c1", SMALL[0])
    until = repository.committed("c1").keep_until
    (before,) = (name for name in there.objects if name.startswith("copies/c1/"))
    repository.delete("big", operation="own")
    assert repository.collect(compact=True).freed_bytes > 0
    assert before not in there.objects
    assert repository.committed("c1").keep_until == until
    with pytest.raises(CopyLocked):
        repository.delete("c1")


def test_a_damaged_commit_object_locks_nothing(tmp_path: Path, there: MemoryObjects) -> None:
    """There is nothing left to keep, and collecting must go on."""
    with opened(tmp_path, MemoryStore(there)) as repository:
        saved(repository, "c1", SMALL[0])
    (name,) = (name for name in there.objects if name.startswith("copies/c1/"))
    content, modified = there.objects[name]
    there.objects[name] = (content[:-1] + bytes([content[-1] ^ 1]), modified)
    with opened(tmp_path, MemoryStore(there), state="fresh") as fresh:
        assert fresh.delete("c1")
        with pytest.raises(CopyNotFound):
            fresh.committed("c1")


def test_stats_say_how_much_is_locked_and_until_when(tmp_path: Path, there: MemoryObjects) -> None:
    with opened(tmp_path, MemoryStore(there), seconds=0) as free:
        write_copy(free, "free", dump=SMALL[0])
        stats = free.stats()
        assert (stats.locked_copies, stats.locked_bytes, stats.locked_until) == (0, 0, "")
    with opened(tmp_path, MemoryStore(there)) as repository:
        saved(repository, "c1", SMALL[1])
        there.clock += DAY
        saved(repository, "c2", SMALL[1])
        packs = {pack for each in repository.commits.of("c1") if each.commit for pack in each.commit.pack_ids}
        stats = repository.stats()
        assert stats.locked_copies == 2
        assert stats.locked_bytes == sum(len(there.objects[pack_name(pack)][0]) for pack in packs)
        assert stats.locked_until == repository.committed("c2").keep_until
        there.clock += WEEK - DAY / 2
        assert repository.stats().locked_copies == 1


def test_a_clock_that_is_set_back_keeps_longer_and_one_that_is_set_ahead_less_long(
    repository: Repository, there: MemoryObjects
) -> None:
    saved(repository, "c1", SMALL[0])
    there.clock -= 30 * DAY
    with pytest.raises(CopyLocked):
        repository.delete("c1")
    there.clock += 60 * DAY
    assert repository.delete("c1")


def test_a_store_that_locks_by_itself_is_told_when_the_image_is_whole(tmp_path: Path, there: MemoryObjects) -> None:
    store = LockingStore(there)
    assert isinstance(store, RetainingStore)
    with opened(tmp_path, store) as repository:
        saved(repository, "c1", SMALL[0])
        assert store.kept == {}, "what fails before its end can be taken back"
        repository.record_image(image_of("c1"))
        until = repository.committed("c1").keep_until
        kept = {name for name in there.objects if name.startswith(("packs/", "copies/", "images/"))}
        assert store.kept == dict.fromkeys(kept, until)
        with pytest.raises(CopyLocked):
            repository.delete("c1", operation="save-1")
        with pytest.raises(CopyLocked):
            repository.forget_image("m1", operation="save-1")
        assert repository.collect(compact=True).blocked is None
        assert read_part(repository, "c1", "dump") == SMALL[0]


def test_what_the_store_keeps_is_not_moved_and_collecting_passes_it_over(tmp_path: Path, there: MemoryObjects) -> None:
    store = LockingStore(there)
    with opened(tmp_path, store) as repository:
        opened_copy = repository.open_write("big", CopyInfo())
        write_entries(opened_copy, "entries", [(str(at), {}, data) for at, data in enumerate(SMALL)])
        repository.commit("big", operation="own")
        saved(repository, "c1", SMALL[0])
        repository.record_image(image_of("c1"))
        repository.delete("big", operation="own")
        before = dict(there.objects)
        assert repository.collect(compact=True).freed_bytes == 0
        assert {name for name in there.objects if name.startswith("packs/")} == {
            name for name in before if name.startswith("packs/")
        }
        saved(repository, "c2", SMALL[1], operation="own")
        (only,) = {pack for each in repository.commits.of("c2") if each.commit for pack in each.commit.pack_ids}
        store.retain([pack_name(only)], until="2999")
        repository.delete("c2", operation="own")
        assert repository.collect().blocked is None
        assert pack_name(only) in there.objects


def test_format_0_can_not_lock(tmp_path: Path) -> None:
    with open_repository(tmp_path):
        pass
    settings = FilesystemSettings.model_construct(
        repository_dir=tmp_path / "repository", state_dir=tmp_path, retention=WEEK
    )
    broker = FilesystemBroker.__new__(FilesystemBroker)
    broker._settings = settings
    with pytest.raises(CalqueError) as refused:
        broker.open_repository()
    assert refused.value.problem.field == "retention"


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", WEEK), ("12h", 43200), ("30m", 1800), ("90s", 90), ("2w", 2 * WEEK), ("off", 0)]
)
def test_periods(text: str, seconds: float) -> None:
    assert parse_period(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1y", "1.5d", "40000w"])
def test_what_is_no_period(text: str) -> None:
    with pytest.raises(ValueError, match=r"period|longer"):
        parse_period(text)
