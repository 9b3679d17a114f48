"""What is kept of deliveries: a log of attempts that ages out, and dead letters that wait for somebody."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from bus.jetstream import NANOSECONDS, JetStream
from bus.kept import Shelf
from bus.records import Recorded
from schemas.base import Fact
from schemas.problems import CalqueError
from schemas.webhooks import DeadLetter, DeliveryView

logger = logging.getLogger(__name__)

LOG, LOG_SUBJECT = "WEBHOOK_LOG", "calque.webhook.log"
DEAD, DEAD_SUBJECT = "WEBHOOK_DEAD", "calque.webhook.dead"
DAY = 24 * 3600 * NANOSECONDS
MIB = 1 << 20
MOST_ATTEMPTS_KEPT = 200


class _Buried(Fact, frozen=True, kw_only=True):
    """A dead letter as it is stored."""

    letter: DeadLetter
    subject: str
    event: msgspec.Raw


class Letter(NamedTuple):
    """A dead letter, where it lies, and the event as it was to be sent."""

    view: DeadLetter
    at: int
    subject: str
    body: bytes


class Ledger:
    """The two streams. A ``place`` in them is that of one webhook; a name that is used again has another."""

    def __init__(self, js: JetStream) -> None:
        self._log = Shelf(js, LOG)
        self._dead = Shelf(js, DEAD)

    async def open(self) -> None:
        """Make the streams."""
        await self._log.open(
            {
                "subjects": [f"{LOG_SUBJECT}.*.*"],
                "max_msgs_per_subject": MOST_ATTEMPTS_KEPT,
                "max_age": 7 * DAY,
                "max_bytes": 64 * MIB,
            }
        )
        await self._dead.open(
            {
                "subjects": [f"{DEAD_SUBJECT}.*.*.*"],
                "max_msgs_per_subject": 1,  # an event that is given up twice is one letter
                "max_age": 90 * DAY,
                "max_bytes": 256 * MIB,
                "discard": "new",
            }
        )

    async def note(self, place: str, delivery: DeliveryView) -> None:
        """Keep an attempt. Not a reason to fail it, when that is not possible."""
        try:
            await self._log.put(f"{LOG_SUBJECT}.{place}", msgspec.json.encode(delivery))
        except CalqueError as error:
            logger.warning("an attempt of webhook %s is not in its log: %s", delivery.webhook, error)

    async def attempts(self, place: str, *, limit: int) -> list[DeliveryView]:
        """The last attempts, newest last."""
        found: list[DeliveryView] = []
        async with aclosing(self._log.items(f"{LOG_SUBJECT}.{place}")) as items:
            async for item in items:
                found = [*found[-limit + 1 :], msgspec.json.decode(item.payload, type=DeliveryView)]
        return found

    async def bury(
        self,
        place: str,
        event: Recorded,
        *,
        webhook: str,
        body: bytes,
        subject: str,
        attempts: int,
        reason: str,
        at: str,
    ) -> None:
        """Keep an event that is given up. Raises :class:`CalqueError` when it can't be kept."""
        view = DeadLetter(
            webhook=webhook,
            sequence=event.sequence,
            event=event.envelope.id,
            type=event.envelope.type,
            attempts=attempts,
            reason=reason,
            at=at,
        )
        stored = _Buried(letter=view, subject=subject, event=msgspec.Raw(body))
        await self._dead.put(f"{DEAD_SUBJECT}.{place}.{event.sequence}", msgspec.json.encode(stored))

    async def letters(self, place: str) -> AsyncGenerator[Letter, None]:
        """The dead letters of one webhook, oldest first."""
        async with aclosing(self._dead.items(f"{DEAD_SUBJECT}.{place}.*")) as items:
            async for item in items:
                stored = msgspec.json.decode(item.payload, type=_Buried)
                yield Letter(stored.letter, item.sequence, stored.subject, bytes(stored.event))

    async def dead(self, place: str) -> int:
        """How many dead letters a webhook has."""
        return len(await self._dead.count(f"{DEAD_SUBJECT}.{place}.*"))

    async def take_away(self, letter: Letter) -> None:
        """The letter is delivered, or nobody wants it."""
        await self._dead.take_away(letter.at)

    async def keep_only(self, places: Collection[str]) -> None:
        """Forget all of webhooks that are gone."""
        logs = {subject.removeprefix(f"{LOG_SUBJECT}.") for subject in await self._log.count(f"{LOG_SUBJECT}.>")}
        letters = await self._dead.count(f"{DEAD_SUBJECT}.>")
        found = logs | {subject.removeprefix(f"{DEAD_SUBJECT}.").rpartition(".")[0] for subject in letters}
        for place in found - set(places):
            await self._log.clear(f"{LOG_SUBJECT}.{place}")
            await self._dead.clear(f"{DEAD_SUBJECT}.{place}.*")
