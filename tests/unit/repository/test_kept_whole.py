"""A part that is kept whole needs what its parent needs: nothing else is looked at, and what is gone is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from brokers.filesystem.objects import DirectoryStore
from brokers.repository.errors import KeptGone
from brokers.repository.format1.packs import pack_name
from brokers.repository.format1.repository import Repository
from brokers.repository.kept import keep_whole
from brokers.repository.manifest import CopyInfo
from schemas.problems import CalqueError
from tests.unit.repository.copies import write_entries

FILES = [(f"{at:03}", {"type": "file"}, bytes([at]) * 5000) for at in range(100)]


def open_repository(directory: Path) -> Repository:
    return Repository.open(DirectoryStore(directory / "repository"), state=directory / "state")


def first_copy(repository: Repository) -> None:
    write_entries(repository.open_write("c1", CopyInfo()), "tree", FILES)
    repository.commit("c1")


def test_it_needs_the_same_packs(tmp_path: Path) -> None:
    with open_repository(tmp_path) as repository:
        first_copy(repository)
        opened = repository.open_write("c2", CopyInfo())
        keep_whole(repository, opened, "c1", "tree")
        first, second = repository.commits.of("c1")[0].commit, None
        repository.commit("c2")
        second = repository.commits.of("c2")[0].commit
        assert first is not None
        assert second is not None
        assert (first.packs, first.parts) == (second.packs, second.parts)
        one, two = (repository.committed(copy).manifest for copy in ("c1", "c2"))
        assert (one.stored_bytes, one.merkle_root) == (two.stored_bytes, two.merkle_root)
        repository.delete("c1")
        repository.collect()
        assert repository.verify("c2", progress=lambda _: None).sound


def test_another_part_beside_it_is_looked_at(tmp_path: Path) -> None:
    with open_repository(tmp_path) as repository:
        first_copy(repository)
        opened = repository.open_write("c2", CopyInfo())
        keep_whole(repository, opened, "c1", "tree")
        write_entries(opened, "more", [("new", {}, b"n" * 10_000)])
        repository.commit("c2")
        repository.delete("c1")
        repository.collect()
        assert repository.verify("c2", progress=lambda _: None).sound


def test_a_restart_before_the_commit_changes_nothing(tmp_path: Path) -> None:
    with open_repository(tmp_path) as repository:
        first_copy(repository)
        keep_whole(repository, repository.open_write("c2", CopyInfo()), "c1", "tree")
    with open_repository(tmp_path) as repository:
        repository.delete("c1")
        repository.collect()
        repository.commit("c2")
        assert repository.verify("c2", progress=lambda _: None).sound


@pytest.mark.parametrize("late", [False, True])
def test_a_pack_that_is_gone_is_noticed(tmp_path: Path, late: bool) -> None:
    with open_repository(tmp_path) as repository:
        first_copy(repository)
        commit = repository.commits.of("c1")[0].commit
        assert commit is not None
        opened = repository.open_write("c2", CopyInfo())
        if late:
            keep_whole(repository, opened, "c1", "tree")
        for pack in commit.pack_ids:
            repository.objects.delete(pack_name(pack))
        if not late:
            with pytest.raises(KeptGone):
                keep_whole(repository, opened, "c1", "tree")
            return
    with open_repository(tmp_path) as repository, pytest.raises(CalqueError):
        repository.commit("c2")
