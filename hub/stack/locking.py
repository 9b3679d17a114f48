"""One stack at a time on one home."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from hub.stack.errors import HomeInUse
from hub.stack.files import PRIVATE_FILE, private_directory
from hub.stack.processes import ProcessIdentity, identify, is_running


def noted_holder(home: Path) -> ProcessIdentity | None:
    """Who wrote itself into the lock last and has not given it back: it runs, or it was killed."""
    try:
        pid, started = (home / "run" / "lock").read_text().split()
        return ProcessIdentity(pid=int(pid), started=int(started))
    except (OSError, ValueError):
        return None


def holder(home: Path) -> ProcessIdentity | None:
    """The process that runs a stack on this home now. Looking does not touch the lock."""
    noted = noted_holder(home)
    return noted if noted is not None and is_running(noted) else None


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
            pid = (os.read(descriptor, 64).decode().split() or ["unknown"])[0]
            os.close(descriptor)
            raise HomeInUse(
                f"{self._home} is in use by process {pid}: stop it with 'calque down', or choose another home"
            ) from None
        os.ftruncate(descriptor, 0)
        own = identify(os.getpid())
        os.pwrite(descriptor, f"{os.getpid()} {own.started if own else 0}\n".encode(), 0)
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
