"""Format 1: a crash at any call of the store leaves a whole copy or none, and the copy can be written on afterwards;
a collection at any moment of a save, and a save at any moment of a collection, take nothing from each other."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from brokers.repository.errors import CopyNotFound
from brokers.repository.format1.packs import PACKS
from brokers.repository.format1.repository import Options, Repository
from brokers.repository.manifest import CopyInfo
from tests.unit.repository.copies import listed, read_entries, read_part, write_copy, write_entries, write_part
from tests.unit.repository.memory_store import Hook, MemoryObjects, MemoryStore

RANDOM = random.Random(1)
DUMP = RANDOM.randbytes(300_000)
OLD = RANDOM.randbytes(90_000)
ENTRIES = [("a", {"x": "1"}, b"one"), ("b", {}, b""), ("c", {}, b"three" * 1000)]


class Crashed(Exception):
    """Stands for the end of the process."""


class Countdown:
    """Ends the process for good at the n-th call that changes or reads the store."""

    def __init__(self, calls: int) -> None:
        self.left = calls
        self.seen = 0

    def __call__(self, call: str, name: str) -> None:
        self.seen += 1
        self.left -= 1
        if self.left < 0:
            raise Crashed(f"{call} {name}")


def opened(directory: Path, there: MemoryObjects, *, hook: Hook | None = None, state: str = "state") -> Repository:
    options = Options(recipient_key=directory / "recipient.key", pack_bytes=150_000)
    return Repository.open(MemoryStore(there, hook=hook), state=directory / state, options=options)


def save(repository: Repository) -> None:
    copy = repository.open_write("c1", CopyInfo())
    sealed = copy.sealed()
    if "dump" not in sealed:
        write_part(copy, "dump", DUMP)
    if "entries" not in sealed:
        write_entries(copy, "entries", ENTRIES)
    if "old" not in sealed:
        write_part(copy, "old", OLD)
    repository.commit("c1")


def whole(repository: Repository) -> None:
    assert read_part(repository, "c1", "dump") == DUMP
    assert read_part(repository, "c1", "old") == OLD
    assert read_entries(repository, "c1", "entries") == ENTRIES
    assert repository.verify("c1", progress=lambda _done: None).sound


def no_rest(there: MemoryObjects) -> None:
    assert not [name for name in there.objects if name.startswith(("holds/", "doomed/"))]


def test_a_crash_at_every_call_of_a_save(tmp_path: Path) -> None:
    outcomes = {"none": 0, "whole": 0}
    n = 0
    while True:
        directory, there = tmp_path / str(n), MemoryObjects()
        countdown = Countdown(n)
        repository: Repository | None = None
        crashed = False
        try:
            repository = opened(directory, there, hook=countdown)
            save(repository)
        except Crashed:
            crashed = True
        finally:
            if repository is not None:
                repository.close()
        with opened(directory, there) as again:
            if listed(again):
                outcomes["whole"] += 1
                # Nothing of the open copy is left, also if nobody commits again.
                assert again.open_copies() == []
                no_rest(there)
                whole(again)
            else:
                outcomes["none"] += 1
                with pytest.raises(CopyNotFound):
                    again.committed("c1")
                # The collector does not harm what is open.
                again.collect()
                save(again)
            assert again.commit("c1").manifest.copy == "c1"
            whole(again)
            again.collect()
            no_rest(there)
            whole(again)
            assert again.stats().open_copies == 0
        if not crashed:
            break
        n += 1
    assert outcomes["none"] > 20
    assert outcomes["whole"] > 1


def test_what_was_stored_before_a_crash_is_not_stored_again(tmp_path: Path) -> None:
    there = MemoryObjects()
    repository = opened(tmp_path, there)
    copy = repository.open_write("c1", CopyInfo())
    write_part(copy, "dump", DUMP)
    before = {name for name in there.objects if name.startswith(PACKS)}
    repository.close()
    with opened(tmp_path, there) as again:
        write_part(again.writing("c1"), "dump", DUMP)
        again.commit("c1")
        assert {name for name in there.objects if name.startswith(PACKS)} == before


def interrupted(by: Callable[[], None], *, at: int) -> tuple[Hook, Countdown]:
    """A hook that does something else once, in the middle of the n-th call."""
    count = Countdown(10**9)

    def hook(call: str, name: str) -> None:
        count(call, name)
        if count.seen == at:
            by()

    return hook, count


def prepared(directory: Path) -> MemoryObjects:
    """A repository where a deleted copy left packs that the next save would share."""
    there = MemoryObjects()
    with opened(directory, there, state="first") as first:
        write_copy(first, "old", dump=OLD, other=DUMP[:100_000])
        first.delete("old")
    return there


def test_a_collection_at_every_call_of_a_save(tmp_path: Path) -> None:
    at = 1
    while True:
        directory = tmp_path / str(at)
        there = prepared(directory)
        with opened(directory, there, state="collector") as collector:
            hook, count = interrupted(lambda: assert_collects(collector), at=at)
            with opened(directory, there, hook=hook) as writer:
                save(writer)
            whole(collector)
            assert_collects(collector)
            no_rest(there)
            whole(collector)
        if count.seen < at:
            break
        at += 1
    assert at > 30


def test_a_save_at_every_call_of_a_collection(tmp_path: Path) -> None:
    at = 1
    while True:
        directory = tmp_path / str(at)
        there = prepared(directory)
        with opened(directory, there) as writer:
            hook, count = interrupted(lambda: save(writer), at=at)
            with opened(directory, there, hook=hook, state="collector") as collector:
                assert_collects(collector)
                if count.seen >= at:
                    whole(writer)
                    assert_collects(collector)
                    whole(writer)
        if count.seen < at:
            break
        at += 1
    assert at > 15


def assert_collects(repository: Repository) -> None:
    assert repository.collect().blocked is None


def test_a_crash_while_the_record_of_an_open_copy_is_removed_leaves_nothing_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = MemoryObjects()
    repository = opened(tmp_path, there)

    def crashes(*_: object, **__: object) -> None:
        raise Crashed("rmtree")

    copy = repository.open_write("c1", CopyInfo())
    write_part(copy, "dump", DUMP)
    with monkeypatch.context() as patched:
        patched.setattr("brokers.repository.format1.opencopy.shutil.rmtree", crashes)
        with pytest.raises(Crashed):
            repository.commit("c1")
    assert list((tmp_path / "state" / "open").iterdir())
    repository.close()
    again = opened(tmp_path, there)
    assert not list((tmp_path / "state" / "open").iterdir())
    assert read_part(again, "c1", "dump") == DUMP
    again.close()
