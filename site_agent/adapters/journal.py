"""The site's journal: its own event stream, and the state that follows from it.

Every decision is made and stored under one lock; an append is guarded by the sequence of each aggregate that it
touches, so that a second agent by mistake can't write against an old state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bus.events import Conflict, EventStore, NewEvent, Recorded
from schemas.events import Event
from schemas.problems import CalqueError
from site_agent.domain.repositories import NO_POLICY, Policy
from site_agent.domain.site import Draft, Site

logger = logging.getLogger(__name__)

MAX_PAUSE_SECONDS = 5.0


class Journal:
    """``site`` is the fold of the stream; it changes only here."""

    def __init__(self, store: EventStore, *, site: str, policy: Policy = NO_POLICY) -> None:
        self.site = Site(site, policy=policy)
        self._store = store
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Take in what the stream holds beyond what is known."""
        async for batch in self._store.replay(after=self.site.last_sequence):
            for recorded in batch:
                self._apply(recorded)

    async def record(
        self,
        decide: Callable[[Site], list[Draft]],
        *,
        operation: str | None = None,
        causation: str | None = None,
        replyto: str | None = None,
    ) -> list[Recorded]:
        """Store what ``decide`` makes of the present state, all or nothing, and return it.

        On a conflict the state is read again and decided anew. While the stream can't be reached this waits: a
        decision that is not stored has not been made.
        """
        async with self._lock:
            pause = 0.05
            while True:
                drafts = decide(self.site)
                if not drafts:
                    return []
                try:
                    stored = await self._append(drafts, operation=operation, causation=causation, replyto=replyto)
                except Conflict:
                    logger.warning("another writer was faster; reading the stream again")
                    await self._reload()
                    continue
                except CalqueError as error:
                    if not error.problem.temporary:
                        raise
                    logger.warning("the journal can't be written, trying again: %s", error)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, MAX_PAUSE_SECONDS)
                    await self._reload()
                    continue
                for recorded in stored:
                    self._apply(recorded)
                return stored

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
        if isinstance(recorded.event, Event):
            self.site.apply(
                recorded.aggregate,
                recorded.id,
                recorded.event,
                time=envelope.time,
                sequence=recorded.sequence,
                causation=envelope.causationid,
            )
        else:
            logger.error("event %s of type %s is not known to this agent", recorded.sequence, envelope.type)
            self.site.sequences[(recorded.aggregate, recorded.id)] = recorded.sequence
