"""The site's journal: its own event stream, and the state that follows from it.

Every decision is made and stored under one lock; an append is guarded by the sequence of each aggregate that it
touches, so that a second agent by mistake can't write against an old state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

from bus import tracing
from bus.events import Conflict, EventStore, NewEvent, Recorded
from schemas.events import Event, OperationAccepted
from schemas.problems import CalqueError, Problem, temporary
from schemas.room import Fill
from schemas.subjects import outbox
from schemas.traces import Trace, operation_trace, parse
from schemas.values import AcceptedImages
from site_agent.adapters import measure
from site_agent.domain.repositories import NO_POLICY, Policy
from site_agent.domain.site import Draft, Site

logger = logging.getLogger(__name__)

Need = Literal["must", "may", "spare"]
"""``must``: it waits for room, and everything else with it. ``may``: it is given up when there is none. ``spare``: it
takes nothing of the room that is kept for operations that run."""
MAX_PAUSE_SECONDS = 5.0
CONFLICTS = 8
"""How often a decision is made anew before it is given up for now: a site has one agent, so this is another one."""


class Journal:
    """``site`` is the fold of the stream; it changes only here."""

    def __init__(
        self, store: EventStore, *, site: str, policy: Policy = NO_POLICY, images: AcceptedImages = "any"
    ) -> None:
        self.site = Site(site, policy=policy, images_accepted=images)
        self.room = Fill(site, outbox(site))
        """What is known of the room in the outbox; renewed by who looks at the site's condition."""
        self._store = store
        self._lock = asyncio.Lock()
        self._traces: dict[str, str] = {}

    def trace_of(self, operation: str) -> Trace | None:
        """The span of an operation; ``None`` when nobody records and no trace came with its command."""
        came = self._traces.get(operation)
        if tracing.recording():
            return operation_trace(operation, came)
        return parse(came)

    async def load(self) -> None:
        """Take in what the stream holds beyond what is known."""
        async for batch in self._store.replay(after=self.site.last_sequence):
            for recorded in batch:
                self._apply(recorded)

    async def recall(self, command: str) -> Event | None:
        """How ``command`` was decided, when that is so long ago that it is not remembered here any more: the stream
        remembers. ``None`` for one that is, or that was never decided. Raises :class:`CalqueError` (temporary)."""
        if not self.site.forgotten or command in self.site.handled:
            return None
        stored = await self._store.load("command", command)
        return next((one.event for one in stored if one.refused is None and isinstance(one.event, Event)), None)

    async def record(
        self,
        decide: Callable[[Site], list[Draft]],
        *,
        operation: str | None = None,
        causation: str | None = None,
        replyto: str | None = None,
        each: bool = False,
        need: Need = "must",
    ) -> list[Recorded]:
        """Store what ``decide`` makes of the present state, all or nothing, and return it.

        On a conflict the state is read again and decided anew. While the stream can't be reached this waits: a
        decision that is not stored has not been made. With ``each`` the events are of aggregates that have nothing to
        do with each other, and those of stopped ones are left out. ``need`` says what happens when the outbox is full.

        Raises :class:`CalqueError`: ``unknown_event`` when an aggregate is stopped; ``contended`` (temporary) when
        others were faster :data:`CONFLICTS` times; ``stream_full`` (temporary) unless this ``must`` be stored; what
        the store refuses for good.
        """
        if need == "spare" and self.room.low:
            raise CalqueError(self.room.problem())
        async with self._lock:
            pause = 0.05
            conflicts = 0
            while True:
                drafts = self._allowed(decide(self.site), each=each)
                if not drafts:
                    return []
                try:
                    stored = await self._append(drafts, operation=operation, causation=causation, replyto=replyto)
                except Conflict as conflict:
                    conflicts += 1
                    if conflicts >= CONFLICTS:
                        raise CalqueError(_contended(self.site.name, str(conflict))) from conflict
                    logger.warning("another writer was faster; reading the stream again")
                    await asyncio.sleep(pause * (conflicts - 1))
                    await self._reload()
                    continue
                except CalqueError as error:
                    if not error.problem.temporary or (need != "must" and error.problem.code == "stream_full"):
                        raise
                    logger.warning("the journal can't be written, trying again: %s", error)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, MAX_PAUSE_SECONDS)
                    await self._reload()
                    continue
                await self._take_in(stored)
                measure.stored(self.site, stored, self._traces)
                return stored

    async def _take_in(self, stored: list[Recorded]) -> None:
        """Apply what was stored. An append of an earlier run of this agent may have landed late, right before it: then
        all that is new is read, in its order, or it would never be known."""
        if stored[0].sequence > self.site.last_sequence + 1:
            pause = 0.05
            await self._reload()
            while self.site.last_sequence < stored[-1].sequence:
                await asyncio.sleep(pause)
                pause = min(pause * 2, MAX_PAUSE_SECONDS)
                await self._reload()
        for recorded in stored:
            self._apply(recorded)

    def _allowed(self, drafts: list[Draft], *, each: bool) -> list[Draft]:
        if each:
            return [draft for draft in drafts if (draft.aggregate, draft.id) not in self.site.stopped]
        if problem := self.site.stopped_at((draft.aggregate, draft.id) for draft in drafts):
            raise CalqueError(problem)
        return drafts

    async def _append(
        self, drafts: list[Draft], *, operation: str | None, causation: str | None, replyto: str | None
    ) -> list[Recorded]:
        events = [
            NewEvent(
                aggregate=draft.aggregate,
                id=draft.id,
                event=draft.event,
                operation=operation,
                causation=causation,
                replyto=replyto,
            )
            for draft in drafts
        ]
        touched = {(draft.aggregate, draft.id) for draft in drafts}
        expected = {key: self.site.sequences.get(key, 0) for key in touched}
        return await self._store.append(events, expected=expected)

    async def _reload(self) -> None:
        try:
            await self.load()
        except CalqueError as error:
            logger.warning("the journal can't be read: %s", error)

    def _apply(self, recorded: Recorded) -> None:
        if recorded.sequence <= self.site.last_sequence:
            return
        envelope = recorded.envelope
        if recorded.refused is not None:
            logger.error("event %s of %s is left out: %s", recorded.sequence, self.site.name, recorded.refused)
            self.site.passed(recorded.aggregate, recorded.id, sequence=recorded.sequence)
        elif isinstance(recorded.event, Event):
            self.site.apply(
                recorded.aggregate,
                recorded.id,
                recorded.event,
                time=envelope.time,
                sequence=recorded.sequence,
                causation=envelope.causationid,
            )
            if envelope.traceparent is not None and isinstance(recorded.event, OperationAccepted):
                self._traces[recorded.id] = envelope.traceparent
        else:
            logger.error(
                "%s %s is stopped: event %s is of type %s, which is not known to this agent",
                recorded.aggregate,
                recorded.id,
                recorded.sequence,
                envelope.type,
            )
            self.site.stop(recorded.aggregate, recorded.id, type=envelope.type, sequence=recorded.sequence)


def _contended(site: str, why: str) -> Problem:
    return temporary("contended", f"another writer to the stream of site {site} was faster {CONFLICTS} times: {why}")
