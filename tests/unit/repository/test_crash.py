"""A crash at any file operation leaves a whole copy or none, and the copy can be written on afterwards."""

import random
from pathlib import Path

import pytest

from brokers.filesystem.format0.files import Files
from brokers.filesystem.format0.maintenance import collect, stats, verify
from brokers.filesystem.format0.repository import Repository
from brokers.repository.errors import CopyNotFound, IncompleteCopy
from brokers.repository.manifest import CopyInfo
from brokers.sdk.digests import Buffer
from tests.unit.repository.copies import (
    listed,
    open_repository,
    read_entries,
    read_part,
    write_entries,
    write_part,
)

RANDOM = random.Random(1)
DUMP = RANDOM.randbytes(1_500_000)
ENTRIES = [("a", {"x": "1"}, b"one"), ("b", {}, b""), ("c", {}, b"three" * 1000)]


class Crashed(Exception):
    """Stands for the end of the process."""


class CrashingFiles(Files):
    """Fails for good from the n-th step on; a write that fails leaves half of its bytes, as a crash may."""

    def __init__(self, fail_at: int, *, torn: bool) -> None:
        super().__init__()
        self.steps: list[str] = []
        self._fail_at = fail_at
        self._torn = torn

    def step(self, name: str, path: Path) -> None:
        self.steps.append(f"{name} {path.name}")
        if len(self.steps) > self._fail_at:
            raise Crashed(self.steps[-1])

    def write_new(self, path: Path, data: Buffer, *, mode: int = 0o644) -> None:
        try:
            super().write_new(path, data, mode=mode)
        except Crashed:
            if self._torn and len(self.steps) == self._fail_at + 1:
                path.write_bytes(bytes(data[: len(data) // 2]))
            raise


def save(repository: Repository) -> None:
    opened = repository.open_write("c1", CopyInfo())
    sealed = opened.sealed()
    if "dump" not in sealed:
        write_part(opened, "dump", DUMP)
    if "entries" not in sealed:
        write_entries(opened, "entries", ENTRIES)
    repository.commit("c1")


def count_steps(directory: Path) -> int:
    files = CrashingFiles(10**9, torn=False)
    with open_repository(directory, files=files) as repository:
        save(repository)
    return len(files.steps)


@pytest.mark.parametrize("torn", [False, True])
def test_a_crash_at_every_step_of_a_save(tmp_path: Path, torn: bool) -> None:
    total = count_steps(tmp_path / "dry")
    assert total > 40
    outcomes = {"none": 0, "whole": 0}
    for n in range(total):
        directory = tmp_path / f"{n}"
        crashing = CrashingFiles(n, torn=torn)
        repository: Repository | None = None
        try:
            repository = open_repository(directory, files=crashing)
            save(repository)
        except Crashed:
            outcomes["crashed"] = outcomes.get("crashed", 0) + 1
        finally:
            if repository is not None:
                repository.close()
        with open_repository(directory) as again:
            if listed(again):
                outcomes["whole"] += 1
                assert verify(again, "c1").sound, crashing.steps[-1]
            else:
                outcomes["none"] += 1
                with pytest.raises(CopyNotFound):
                    again.committed("c1")
                # The collector does not harm what is open.
                collect(again)
                save(again)
            assert again.commit("c1").manifest.copy == "c1"
            assert read_part(again, "c1", "dump") == DUMP
            assert read_entries(again, "c1", "entries") == ENTRIES
            assert verify(again, "c1").sound
            assert stats(again).open_copies == 0
    assert outcomes["crashed"] == total
    assert outcomes["none"] > 20
    assert outcomes["whole"] > 0


def test_a_crash_at_every_step_of_an_abort(tmp_path: Path) -> None:
    for n in range(4):
        directory = tmp_path / f"{n}"
        with open_repository(directory) as repository:
            write_part(repository.open_write("c1", CopyInfo()), "dump", DUMP)
            files = CrashingFiles(n, torn=False)
            repository.files = files
            try:
                repository.abort("c1")
            except Crashed:
                assert n < 2
        with open_repository(directory) as again:
            again.abort("c1")
            assert listed(again) == []
            assert not list((directory / "repository" / "staging").iterdir())


def test_power_loss_that_tore_a_staged_chunk_is_noticed(tmp_path: Path) -> None:
    with open_repository(tmp_path) as repository:
        opened = repository.open_write("c1", CopyInfo())
        part = write_part(opened, "dump", DUMP)
        assert part.chunks is not None
        # The name was there already, its bytes were not: what a power failure can do to an unsynced file.
        opened.staged.path(part.chunks[0].digest).write_bytes(b"")
    with open_repository(tmp_path) as again:
        with pytest.raises(IncompleteCopy, match="dump"):
            again.commit("c1")
        assert again.writing("c1").sealed() == {}
        save(again)
        assert read_part(again, "c1", "dump") == DUMP
