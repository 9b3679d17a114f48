"""One stack at a time on one home."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from hub.stack.errors import HomeInUse
from hub.stack.files import PRIVATE_FILE, private_directory


class HomeLock:
    """A lock that the kernel drops with the process, however it ends. Context manager."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._file = home / "run" / "lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise `HomeInUse` naming the process that has it."""
        private_directory(self._file.parent)
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode().strip() or "unknown"
            os.close(descriptor)
            raise HomeInUse(
                f"{self._home} is in use by process {holder}: stop it first, or choose another home"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; safe to repeat."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> HomeLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
