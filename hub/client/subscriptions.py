"""Durable subscriptions: events one after the other, each acknowledged when the body that got it has ended.

    async with client.subscribe("billing", types=["image.saved"], start="first") as events:
        async for event in events:
            await charge(event.id, event.data)

At least once: an event whose body was not finished comes again, also after a crash, and so may some that were finished
when the connection broke; `id` is the same then. In the order of the record, without gaps. One reader at a time: who
opens a subscription takes over from whoever read it before, and that one gets a :class:`ConflictError`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from bus.connection import Bus
from bus.events import UnknownEvent
from bus.logs import RateLimitedLog
from bus.pulling import Pull, Pulled, PullEnded, acknowledge
from bus.records import Recorded, record
from hub.client.errors import HubUnreachableError
from schemas.envelope import Envelope
from schemas.events import Event
from schemas.ids import new_id
from schemas.problems import CalqueError
from schemas.subscriptions import Subscribe, SubscriptionPlace, SubscriptionView

logger = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.1
LAST_BACKOFF_SECONDS = 5.0

Open = Callable[[Subscribe], Awaitable[SubscriptionView]]
Takes = Callable[[Recorded], Awaitable[bool]]


class SubscribedEvent(NamedTuple):
    """One event of a subscription. ``delivered`` counts from 1: how often it was delivered so far."""

    recorded: Recorded
    delivered: int

    @property
    def id(self) -> str:
        """The same each time this event comes: keep the ids of what has an effect, to drop repeats."""
        return self.recorded.envelope.id

    @property
    def sequence(self) -> int:
        """Where it stands in the record."""
        return self.recorded.sequence

    @property
    def type(self) -> str:
        """Such as ``calque.event.image.saved.v1``."""
        return self.recorded.envelope.type

    @property
    def site(self) -> str:
        """The site that wrote it, or ``hub``."""
        return self.recorded.writer

    @property
    def aggregate(self) -> str:
        """The kind of thing that it is about, such as ``image``."""
        return self.recorded.aggregate

    @property
    def about(self) -> str:
        """The id of the thing that it is about."""
        return self.recorded.id

    @property
    def time(self) -> str:
        """When it was written, by the clock of its site (RFC 3339). Order is the sequence."""
        return self.recorded.envelope.time

    @property
    def envelope(self) -> Envelope:
        """The whole message."""
        return self.recorded.envelope

    @property
    def fact(self) -> Event | UnknownEvent:
        """What happened, typed; an event newer than this program is an :class:`UnknownEvent`."""
        return self.recorded.event

    @property
    def data(self) -> dict[str, Any]:
        """What happened, as JSON has it."""
        found: dict[str, Any] = msgspec.json.decode(self.recorded.envelope.data)
        return found


class Subscription:
    """An open subscription: an asynchronous context manager, and in it an asynchronous iterator of events."""

    def __init__(
        self,
        bus: Bus,
        *,
        ask: Open,
        request: Subscribe,
        follow: bool,
        filters: Callable[[Sequence[str]], Takes | None],
    ) -> None:
        self._bus = bus
        self._ask = ask
        self._request = msgspec.structs.replace(request, session=new_id())
        self._follow = follow
        self._filters = filters
        self._takes: Takes | None = None
        self._place: SubscriptionPlace | None = None
        self._events: AsyncGenerator[SubscribedEvent, None] | None = None
        self._last: Pulled | None = None
        self._given = 0
        self._log = RateLimitedLog(logger)

    @property
    def place(self) -> SubscriptionPlace:
        """The subscription as it was when it was opened."""
        if self._place is None:
            raise RuntimeError("open the subscription with 'async with' first")
        return self._place

    async def __aenter__(self) -> Self:
        """Open it. Raises :class:`ClientError`: invalid, conflict (other filters), forbidden, hub unreachable."""
        self._place = (await self._ask(self._request)).subscription
        self._takes = self._filters(self._place.apps)
        self._given = self._place.acknowledged
        self._events = self._read(self._place)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The body has ended: what it got last is acknowledged, unless it failed."""
        if self._events is not None:
            await self._events.aclose()
        if kind is None:
            await self._done()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SubscribedEvent:
        """The next event; the one before is acknowledged. Raises :class:`ConflictError` when another took over."""
        if self._events is None:
            raise RuntimeError("open the subscription with 'async with' first")
        await self._done()
        return await anext(self._events)

    async def _done(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            await self._acknowledge(last)

    async def _acknowledge(self, pulled: Pulled) -> None:
        try:
            await acknowledge(self._bus, pulled.ack_subject)
        except CalqueError as error:
            # It comes again: that is what at least once means.
            self._log.warning("ack", f"{self._request.name}: {pulled.sequence} is not acknowledged: {error}")

    async def _read(self, place: SubscriptionPlace) -> AsyncGenerator[SubscribedEvent, None]:
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            if not self._follow and not place.pending and not place.unacknowledged:
                return
            try:
                async with aclosing(Pull(self._bus, stream=place.stream, consumer=place.consumer).read()) as batches:
                    async for batch in batches:
                        backoff = FIRST_BACKOFF_SECONDS
                        waiting = deque(batch)
                        while waiting:
                            pulled = waiting.popleft()
                            if (event := await self._event(pulled)) is not None:
                                self._last = pulled
                                yield event
                            if not self._follow and not pulled.pending and not waiting:
                                return
            except PullEnded as error:
                self._log.warning("pull", f"{self._request.name}: {error}; going on behind {self._given}")
            except CalqueError as error:
                if not error.problem.temporary:
                    raise
                self._log.warning("pull", f"{self._request.name}: {error}; trying again")
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)
            place = await self._again(place)

    async def _again(self, place: SubscriptionPlace) -> SubscriptionPlace:
        """The place moved back to what is acknowledged; as it was while no hub answers."""
        request = msgspec.structs.replace(self._request, again=True, sites=None, types=None, apps=None)
        try:
            return (await self._ask(request)).subscription
        except HubUnreachableError as error:
            self._log.warning("open", f"{self._request.name}: {error}; trying again")
            return msgspec.structs.replace(place, unacknowledged=max(place.unacknowledged, 1))

    async def _event(self, pulled: Pulled) -> SubscribedEvent | None:
        """The event; ``None``, and acknowledged, when it is not wanted, was given before, or may not be believed."""
        recorded = record(sequence=pulled.sequence, subject=pulled.subject, payload=pulled.payload)
        if recorded.refused is not None:
            self._log.warning("refused", f"refused event {pulled.sequence}: {recorded.refused}")
        elif pulled.sequence > self._given and (self._takes is None or await self._takes(recorded)):
            self._given = pulled.sequence
            return SubscribedEvent(recorded, pulled.delivered)
        await self._acknowledge(pulled)
        return None


def moment(value: datetime | None) -> str | None:
    """A moment as a request has it (RFC 3339); raises ``ValueError`` for one without a time zone."""
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError("the time has no time zone")
    return value.isoformat()
