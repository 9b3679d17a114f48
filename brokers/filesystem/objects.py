"""An object store in a directory, also over NFS: one file per object, written beside its place, synced, and then
given its name. No locks."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from brokers.repository.objects import ObjectExists, ObjectMissing, StoredObject
from brokers.sdk.atomic import sync_directory

_ATTEMPTS = 20
_TEMPORARY = ".tmp"
STALE_SECONDS = 86400.0
"""What is written for longer than this was left by a process that is gone."""


class DirectoryStore:
    """Objects below one directory (`brokers.repository.objects.ObjectStore`). Raises OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def put(self, name: str, content: bytes | memoryview) -> None:
        target = self._directory / name
        for _ in range(_ATTEMPTS):
            # Another process may remove the directory just now, as its last object goes.
            with contextlib.suppress(FileNotFoundError):
                self._make_directory(target.parent)
                self._put(target, content)
                return
        self._put(target, content)

    def _put(self, target: Path, content: bytes | memoryview) -> None:
        temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}{_TEMPORARY}")
        try:
            _write_synced(temporary, content)
            try:
                # A link, because it never takes the place of what is there.
                target.hardlink_to(temporary)
            except FileExistsError:
                if target.read_bytes() != bytes(content):
                    raise ObjectExists(target.relative_to(self._directory).as_posix()) from None
            except FileNotFoundError:
                raise
            except OSError:
                # A file system without hard links.
                temporary.rename(target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        with contextlib.suppress(FileNotFoundError):
            # Deleted again already, with its directory.
            sync_directory(target.parent)

    def read(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        try:
            with (self._directory / name).open("rb", buffering=0) as file:
                if length is None:
                    file.seek(offset)
                    return file.readall()
                return _read_at(file.fileno(), offset=offset, length=length)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectMissing(name) from None

    def look(self, name: str) -> StoredObject | None:
        try:
            found = (self._directory / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return StoredObject(name, found.st_size, found.st_mtime)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        folder, _, _ = prefix.rpartition("/")
        return self._list(self._directory / folder, folder and f"{folder}/", prefix)

    def _list(self, directory: Path, path: str, prefix: str) -> Iterator[StoredObject]:
        try:
            with os.scandir(directory) as entries:
                found = sorted(entries, key=lambda entry: entry.name + ("/" if entry.is_dir() else ""))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in found:
            name = f"{path}{entry.name}"
            if not (name.startswith(prefix) or prefix.startswith(f"{name}/")) or entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._list(Path(entry.path), f"{name}/", prefix)
                continue
            with contextlib.suppress(FileNotFoundError):
                about = entry.stat()
                yield StoredObject(name, about.st_size, about.st_mtime)

    def delete(self, name: str) -> None:
        path = self._directory / name
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        self._sync_nearest(path.parent)
        for parent in path.relative_to(self._directory).parents:
            if parent == Path():
                break
            try:
                (self._directory / parent).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                break

    def free_bytes(self) -> int | None:
        return shutil.disk_usage(self._directory).free

    def now(self) -> float:
        """The time that a file gets which is written now: over NFS that is the server's."""
        probe = self._directory / f".clock.{os.urandom(6).hex()}{_TEMPORARY}"
        try:
            probe.touch(mode=0o600)
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes what processes that are gone left half written."""
        latest = self.now() - STALE_SECONDS
        for directory, _, names in os.walk(self._directory):  # passes over what is removed meanwhile
            for name in names:
                if name.startswith(".") and name.endswith(_TEMPORARY):
                    with contextlib.suppress(FileNotFoundError):
                        path = Path(directory, name)
                        if path.stat().st_mtime < latest:
                            path.unlink()

    def close(self) -> None:
        """Nothing is held open."""

    def _sync_nearest(self, directory: Path) -> None:
        """Syncs the directory, or what is above it when another delete has just removed it."""
        while True:
            try:
                return sync_directory(directory)
            except FileNotFoundError:
                if directory == self._directory:
                    raise
                directory = directory.parent

    def _make_directory(self, directory: Path) -> None:
        if directory.is_dir():
            return
        missing = [directory, *directory.parents]
        missing = [each for each in missing if not each.is_dir()]
        directory.mkdir(parents=True, exist_ok=True)
        for each in reversed(missing):
            sync_directory(each.parent)


def _write_synced(path: Path, content: bytes | memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_at(descriptor: int, *, offset: int, length: int) -> bytes:
    found = os.pread(descriptor, length, offset)
    while 0 < len(found) < length:
        more = os.pread(descriptor, length - len(found), offset + len(found))
        if not more:
            break
        found += more
    return found
