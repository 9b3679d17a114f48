"""Processes as the kernel tells of them: who they are, who belongs to a service, signals that hit nobody else.

A process is named by pid, start time and boot, so that a recycled pid is never taken for an old process. To a
service belong its leader's session, everything whose environment carries the service's private home (so a daemon
that made a session of its own is found too), and all their descendants. What escapes is a process that does all of:
leave the session, lose its parent, and clear its environment.

Standard library only: the launcher and the guard import this before any package is on their path.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import NamedTuple

_STATE, _PARENT, _SESSION, _START = 0, 1, 3, 19  # fields of /proc/<pid>/stat after the command's ")" (proc(5))
_STOPPED = frozenset("Tt")
_DEAD = frozenset("ZXx")
_POLL_SECONDS = 0.01
_KILL_SECONDS = 10.0
KILL = signal.SIGKILL
CONTINUE = signal.SIGCONT


class ProcessId(NamedTuple):
    """``start`` is in clock ticks after the boot whose id is ``boot``."""

    pid: int
    start: int
    boot: str


class ProcessEntry(NamedTuple):
    """A line of the process table."""

    state: str
    parent: int
    session: int
    start: int


def boot_id() -> str:
    """The id of this boot: pids, start times and monotonic clocks mean nothing after another."""
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123 - pathlib costs the launcher its speed
        return file.read().strip()


def entry(pid: int) -> ProcessEntry | None:
    """The process table's line of ``pid``; ``None`` when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return ProcessEntry(
        state=fields[_STATE].decode(),
        parent=int(fields[_PARENT]),
        session=int(fields[_SESSION]),
        start=int(fields[_START]),
    )


def identify(pid: int) -> ProcessId | None:
    """The identity of ``pid``; ``None`` when it is gone."""
    found = entry(pid)
    return None if found is None else ProcessId(pid, found.start, boot_id())


def is_alive(process: ProcessId) -> bool:
    """Whether this very process runs; a zombie does not."""
    found = entry(process.pid)
    return found is not None and found.start == process.start and found.state not in _DEAD and process.boot == boot_id()


def is_stopped(process: ProcessId) -> bool:
    """Whether this very process is frozen by SIGSTOP."""
    found = entry(process.pid)
    return found is not None and found.start == process.start and found.state in _STOPPED


class ServiceProcesses:
    """All processes of one service: those around ``leader`` and those whose HOME is ``home``, or whose ``variable``
    is, for a command beside the service."""

    def __init__(self, *, leader: ProcessId | None, home: str, variable: str = "HOME") -> None:
        self._leader = leader
        self._mark = os.fsencode(f"{variable}={home}")

    def members(self) -> dict[int, ProcessEntry]:
        """The living processes of the service."""
        table = _table()
        found = {pid for pid in table if _has_variable(pid, self._mark)}
        leader = self._leader
        # A session's number is its leader's pid, and is not given away while the leader lies in the table.
        if leader is not None and leader.pid in table and table[leader.pid].start == leader.start:
            found |= {pid for pid, line in table.items() if line.session == leader.pid}
        children: dict[int, list[int]] = {}
        for pid, line in table.items():
            children.setdefault(line.parent, []).append(pid)
        waiting = list(found)
        while waiting:
            new = [child for child in children.get(waiting.pop(), ()) if child not in found]
            found.update(new)
            waiting.extend(new)
        found.discard(os.getpid())
        return {pid: table[pid] for pid in found if table[pid].state not in _DEAD}

    def signal(self, number: signal.Signals) -> int:
        """Send ``number`` to all; how many got it."""
        return sum(_send(pid, line.start, number) for pid, line in self.members().items())

    def freeze_more(self) -> bool:
        """Stop those that still run; true when all were stopped already, which nobody can leave by forking."""
        running = {pid: line for pid, line in self.members().items() if line.state not in _STOPPED}
        for pid, line in running.items():
            _send(pid, line.start, signal.SIGSTOP)
        return not running

    async def freeze(self, *, deadline_seconds: float) -> bool:
        """Stop all of the service; false when not all of it stood still by the deadline."""
        deadline = time.monotonic() + deadline_seconds
        while not self.freeze_more():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.001)
        return True

    async def end(self, *, grace_seconds: float) -> bool:
        """SIGTERM, and SIGKILL to those that are left after the grace. False when some can't be killed."""
        deadline = time.monotonic() + grace_seconds
        if grace_seconds > 0:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)  # a frozen process takes SIGTERM only when it goes on
            while self.members():
                if time.monotonic() > deadline:
                    break
                await asyncio.sleep(_POLL_SECONDS)
        deadline = time.monotonic() + _KILL_SECONDS
        while self.members():
            self.signal(signal.SIGKILL)
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True


def kill(process: ProcessId) -> None:
    """SIGKILL to this very process, if it is there."""
    if process.boot == boot_id():
        _send(process.pid, process.start, signal.SIGKILL)


async def gone(process: ProcessId, *, deadline_seconds: float) -> bool:
    """Wait until this very process has ended; false when it had not by the deadline."""
    deadline = time.monotonic() + deadline_seconds
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def _table() -> dict[int, ProcessEntry]:
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    lines = ((pid, entry(pid)) for pid in pids)
    return {pid: line for pid, line in lines if line is not None}


def _has_variable(pid: int, variable: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            return variable in file.read().split(b"\0")
    except OSError:  # gone, or somebody else's
        return False


def _send(pid: int, start: int, number: signal.Signals) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor holds on to one process: if that is the one meant, the signal can reach no other.
        found = entry(pid)
        if found is None or found.start != start:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
