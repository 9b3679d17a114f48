"""The digest of a process artifact: what an app service's content is, wherever its files lie.

SHA-256 over the sorted entries of a tree. Each entry is a kind (``F`` file, ``X`` executable file, ``L`` symbolic
link), the length and the bytes of its relative path, and the length and the bytes of its content (a link's: its
target). Lengths are eight bytes, big endian. Owners, times and other mode bits are not part of it, nor are empty
directories, ``__pycache__``, ``.git`` and ``*.pyc``. The digest of a single file (a wheel) is the SHA-256 of its bytes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

IGNORED_DIRECTORIES = frozenset({"__pycache__", ".git"})
IGNORED_SUFFIXES = (".pyc",)
_BLOCK_BYTES = 1 << 20


class TreeEntry(NamedTuple):
    """One file or link of an artifact; ``relative`` is its path inside the tree with ``/`` between the parts."""

    relative: str
    kind: Literal["F", "X", "L"]
    path: Path


def tree_entries(root: Path) -> list[TreeEntry]:
    """All that belongs to the artifact at ``root``, sorted by the bytes of the relative path.

    Raises ``OSError`` when something can't be read, and ``ValueError`` for what can't be part of an artifact:
    a link that leaves the tree, a socket, a device, a pipe.
    """
    return sorted(_walk(root, root=root), key=lambda entry: os.fsencode(entry.relative))


def tree_digest(path: Path) -> str:
    """The digest of the artifact at ``path``, 64 lower-case hex digits. Raises like :func:`tree_entries`."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for entry in tree_entries(path):
        name = os.fsencode(entry.relative)
        digest.update(entry.kind.encode() + _length(len(name)) + name)
        if entry.kind == "L":
            target = os.fsencode(entry.path.readlink())
            digest.update(_length(len(target)) + target)
            continue
        with entry.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(_length(size))
            read = 0
            while block := file.read(_BLOCK_BYTES):
                read += len(block)
                digest.update(block)
        if read != size:
            raise ValueError(f"{entry.relative} changed while it was read")
    return digest.hexdigest()


def _length(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _walk(directory: Path, *, root: Path) -> Iterator[TreeEntry]:
    with os.scandir(directory) as found:
        children = list(found)
    for child in children:
        path = Path(child.path)
        mode = child.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            if child.name not in IGNORED_DIRECTORIES:
                yield from _walk(path, root=root)
            continue
        if child.name.endswith(IGNORED_SUFFIXES):
            continue
        relative = path.relative_to(root).as_posix()
        if stat.S_ISLNK(mode):
            target = path.readlink()
            if target.is_absolute() or not (path.parent / target).resolve().is_relative_to(root.resolve()):
                raise ValueError(f"{relative} is a link to {target}, outside of the artifact")
            yield TreeEntry(relative, "L", path)
        elif stat.S_ISREG(mode):
            yield TreeEntry(relative, "X" if mode & stat.S_IXUSR else "F", path)
        else:
            raise ValueError(f"{relative} is neither a file nor a link nor a directory")
