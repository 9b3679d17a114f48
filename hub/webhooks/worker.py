"""Delivers the events of one webhook, one after the other, from its durable consumer.

An event that fails is put back for later and the next one is tried: order is kept as long as nothing fails. A receiver
that fails again and again is left alone for a while between two tries. No webhook waits for another.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from bus.connection import Bus
from bus.records import Recorded, record
from bus.streams import EVENTS
from bus.work import Delivery, Later, WorkQueue
from hub.webhooks import schedule
from hub.webhooks.filters import wants
from hub.webhooks.ledger import Ledger
from hub.webhooks.origins import Origins
from hub.webhooks.registry import Definition
from hub.webhooks.sending import Result, Sender
from schemas.envelope import timestamp
from schemas.secrets import Secret
from schemas.webhooks import DeliveryView

logger = logging.getLogger(__name__)

ACK_WAIT_SECONDS = 10.0
"""What a killed process had under way is delivered again after this time."""
GONE_SECONDS = 30.0


class Delays:
    """How long to wait between tries, in seconds."""

    def __init__(self, *, first: float, longest: float) -> None:
        self.first = first
        self.longest = longest


class Worker:
    """One webhook at work. ``gone`` is told when the receiver wants nothing any more."""

    def __init__(
        self,
        definition: Definition,
        *,
        bus: Bus,
        sender: Sender,
        secrets: Callable[[], Sequence[Secret]],
        ledger: Ledger,
        origins: Origins,
        delays: Delays,
        gone: Callable[[Definition, str], Awaitable[None]],
    ) -> None:
        self.definition = definition
        self._sender = sender
        self._secrets = secrets
        self._ledger = ledger
        self._origins = origins
        self._delays = delays
        self._gone = gone
        self._failures = 0
        self._queue = WorkQueue(
            bus,
            stream=EVENTS,
            consumer=definition.consumer,
            max_deliveries=None,
            ack_wait_seconds=ACK_WAIT_SECONDS,
        )

    async def run(self) -> None:
        """Deliver until cancelled; what is under way then is delivered again."""
        await self._queue.run(self._handle, concurrency=1)

    async def send(self, *, id: str, body: bytes) -> Result:
        """One attempt, whatever becomes of it."""
        spec = self.definition.webhook.spec
        return await self._sender.send(
            spec.url, id=id, body=body, secrets=self._secrets(), timeout_seconds=spec.timeout_seconds
        )

    async def _handle(self, delivery: Delivery) -> None:
        event = record(sequence=delivery.sequence, subject=delivery.subject, payload=delivery.payload)
        if event.refused is not None or not await self._wanted(event):
            return
        await asyncio.sleep(schedule.pause_seconds(self._failures, first=self._delays.first))
        result = await self.send(id=event.envelope.id, body=delivery.payload)
        if result.delivered:
            self._failures = 0
            await self._note(event, delivery.delivered, result, "delivered")
            return
        self._failures += 1
        if result.gone:
            await self._note(event, delivery.delivered, result, "failed")
            await self._gone(self.definition, "the receiver answered 410 Gone")
            raise Later(GONE_SECONDS, "the receiver is gone")
        if delivery.delivered >= self.definition.webhook.spec.attempts:
            await self._bury(event, delivery, result)
            return
        seconds = schedule.delay_seconds(
            delivery.delivered,
            first=self._delays.first,
            longest=self._delays.longest,
            dice=random.random(),  # noqa: S311 - spreads tries apart, keeps no secret
            asked=result.asked,
        )
        await self._note(event, delivery.delivered, result, "failed", again=seconds)
        raise Later(seconds, f"webhook {self.definition.name}: {said(result)}")

    async def _wanted(self, event: Recorded) -> bool:
        spec = self.definition.webhook.spec
        if not wants(spec, event):
            return False
        return not spec.apps or bool(set(spec.apps) & await self._origins.apps(event))

    async def _bury(self, event: Recorded, delivery: Delivery, result: Result) -> None:
        await self._ledger.bury(
            self.definition.place,
            event,
            webhook=self.definition.name,
            body=delivery.payload,
            subject=delivery.subject,
            attempts=delivery.delivered,
            reason=said(result),
            at=timestamp(datetime.now(UTC)),
        )
        await self._note(event, delivery.delivered, result, "dead")
        logger.warning("webhook %s: event %d is a dead letter: %s", self.definition.name, event.sequence, said(result))

    async def _note(
        self, event: Recorded, attempt: int, result: Result, outcome: str, *, again: float | None = None
    ) -> None:
        await self._ledger.note(
            self.definition.place,
            view(
                self.definition.name,
                event=event.envelope.id,
                type=event.envelope.type,
                sequence=event.sequence,
                attempt=attempt,
                result=result,
                outcome=outcome,
                again=again,
            ),
        )


def said(result: Result) -> str:
    """Why it failed, in few words."""
    return " ".join(str(part) for part in (result.status, result.message) if part) or "no answer"


def view(
    webhook: str,
    *,
    event: str,
    type: str,
    sequence: int,
    attempt: int,
    result: Result,
    outcome: str,
    again: float | None = None,
) -> DeliveryView:
    """An attempt as it is shown."""
    now = datetime.now(UTC)
    return DeliveryView(
        webhook=webhook,
        event=event,
        type=type,
        sequence=sequence,
        attempt=attempt,
        at=timestamp(now),
        outcome="delivered" if outcome == "delivered" else "dead" if outcome == "dead" else "failed",
        status=result.status,
        message=result.message,
        seconds=result.seconds,
        again_at=timestamp(now + timedelta(seconds=again)) if again is not None else None,
    )
