"""The digest of an artifact on disk: equal for equal content, wherever it lies and whenever it was written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

IGNORED_DIRECTORIES = frozenset({"__pycache__", ".git"})
IGNORED_SUFFIX = ".pyc"
_BLOCK = 1024 * 1024


def tree_digest(path: Path) -> str:
    """SHA-256 (hex) of a directory tree, or of a single file (a wheel).

    Of each file, sorted by relative POSIX path: the path, whether its owner may execute it, and the SHA-256 of
    its content; of a link its target. ``__pycache__``, ``*.pyc`` and ``.git`` don't count. Raises ``OSError``.
    """
    total = hashlib.sha256()
    if path.is_file():
        total.update(_entry(path, name=path.name))
        return total.hexdigest()
    for name, file in sorted((file.relative_to(path).as_posix(), file) for file in _files(path)):
        total.update(_entry(file, name=name))
    return total.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in IGNORED_DIRECTORIES:
                    yield from _files(Path(entry.path))
            elif not entry.name.endswith(IGNORED_SUFFIX) and (entry.is_symlink() or entry.is_file()):
                yield Path(entry.path)


def _entry(file: Path, *, name: str) -> bytes:
    if file.is_symlink():
        kind, content = "link", hashlib.sha256(os.fsencode(file.readlink()))
    else:
        kind = "executable" if file.stat().st_mode & 0o100 else "file"
        content = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                content.update(block)
    # NUL can't stand in a path, so no two different trees make the same text.
    return b"\0".join((os.fsencode(name), kind.encode(), content.hexdigest().encode())) + b"\0"
