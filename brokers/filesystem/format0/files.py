"""The file operations of a repository, each one small, named by its step, and durable where it says so.

Everything that changes the disk goes through a `Files`, so that a test can make precisely one step fail (or stop
half-way) and look at what a reader finds afterwards.
"""

import contextlib
import ctypes
import ctypes.util
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from brokers.sdk.digests import Buffer

_FEW_FILES = 16
_REMOVE_ATTEMPTS = 20


def _load_syncfs() -> "ctypes._NamedFuncPointer | None":
    library = ctypes.CDLL(None, use_errno=True)
    return getattr(library, "syncfs", None)


class Files:
    """Changes to the disk. Raises OSError as the system reports it."""

    def __init__(self) -> None:
        self._syncfs = _load_syncfs()

    def step(self, name: str, path: Path) -> None:
        """Called before every change, with the step's name; the place where tests inject faults."""

    def make_directory(self, path: Path) -> None:
        if not path.is_dir():
            self.step("mkdir", path)
            path.mkdir(parents=True, exist_ok=True)

    def write_new(self, path: Path, data: Buffer, *, mode: int = 0o644) -> None:
        """Writes a file whole; not yet durable."""
        self.step("write", path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self.step("rename", target)
        source.rename(target)

    def link(self, source: Path, target: Path) -> None:
        """A second name for a file; a name that is there already stays. Raises FileNotFoundError without source."""
        self.step("link", target)
        with contextlib.suppress(FileExistsError):
            target.hardlink_to(source)

    def unlink(self, path: Path) -> None:
        self.step("unlink", path)
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Removes a directory with all in it, also while another thread still writes its last file there."""
        self.step("remove_tree", path)
        for _ in range(_REMOVE_ATTEMPTS):
            # What vanishes or appears meanwhile is met by the next round.
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                return
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)

    def sync_path(self, path: Path) -> None:
        """Makes one file's bytes, or one directory's names, durable."""
        self.step("sync", path)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_files(self, paths: Iterable[Path], *, root: Path) -> None:
        """Makes many files under `root` durable: one by one when few, else with one syncfs of the file system."""
        several = list(paths)
        if len(several) <= _FEW_FILES or self._syncfs is None:
            for path in several:
                self.sync_path(path)
            return
        self.step("syncfs", root)
        descriptor = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self._syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, f"syncfs failed: {os.strerror(number)}", str(root))
        finally:
            os.close(descriptor)

    def replace(self, path: Path, data: Buffer, *, mode: int = 0o644) -> None:
        """Writes a small file atomically and durably: a reader sees the old bytes or the new ones."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
        try:
            self.write_new(temporary, data, mode=mode)
            self.sync_path(temporary)
            self.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        self.sync_path(path.parent)
