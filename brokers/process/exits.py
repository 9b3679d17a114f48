"""Noticing the end of a process, one of our own or an adopted one, without polling."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from brokers.process import processes
from brokers.process.processes import ProcessId


class ExitWatch:
    """Calls ``ended`` once, with the exit code (negative: the signal), or ``None`` for a process that is not our
    child. ``before_reaping`` is called while the process is a zombie: its pid and session are still its own."""

    def __init__(
        self,
        process: ProcessId,
        *,
        ended: Callable[[int | None], None],
        before_reaping: Callable[[], None] = lambda: None,
    ) -> None:
        """Raises ``ProcessLookupError`` when this very process is not there any more."""
        self._pid = process.pid
        self._ended = ended
        self._before_reaping = before_reaping
        self._descriptor = os.pidfd_open(process.pid)
        found = processes.entry(process.pid)
        if found is None or found.start != process.start:
            os.close(self._descriptor)
            raise ProcessLookupError(process.pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._on_end)

    def close(self) -> None:
        """Watch no longer."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _on_end(self) -> None:
        self.close()
        self._before_reaping()
        try:
            _, status = os.waitpid(self._pid, 0)
        except ChildProcessError:
            self._ended(None)
        else:
            self._ended(os.waitstatus_to_exitcode(status))
