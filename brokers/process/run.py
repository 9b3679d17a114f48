"""One run of a service: a process that was started or found again, watched to its end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Mapping, Sequence

from brokers.process import processes
from brokers.process.exits import ExitWatch
from brokers.process.layout import ServiceFiles
from brokers.process.logfiles import open_log
from brokers.process.processes import ProcessId, ServiceProcesses
from brokers.process.python_child import spawn
from brokers.process.records import Run, load_run
from brokers.sdk.errors import temporary_error
from schemas.ids import new_id

_LOCK_SECONDS = 5.0
_POLL_SECONDS = 0.02

Ended = Callable[[int | None], None]


class ServiceRun:
    """A living run. ``ended`` is called once, with the exit code, or ``None`` when the run was adopted."""

    def __init__(self, files: ServiceFiles, *, run: str, process: ProcessId, ended: Ended) -> None:
        """Raises ``ProcessLookupError`` when the process is gone."""
        self.run = run
        self.process = process
        self._files = files
        self._watch = ExitWatch(process, ended=ended, before_reaping=self._end_the_rest)

    def processes(self) -> ServiceProcesses:
        """All processes of this run."""
        return ServiceProcesses(leader=self.process, home=str(self._files.home))

    def leave(self) -> None:
        """Watch no longer; the process goes on."""
        self._watch.close()

    def _end_the_rest(self) -> None:
        # What the main process left behind would hold the port against its successor.
        self.processes().signal(processes.KILL)


def start_run(
    files: ServiceFiles, *, command: Sequence[str], environment: Mapping[str, str], ended: Ended
) -> ServiceRun:
    """Start the service's command. Raises ``OSError`` when no process can be made; a command that can't be run
    ends with code 127 and a line in the log."""
    run = new_id()
    lock = os.open(files.run_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        log = open_log(files.log)
        try:
            pid = spawn(
                "brokers.process.launcher",
                [run, str(files.run), str(files.artifact), *command],
                environment=environment,
                output=log,
                errors=log,
                lock=lock,
            )
        finally:
            os.close(log)
    finally:
        os.close(lock)
    process = processes.identify(pid)
    if process is None:
        raise ProcessLookupError(pid)
    return ServiceRun(files, run=run, process=process, ended=ended)


async def recorded_run(files: ServiceFiles) -> Run | None:
    """The run on record, once nobody is in the middle of a start. Raises the temporary ``starting``."""
    if not files.run_lock.exists():
        return None
    lock = os.open(files.run_lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return load_run(files.run)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise temporary_error("starting", f"{files.service} is still being started") from None
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        os.close(lock)
