"""Watches operations: their state from queries, how many bytes are done from the progress signals."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bus.connection import Bus, Message
from hub.client.errors import (
    ClientError,
    HubUnreachableError,
    NotFoundError,
    OperationFailedError,
    WaitTimedOutError,
    client_error,
)
from schemas import subjects
from schemas.commands import Answer
from schemas.envelope import decode, unwrap
from schemas.problems import Actor, Problem, not_found
from schemas.queries import OperationView
from schemas.signals import Progress

ALL_PROGRESS = f"{subjects.ROOT}.progress.>"
ENDED = frozenset({"succeeded", "failed", "cancelled"})
# A site operation that the hub started is called <operation>/<step>/<attempt>.
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:/|$)")
_APPEAR_SECONDS = 15.0
_PATIENCE_SECONDS = 60.0
_LAST_LOOK_SECONDS = 1.0
_SHORTEST_POLL = 0.1
_LONGEST_POLL = 0.5


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Progress of one part. ``bytes_per_second`` is the mean since this client first heard of the part."""

    progress: Progress
    first_done: int
    first_at: float
    at: float

    @property
    def bytes_per_second(self) -> float | None:
        """``None`` until there are two measures."""
        passed = self.at - self.first_at
        return (self.progress.done - self.first_done) / passed if passed > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """At this rate; ``None`` while unknown."""
        rate, total = self.bytes_per_second, self.progress.total
        return max(total - self.progress.done, 0) / rate if rate and total is not None else None


@dataclass(kw_only=True)
class Snapshot:
    """All that is known of an operation now. ``view`` is ``None`` until the hub knows it.

    ``children`` are the site operations that it started; ``parts`` the progress by operation, step and part.
    """

    operation: str
    view: OperationView | None = None
    children: dict[str, OperationView] = field(default_factory=dict)
    parts: dict[tuple[str, str, str], Rate] = field(default_factory=dict)

    def concerns(self, operation: str) -> bool:
        """Whether ``operation`` is this one or one that it started."""
        return operation == self.operation or (self.view is not None and operation in self.view.children)

    def note(self, progress: Progress, *, at: float) -> None:
        """Take a signal into account; ``at`` is monotonic seconds."""
        key = (progress.operation, progress.step, progress.part)
        before = self.parts.get(key)
        if before is None or progress.done < before.progress.done:
            self.parts[key] = Rate(progress=progress, first_done=progress.done, first_at=at, at=at)
        else:
            self.parts[key] = Rate(progress=progress, first_done=before.first_done, first_at=before.first_at, at=at)


Observer = Callable[[Snapshot], None]
Look = Callable[[str], Awaitable[OperationView | None]]
AskAgain = Callable[[str], Awaitable[Answer | None]]


async def watch(
    bus: Bus, operation: str, *, look: Look, ask: AskAgain, timeout_seconds: float | None, observer: Observer | None
) -> OperationView:
    """The operation's last state, once it succeeded.

    Raises :class:`OperationFailedError`, :class:`WaitTimedOutError`, :class:`NotFoundError` when the hub knows
    neither the operation nor its command, or what the command was rejected for. A hub that is away is waited
    for a minute.
    """
    snapshot = Snapshot(operation=operation)
    early: list[Progress] = []

    async def hear(message: Message) -> None:
        progress = unwrap(decode(message.payload), Progress)
        if snapshot.concerns(progress.operation):
            snapshot.note(progress, at=time.monotonic())
            if observer is not None:
                observer(snapshot)
        elif len(early) < 1000:
            early.append(progress)  # perhaps of a child that is not known yet

    # Progress is for who looks on; not every principal may hear it.
    subscription = await bus.subscribe(ALL_PROGRESS, hear) if observer is not None else None
    try:
        return await _until_ended(snapshot, early, look, ask, timeout_seconds, observer)
    finally:
        if subscription is not None:
            await subscription.drop()


async def _until_ended(
    snapshot: Snapshot,
    early: list[Progress],
    look: Look,
    ask: AskAgain,
    timeout_seconds: float | None,
    observer: Observer | None,
) -> OperationView:
    started = time.monotonic()
    last_heard = started
    deadline = None if timeout_seconds is None else started + timeout_seconds
    pause = _SHORTEST_POLL
    while True:
        try:
            view = await look(snapshot.operation)
            if view is None:
                await _still_expected(snapshot.operation, ask, waited=time.monotonic() - started)
            else:
                await _refresh(snapshot, view, look)
            last_heard = time.monotonic()
        except HubUnreachableError:
            if time.monotonic() - last_heard > _PATIENCE_SECONDS:
                raise
        _claim(snapshot, early)
        if observer is not None:
            observer(snapshot)
        if snapshot.view is not None and snapshot.view.state in ENDED:
            await _last_look(snapshot, look, observer)
            if snapshot.view.state != "succeeded":
                raise OperationFailedError(snapshot.view)
            return snapshot.view
        left = pause if deadline is None else min(pause, deadline - time.monotonic())
        if left <= 0:
            raise _timed_out(snapshot.operation, timeout_seconds or 0)
        await asyncio.sleep(left)
        pause = min(pause * 1.3, _LONGEST_POLL)


async def _refresh(snapshot: Snapshot, view: OperationView, look: Look) -> None:
    for child in view.children:
        known = snapshot.children.get(child)
        if known is None or known.state not in ENDED:
            found = await look(child)
            if found is not None:
                snapshot.children[child] = found
    snapshot.view = view


async def _last_look(snapshot: Snapshot, look: Look, observer: Observer | None) -> None:
    """See the ends of what it started too: they may be known a moment later than its own."""
    until = time.monotonic() + _LAST_LOOK_SECONDS
    while observer is not None and time.monotonic() < until:
        if all(child.state in ENDED for child in snapshot.children.values()):
            return
        await asyncio.sleep(_SHORTEST_POLL)
        if snapshot.view is not None:
            await _refresh(snapshot, snapshot.view, look)
        observer(snapshot)


def _claim(snapshot: Snapshot, early: list[Progress]) -> None:
    """Take what was heard before it was known whose it is."""
    mine = [progress for progress in early if snapshot.concerns(progress.operation)]
    early[:] = [progress for progress in early if progress not in mine]
    for progress in mine:
        snapshot.note(progress, at=time.monotonic())


async def _still_expected(operation: str, ask: AskAgain, *, waited: float) -> None:
    """Return while the operation may still appear; else raise why it will not."""
    answer = await ask(operation)
    if answer is None:
        # No command has an id of another form, so nothing is on its way.
        if waited > _APPEAR_SECONDS or not _ID.match(operation):
            raise _unknown(operation)
        return
    if answer.state == "rejected" and answer.problem is not None:
        raise client_error(answer.problem, correlation=operation)
    if answer.state == "accepted" and answer.operation is None:
        raise _unknown(operation)


def _unknown(operation: str) -> ClientError:
    problem = not_found("operation", f"there is no operation {operation!r}", "see 'calque operation list'")
    return NotFoundError(problem, correlation=operation)


def _timed_out(operation: str, seconds: float) -> WaitTimedOutError:
    return WaitTimedOutError(
        Problem(
            code="wait_timed_out",
            message=f"the operation has not ended within {seconds:g} s; it goes on",
            actor=Actor.ENVIRONMENT,
            remedy=f"wait again with 'calque operation wait {operation}'",
        ),
        correlation=operation,
    )
