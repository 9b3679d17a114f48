"""Which webhooks there are, folded from the record and followed from there on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import NamedTuple

from bus.connection import Bus
from bus.feed import EventsFeed
from bus.jetstream import JetStream
from bus.kept import Shelf
from bus.records import Recorded, record
from bus.streams import EVENTS
from hub.domain.webhook import Webhook, evolve
from schemas.envelope import parse_timestamp
from schemas.events import Event, WebhookAdded, WebhookReplayed
from schemas.webhooks import StartAt

SUBJECT = "calque.evt.hub.webhook.>"


class Definition(NamedTuple):
    """A webhook and where in the record its deliveries begin."""

    name: str
    webhook: Webhook
    start: StartAt

    @property
    def consumer(self) -> str:
        """Its durable consumer; another one for each beginning, and for a name that is used again."""
        return f"{CONSUMERS}{self.name}-{self.webhook.key[-12:]}-{self.webhook.generation}"

    @property
    def place(self) -> str:
        """Where what is kept of it lies; another one for a name that is used again."""
        return f"{self.name}.{self.webhook.key[-12:]}"


CONSUMERS = "webhook-"


class Registry:
    """The definitions by name."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._position = 0
        self.definitions: dict[str, Definition] = {}

    async def load(self) -> None:
        """All that the record says now, from where it was read before."""
        async with aclosing(Shelf(JetStream(self._bus), EVENTS).items(SUBJECT, after=self._position)) as items:
            async for item in items:
                self._apply([record(sequence=item.sequence, subject=item.subject, payload=item.payload)])

    async def changes(self) -> AsyncGenerator[None, None]:
        """Something each time that the definitions have changed. Endless."""
        reading = EventsFeed(self._bus).read(after=self._position, filter_subject=SUBJECT)
        async with aclosing(reading) as batches:
            async for batch in batches:
                if batch:
                    self._apply(batch)
                    yield None

    def _apply(self, batch: Iterable[Recorded]) -> None:
        for each in batch:
            if each.sequence <= self._position:
                continue
            self._position = each.sequence
            if each.refused is None and isinstance(each.event, Event):
                self._event(each, each.event)

    def _event(self, recorded: Recorded, event: Event) -> None:
        before = self.definitions.get(recorded.id)
        state = evolve(
            before.webhook if before else None,
            event,
            key=recorded.envelope.causationid or "",
            at=_unix(recorded.envelope.time),
        )
        if state is None:
            self.definitions.pop(recorded.id, None)
            return
        begins = isinstance(event, (WebhookAdded, WebhookReplayed))
        start = (state.start or StartAt(after=recorded.sequence)) if begins or before is None else before.start
        self.definitions[recorded.id] = Definition(recorded.id, state, start)


def _unix(text: str) -> float:
    try:
        return parse_timestamp(text).timestamp()
    except ValueError:
        return 0.0
