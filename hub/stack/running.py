"""A stack as others see it: whether one runs on a home, who keeps it, what its parts do; and how to stop it.

Beside the files of the supervisor stands ``run/stack.json``, in which whoever runs the stack says how far it is.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from hub.stack.errors import HomeInUse, StackError
from hub.stack.files import read_json, write_json
from hub.stack.keeper import PartState
from hub.stack.layout import HomeLayout
from hub.stack.leftovers import end_leftovers, running_leftovers
from hub.stack.locking import HomeLock, holder, noted_holder
from hub.stack.metrics_targets import read_targets
from hub.stack.processes import ProcessIdentity, gone, kill_all, send, with_environment
from hub.stack.servers.dedicated import stop_dedicated
from hub.stack.supervisor import STOP_SECONDS, stack_mark

Phase = Literal["starting", "ready", "stopping"]
_PATIENCE_SECONDS = 10.0
_AGAIN_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """What the process that runs the stack says of it. ``since`` is the UTC time of its start."""

    pid: int
    phase: Phase
    since: str
    sites: tuple[str, ...]
    version: str


@dataclass(frozen=True, kw_only=True)
class RunningStack:
    """A home at one moment. ``keeper`` runs the stack; without one, ``orphans`` are parts that run on all the same.

    ``killed`` is who kept the stack and died without giving the home back.
    """

    home: Path
    keeper: ProcessIdentity | None
    killed: ProcessIdentity | None
    announced: Announcement | None
    parts: dict[str, PartState]
    orphans: dict[str, ProcessIdentity]
    metrics: dict[str, str] = field(default_factory=dict)
    """By part, the address where it shows its metrics."""

    @property
    def ready(self) -> bool:
        """Whether everything was said to be ready by the one who runs it now."""
        return self.keeper is not None and self.announced is not None and self.announced.phase == "ready"

    def as_json(self) -> dict[str, Any]:
        """As ``calque status`` shows it."""
        return {
            "home": str(self.home),
            "pid": self.keeper.pid if self.keeper else None,
            "phase": self.announced.phase if self.announced and self.keeper else "stopped",
            "since": self.announced.since if self.announced and self.keeper else None,
            "parts": {name: state.as_json() for name, state in self.parts.items()},
            "metrics": self.metrics,
        }


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What was stopped: the process that ran the stack, and parts. ``forced`` when it had to be killed."""

    keeper: int | None = None
    parts: tuple[str, ...] = ()
    forced: bool = False


def announce(home: Path, *, phase: Phase, sites: Sequence[str], version: str, since: datetime | None = None) -> None:
    """Say how far the stack is that this process runs."""
    began = (since or datetime.now(UTC)).isoformat(timespec="seconds")
    said = Announcement(pid=os.getpid(), phase=phase, since=began, sites=tuple(sites), version=version)
    write_json(_announcement(home), asdict(said))


def withdraw(home: Path) -> None:
    """The stack is stopped: nothing is to be said of it any more."""
    _announcement(home).unlink(missing_ok=True)


def look(home: Path) -> RunningStack:
    """What runs on ``home`` now."""
    layout = HomeLayout(home)
    keeper, noted = holder(home), noted_holder(home)
    orphans = {} if keeper else running_leftovers(layout.records)
    announced = _announced(home)
    return RunningStack(
        home=home,
        keeper=keeper,
        killed=noted if noted != keeper else None,
        announced=announced if announced and keeper and announced.pid == keeper.pid else None,
        parts=_parts(layout, keeper=keeper, orphans=orphans),
        orphans=orphans,
        metrics=read_targets(layout.metrics_targets),
    )


def seems_down(home: Path) -> bool:
    """Whether a stack once ran on ``home`` and nothing of it is to be seen now, as far as this process sees."""
    layout = HomeLayout(home)
    return (layout.run / "lock").exists() and holder(home) is None and not running_leftovers(layout.records)


async def stop(home: Path, *, within: float = STOP_SECONDS + _PATIENCE_SECONDS) -> Stopped:
    """Stop what runs on ``home``, also what a killed stack left behind; nothing to stop is no error.

    Who does not stop in time is killed, and its parts after it. Raises :class:`StackError` when even that fails.
    """
    before = look(home)
    forced = False
    if before.keeper is not None:
        deadline = asyncio.get_running_loop().time() + within
        send(before.keeper, signal.SIGTERM)
        if not await gone(before.keeper, deadline=deadline):
            forced = True
            kill_all([before.keeper])
            if not await gone(before.keeper, deadline=deadline + _PATIENCE_SECONDS):
                raise StackError(f"process {before.keeper.pid}, which runs the stack, can't be killed")
    left: tuple[str, ...] = ()
    if home.is_dir() and (forced or before.orphans or before.killed):
        left = await _end_what_is_left(home)
    running = tuple(name for name, state in before.parts.items() if state.pid is not None)
    return Stopped(keeper=before.keeper.pid if before.keeper else None, parts=running or left, forced=forced)


async def _end_what_is_left(home: Path) -> tuple[str, ...]:
    layout = HomeLayout(home)
    async with _locked(home):  # so that nobody starts it meanwhile
        names = await end_leftovers(layout.records)
        await asyncio.to_thread(lambda: kill_all(with_environment(stack_mark(layout.run))))
        await stop_dedicated(layout)
        withdraw(home)
    return tuple(names)


def _parts(
    layout: HomeLayout, *, keeper: ProcessIdentity | None, orphans: dict[str, ProcessIdentity]
) -> dict[str, PartState]:
    try:
        said = read_json(layout.run / "status.json") or {}
        states = {name: PartState(**state) for name, state in said.get("parts", {}).items()}
    except (json.JSONDecodeError, OSError, TypeError):
        states = {}
    if keeper is not None:
        return states if said.get("supervisor") == keeper.pid else {}
    return {
        name: PartState(phase="ready", pid=orphans[name].pid, restarts=state.restarts, cause="nobody keeps it")
        if name in orphans
        else PartState(phase="stopped", restarts=state.restarts)
        for name, state in states.items()
    }


def _announced(home: Path) -> Announcement | None:
    try:
        said = read_json(_announcement(home))
        return Announcement(**{**said, "sites": tuple(said["sites"])}) if said else None
    except (json.JSONDecodeError, OSError, TypeError, KeyError):
        return None


@asynccontextmanager
async def _locked(home: Path) -> AsyncIterator[None]:
    """The home's lock. A process that was killed is gone a moment before the kernel has closed all its files."""
    lock = HomeLock(home)
    deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
    while True:
        try:
            lock.acquire()
            break
        except HomeInUse:
            if asyncio.get_running_loop().time() >= deadline:
                raise
        await asyncio.sleep(_AGAIN_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _announcement(home: Path) -> Path:
    return HomeLayout(home).run / "stack.json"
