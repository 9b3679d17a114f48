"""Staging artifacts: verified, kept, and never outside of where they belong."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from brokers.process.artifacts import ArtifactStore, remove_tree
from schemas.artifact_digest import tree_digest
from schemas.problems import CalqueError
from schemas.values import Artifact

COMMAND = ("python", "-m", "app")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    (directory / "sub").mkdir(parents=True)
    (directory / "sub" / "app.py").write_text("x")
    (directory / "run.sh").write_text("x")
    (directory / "run.sh").chmod(0o755)
    (directory / "link").symlink_to("sub/app.py")
    return directory


def test_a_tree_is_staged_as_it_is(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    digest = store.stage(Artifact(directory=str(source), command=COMMAND), tmp_path / "out")
    assert digest == tree_digest(source) == tree_digest(tmp_path / "out")


def test_what_a_service_does_to_its_artifact_does_not_reach_the_kept_one(
    store: ArtifactStore, source: Path, tmp_path: Path
) -> None:
    artifact = Artifact(directory=str(source), command=COMMAND, digest=tree_digest(source))
    store.stage(artifact, tmp_path / "one")
    (tmp_path / "one" / "sub" / "app.py").write_text("changed by the service")
    store.stage(artifact, tmp_path / "two")
    assert tree_digest(tmp_path / "two") == artifact.digest


def test_a_damaged_kept_artifact_is_taken_anew(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    artifact = Artifact(directory=str(source), command=COMMAND, digest=tree_digest(source))
    store.stage(artifact, tmp_path / "one")
    assert artifact.digest is not None
    (tmp_path / "store" / artifact.digest / "run.sh").write_text("rot")
    store.stage(artifact, tmp_path / "two")
    assert tree_digest(tmp_path / "two") == artifact.digest


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "a/../../evil.py"])
def test_a_wheel_can_not_write_outside(store: ArtifactStore, tmp_path: Path, name: str) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(name, "evil")
    with pytest.raises(CalqueError) as caught:
        store.stage(Artifact(wheel=str(wheel), command=COMMAND), tmp_path / "out")
    assert caught.value.problem.field == "spec.artifact.wheel"


def test_what_is_no_wheel_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_text("no zip")
    with pytest.raises(CalqueError) as caught:
        store.stage(Artifact(wheel=str(tmp_path / "x.whl"), command=COMMAND), tmp_path / "out")
    assert caught.value.problem.code == "invalid"


def test_unwritable_trees_are_removed(tmp_path: Path) -> None:
    (tmp_path / "t" / "a").mkdir(parents=True)
    (tmp_path / "t" / "a" / "f").touch()
    (tmp_path / "t" / "a").chmod(0)
    remove_tree(tmp_path / "t")
    remove_tree(tmp_path / "t")
    assert not (tmp_path / "t").exists()
