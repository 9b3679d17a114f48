"""The digest of an artifact: what changes it and what does not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from schemas.artifact_digest import tree_digest, tree_entries


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "pkg").mkdir(parents=True)
    (root / "pkg" / "a.py").write_text("a")
    (root / "run.sh").write_text("#!/bin/sh")
    (root / "link").symlink_to("pkg/a.py")
    return root


def test_it_is_the_documented_sha256(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"xyz")
    (tmp_path / "b").chmod(0o644)
    wanted = hashlib.sha256(b"F" + (1).to_bytes(8, "big") + b"b" + (3).to_bytes(8, "big") + b"xyz").hexdigest()
    assert tree_digest(tmp_path) == wanted


def test_what_does_not_count(tree: Path) -> None:
    before = tree_digest(tree)
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__" / "x").write_text("x")
    (tree / ".git").mkdir()
    (tree / ".git" / "HEAD").write_text("x")
    (tree / "pkg" / "a.pyc").write_text("x")
    (tree / "empty").mkdir()
    os.utime(tree / "run.sh", (0, 0))
    (tree / "run.sh").chmod(0o600)
    assert tree_digest(tree) == before


def test_what_counts(tree: Path) -> None:
    seen = {tree_digest(tree)}
    (tree / "pkg" / "a.py").write_text("b")
    seen.add(tree_digest(tree))
    (tree / "run.sh").chmod(0o755)
    seen.add(tree_digest(tree))
    (tree / "run.sh").rename(tree / "go.sh")
    seen.add(tree_digest(tree))
    (tree / "link").unlink()
    (tree / "link").symlink_to("go.sh")
    seen.add(tree_digest(tree))
    (tree / "new").touch()
    seen.add(tree_digest(tree))
    assert len(seen) == 6


def test_the_place_does_not_count(tree: Path, tmp_path: Path) -> None:
    before = tree_digest(tree)
    (tmp_path / "other").symlink_to(tree)
    assert tree_digest(tmp_path / "other") == before
    assert tree_digest(tree.rename(tmp_path / "moved")) == before


def test_content_can_not_pose_as_a_name(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (one / "a").write_text("bc")
    (two / "ab").write_text("c")
    assert tree_digest(one) != tree_digest(two)


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside"])
def test_links_that_leave_the_tree_are_refused(tree: Path, target: str) -> None:
    (tree / "out").symlink_to(target)
    with pytest.raises(ValueError, match="out is a link to"):
        tree_entries(tree)


def test_pipes_are_refused(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(ValueError, match="pipe is neither"):
        tree_digest(tree)


def test_a_wheel_is_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"wheel")
    assert tree_digest(tmp_path / "x.whl") == hashlib.sha256(b"wheel").hexdigest()
