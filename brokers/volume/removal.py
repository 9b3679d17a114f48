"""Removes trees whatever they hold: directories nobody may write to, any names, any depth."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from brokers.volume.threads import Stop


class Trash:
    """A directory on the file system of what is removed. What is removed is moved here first, so that it is gone at
    once, and then removed piece by piece; what a stop cuts off is left for :meth:`empty`. Calls raise ``OSError``.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._busy: set[Path] = set()

    def aside(self, path: Path) -> Path | None:
        """Take ``path`` away; where it is now, ``None`` when there was nothing."""
        if not os.path.lexists(path):
            return None
        with suppress(PermissionError):  # moving a directory of somebody else may do without
            _writable(path)
        place = self._directory / uuid.uuid4().hex
        place.mkdir(mode=0o700)
        try:
            path.rename(place / "0")
        except FileNotFoundError:
            place.rmdir()
            return None
        return place

    def discard(self, path: Path, stop: Stop) -> None:
        """Remove ``path``. Nothing there is done."""
        if (place := self.aside(path)) is not None:
            self._remove(place, stop)

    def empty(self, stop: Stop) -> None:
        """Remove all that was taken away and is left."""
        for place in list(self._directory.iterdir()):
            if place not in self._busy:
                self._remove(place, stop)

    def _remove(self, place: Path, stop: Stop) -> None:
        self._busy.add(place)
        try:
            waiting = list(place.iterdir())
            while waiting:
                path = waiting.pop()
                if path.is_symlink() or not path.is_dir():
                    path.unlink()
                    continue
                for name in _clear(path, stop):
                    # Directories that hold something are moved up beside the first: no path grows long
                    full, beside = path / os.fsdecode(name), place / uuid.uuid4().hex
                    full.chmod(0o700)
                    full.rename(beside)
                    waiting.append(beside)
                path.rmdir()
            place.rmdir()
        finally:
            self._busy.discard(place)


def _clear(directory: Path, stop: Stop) -> list[bytes]:
    """Remove what is in a directory, but for directories that hold something: their names."""
    _writable(directory)
    full = []
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with os.scandir(descriptor) as listed:
            found = [(each.name, each.is_dir(follow_symlinks=False)) for each in listed]
        for name, is_directory in found:
            stop.check()
            if not is_directory:
                os.unlink(name, dir_fd=descriptor)
                continue
            try:
                os.rmdir(name, dir_fd=descriptor)
            except OSError:
                full.append(os.fsencode(name))
    finally:
        os.close(descriptor)
    return full


def _writable(path: Path) -> None:
    if not path.is_symlink() and path.is_dir():
        path.chmod(0o700)
