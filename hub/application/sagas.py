"""Drives the hub's operations: stores what has happened, then sends what should be at the sites now.

Nothing is remembered here that is not in the streams, but for when a command was sent last: any hub can drive any
operation at any time, several at once too. Appends are guarded, and a command that is sent again is one command.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from weakref import WeakValueDictionary

from bus import tracing
from bus.events import Conflict, Recorded
from bus.scope import scope
from hub.application import measure
from hub.application.aggregates import Loaded, append, load
from hub.application.context import TRIES, Context, contended
from hub.domain.children import Child, Clockwork, Outgoing, advance, outgoing
from schemas import saga
from schemas.envelope import parse_timestamp, timestamp, wrap
from schemas.events import Event, UndoStarted
from schemas.problems import CalqueError
from schemas.saga import Operation
from schemas.subjects import HUB, site_command
from schemas.traces import Trace

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 5.0
AGAIN_AT_MOST_SECONDS = 3600.0
"""A command that no site has taken up is sent again after a while: the stream it waits in keeps it for days only."""
SWEEP_SECONDS = 1.0
STEPS_AT_ONCE = 100
Ahead = tuple[str, int]
"""Operation and sequence of an event from a time that has not come yet."""


class Sagas:
    """The runner of the hub's operations."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sent: dict[str, tuple[float, float]] = {}
        self._ahead: dict[Ahead, float] = {}
        self._driving: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self) -> None:
        """Look after all live operations for ever: retries, deadlines, and what another hub left behind."""
        while True:
            for row in list(self._context.state.operations.live_rows(writer=HUB)):
                if self._context.state.is_stopped(HUB, "operation", row.id):
                    continue
                try:
                    await self.drive(row.id)
                except (CalqueError, Conflict) as error:
                    logger.warning("operation %s waits: %s", row.id, error)
                except Exception:
                    logger.exception("driving operation %s failed", row.id)
            await asyncio.sleep(SWEEP_SECONDS)

    async def drive(self, id: str) -> None:
        """Bring one operation up to what is known now. Raises :class:`CalqueError`; then it is driven again later."""
        lock = self._driving.setdefault(id, asyncio.Lock())
        async with lock:
            with scope(operation=id, correlation=id):
                await self._drive(id)

    async def _drive(self, id: str) -> None:
        conflicts = 0
        for _ in range(STEPS_AT_ONCE):
            loaded = await load(self._context.events, "operation", id)
            operation = saga.fold(id, loaded.events)
            if operation is None:
                return
            trace = measure.trace_of(loaded)
            clock = _clock(loaded, self._context.clock(), self._ahead)
            events = advance(operation, self._child, clock=clock)
            if not events:
                await self._send(operation, clock, trace)
                return
            with tracing.carried(trace):
                stored = await self._store(loaded, events)
            if not stored:
                conflicts += 1
                if conflicts >= TRIES:
                    raise contended(f"operation {id}")

    async def _store(self, loaded: Loaded, events: list[Event]) -> bool:
        try:
            stored = await append(self._context.events, (loaded, events), operation=loaded.key[1])
        except Conflict:
            return False
        measure.operation(loaded, stored)
        return True

    async def _send(self, operation: Operation, clock: Clockwork, trace: Trace | None) -> None:
        for each in outgoing(operation, self._child, clock=clock):
            due, interval = self._sent.get(each.id, (0.0, AGAIN_SECONDS / 2))
            if due - interval <= clock.now < due:  # earlier still: the clock was set back
                continue
            await self._publish(operation, each, trace)
            interval = min(interval * 2, AGAIN_AT_MOST_SECONDS)
            self._sent[each.id] = (clock.now + interval, interval)
        if not operation.live:
            for id in [id for id in self._sent if id.startswith(f"{operation.id}/")]:
                del self._sent[id]
            for ahead in [ahead for ahead in self._ahead if ahead[0] == operation.id]:
                del self._ahead[ahead]

    async def _publish(self, operation: Operation, each: Outgoing, trace: Trace | None) -> None:
        command = each.command
        subject = site_command(
            site=each.site,
            principal=command.by.principal,
            aggregate=command.AGGREGATE,
            id=each.aggregate_id,
            verb=command.VERB,
        )
        envelope = wrap(
            command,
            id=each.id,
            source=HUB,
            time=timestamp(self._context.clock()),
            operationid=operation.id,
            causationid=operation.id,
            correlationid=operation.id,
            traceparent=measure.step_trace(trace, each.id),
        )
        await self._context.outbound.command(subject, envelope)

    def _child(self, site: str, id: str) -> Child | None:
        return self._context.state.child(site, id)


def _clock(loaded: Loaded, now: datetime, ahead: dict[Ahead, float]) -> Clockwork:
    times = [_seconds(each, now, ahead) for each in loaded.readable]
    changed: dict[str, float] = {}
    undoing: float | None = None
    for each, time in zip(loaded.readable, times, strict=True):
        step = getattr(each.event, "step", None)
        if isinstance(step, str):
            changed[step] = time
        if isinstance(each.event, UndoStarted):
            undoing = time
    return Clockwork(
        now=now.timestamp(), accepted=times[0] if times else now.timestamp(), changed=changed, undoing=undoing
    )


def _seconds(recorded: Recorded, now: datetime, ahead: dict[Ahead, float]) -> float:
    """When an event was recorded. One from a clock that was set back since counts from when it was looked at first:
    else what it begins would wait until the clock is there again."""
    here = now.timestamp()
    try:
        at = parse_timestamp(recorded.envelope.time).timestamp()
    except ValueError:
        return here
    return at if at <= here else ahead.setdefault((recorded.id, recorded.sequence), here)
