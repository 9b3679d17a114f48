"""Artifacts: from the directory or wheel of a template to the private tree that a service runs.

A verified artifact is kept by its digest, so that it can be deployed again when its source has changed or is gone.
A wheel is unpacked (PyPA binary distribution format: the root and ``*.data/purelib`` and ``*.data/platlib`` make up
the import path) and put on PYTHONPATH; its scripts are not installed and its dependencies are not resolved: the
command says ``python -m <module>``, and what it imports beyond itself must be there for the broker's interpreter.
"""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import NamedTuple

from brokers.sdk.errors import permanent_error
from schemas.artifact_digest import tree_digest, tree_entries
from schemas.problems import CalqueError, invalid, not_found
from schemas.values import Artifact

_FIELD = "spec.artifact"


class Source(NamedTuple):
    """Where an artifact comes from."""

    path: Path
    field: str
    wheel: bool


class ArtifactStore:
    """The verified artifacts in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def stage(self, artifact: Artifact, target: Path) -> str:
        """Put what a service runs at ``target``, which must not exist; the artifact's digest.

        Raises ``invalid`` for an artifact that this platform can't run, ``not_found`` when its source is gone and
        ``artifact_changed`` when the source is not what the template was applied with. Blocks.
        """
        source = source_of(artifact)
        kept = self._directory / artifact.digest if artifact.digest else None
        if kept is None or not kept.exists() or tree_digest(kept) != artifact.digest:
            kept = self._take(source, artifact.digest)
        if source.wheel:
            _unpack(kept, target)
        else:
            _copy(kept, target)
        return kept.name

    def _take(self, source: Source, expected: str | None) -> Path:
        present = source.path.is_file() if source.wheel else source.path.is_dir()
        if not present:
            kind = "wheel" if source.wheel else "directory"
            raise CalqueError(
                not_found(source.field, f"there is no {kind} {source.path}", "apply the template again with its place")
            )
        working = Path(mkdtemp(dir=self._directory, prefix=".new-"))
        try:
            copy = working / "artifact"
            try:
                if source.wheel:
                    shutil.copyfile(source.path, copy)
                else:
                    _copy(source.path, copy)
                digest = tree_digest(copy)
            except ValueError as error:
                raise CalqueError(invalid(source.field, str(error), "leave it out of the artifact")) from None
            if expected is not None and digest != expected:
                raise permanent_error(
                    "artifact_changed",
                    f"{source.path} changed since the template was applied (digest {digest[:12]}, not {expected[:12]})",
                    field=source.field,
                    remedy="apply a new version of the template",
                )
            kept = self._directory / digest
            if kept.exists() and tree_digest(kept) != digest:  # damaged since
                remove_tree(kept)
            if not kept.exists():
                copy.rename(kept)
            return kept
        finally:
            remove_tree(working)


def source_of(artifact: Artifact) -> Source:
    """Where ``artifact`` comes from; raises ``invalid`` for what this platform can't run."""
    if artifact.type != "process":
        raise CalqueError(invalid(f"{_FIELD}.type", f"{artifact.type!r} can't run here", "use type: process"))
    if not artifact.command or not artifact.command[0]:
        raise CalqueError(invalid(f"{_FIELD}.command", "there is no command", "say what to run: [python, -m, app]"))
    if (artifact.directory is None) == (artifact.wheel is None):
        raise CalqueError(invalid(_FIELD, "needs either a directory or a wheel"))
    field = "directory" if artifact.directory is not None else "wheel"
    path = Path(artifact.directory or artifact.wheel or "")
    if not path.is_absolute():
        raise CalqueError(invalid(f"{_FIELD}.{field}", f"{str(path)!r} is not an absolute path"))
    return Source(path, f"{_FIELD}.{field}", field == "wheel")


def remove_tree(path: Path) -> None:
    """Remove ``path`` and all below it, also what a service made unwritable. Nothing there is done."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        _make_writable(path)
        shutil.rmtree(path)


def _make_writable(directory: Path) -> None:
    directory.chmod(0o700)
    with os.scandir(directory) as found:
        for child in found:
            if child.is_dir(follow_symlinks=False):
                _make_writable(Path(child.path))


def _copy(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for entry in tree_entries(source):
        copy = target / entry.relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "L":
            copy.symlink_to(entry.path.readlink())
        else:
            shutil.copyfile(entry.path, copy)
            copy.chmod(0o755 if entry.kind == "X" else 0o644)


def _unpack(wheel: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                place = _place(member.filename)
                if member.is_dir() or place is None:
                    continue
                file = target / place
                file.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as content, file.open("wb") as output:
                    shutil.copyfileobj(content, output)
                if member.external_attr >> 16 & stat.S_IXUSR:
                    file.chmod(0o755)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise CalqueError(invalid(f"{_FIELD}.wheel", f"is no wheel: {error}")) from None


def _place(name: str) -> PurePosixPath | None:
    """Where a file of a wheel belongs on the import path; ``None``: nowhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise CalqueError(invalid(f"{_FIELD}.wheel", f"the wheel holds {name!r}, outside of itself"))
    if path.parts and path.parts[0].endswith(".data"):
        if len(path.parts) > 2 and path.parts[1] in ("purelib", "platlib"):
            return PurePosixPath(*path.parts[2:])
        return None
    return path
