"""Processes by identity: pid and start time, so that a recycled pid is never taken for an old part.

Every part leads a session of its own. What is left of that session after the leader is gone is found
in /proc by the session's number, never by a name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
POLL_SECONDS = 0.02
_STATE, _SESSION, _START_TIME = 0, 3, 19  # fields of /proc/<pid>/stat, counted after the command's ')'


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """A process that nobody can be mistaken for: pid and start time in clock ticks since boot."""

    pid: int
    started: int


def _stat(pid: int) -> list[str] | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command may hold spaces and brackets: what counts begins after the last ')'.
    return text.rpartition(")")[2].split()


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a running process, None when it is gone or only waits to be reaped."""
    fields = _stat(pid)
    if fields is None or fields[_STATE] == "Z":
        return None
    return ProcessIdentity(pid=pid, started=int(fields[_START_TIME]))


def is_running(identity: ProcessIdentity) -> bool:
    """True while this very process runs."""
    return identify(identity.pid) == identity


def send(identity: ProcessIdentity, number: signal.Signals) -> None:
    """Signal the process if it still is the one meant."""
    if is_running(identity):
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, number)


def session_members(session: int) -> list[ProcessIdentity]:
    """All running processes of a session."""
    members = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields is not None and fields[_STATE] != "Z" and int(fields[_SESSION]) == session:
                members.append(ProcessIdentity(pid=int(entry.name), started=int(fields[_START_TIME])))
    return members


def with_environment(entry: str) -> list[ProcessIdentity]:
    """All running processes that were started with `NAME=value` in their environment, but this one."""
    wanted = entry.encode()
    found = []
    for directory in PROC.iterdir():
        if not directory.name.isdigit() or int(directory.name) == os.getpid():
            continue
        try:
            environment = (directory / "environ").read_bytes()
        except OSError:  # gone, or somebody else's
            continue
        if wanted in environment.split(b"\0"):
            identity = identify(int(directory.name))
            if identity is not None:
                found.append(identity)
    return found


def kill_all(identities: list[ProcessIdentity]) -> None:
    """SIGKILL each, if it still is the one meant."""
    for identity in identities:
        send(identity, signal.SIGKILL)


async def gone(identity: ProcessIdentity, *, deadline: float) -> bool:
    """Wait until the process is gone or the moment of the loop's clock is there; True when gone."""
    loop = asyncio.get_running_loop()
    while is_running(identity):
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


async def end_session(leader: ProcessIdentity, *, number: signal.Signals, grace: float, kill_wait: float = 5.0) -> bool:
    """Stop a process that is not our child, and what is left of its session; True when all is gone."""
    loop = asyncio.get_running_loop()
    if is_running(leader):
        send(leader, number)
        await gone(leader, deadline=loop.time() + grace)
        rest = [*session_members(leader.pid), leader]
    else:
        # The pid may belong to another by now, and so may the session of that number.
        rest = [] if identify(leader.pid) else session_members(leader.pid)
    kill_all(rest)
    deadline = loop.time() + kill_wait
    return all([await gone(identity, deadline=deadline) for identity in rest])
