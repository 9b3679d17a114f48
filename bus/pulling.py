"""Pulling from a consumer that keeps a place: in its order, acknowledged one by one, until something is wrong with it.

Unlike a `WorkQueue`, which hands out work in any order, this reads a stream of facts: whatever is lost on the way ends
the reading, and whoever reads has the consumer moved back and begins again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import NamedTuple

from bus.connection import Bus, Message
from bus.jetstream import NANOSECONDS, JetStream, position
from schemas.problems import CalqueError, temporary

EXPIRES_SECONDS = 5.0
HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 3.5
BATCH = 250
PULL_BYTES = 8 << 20
PULL_IS_OVER = ("Message Size Exceeds MaxBytes", "Batch Completed")


class Pulled(NamedTuple):
    """One stored message. ``delivered`` counts from 1; ``pending`` is how many come after it now."""

    sequence: int
    subject: str
    payload: bytes
    delivered: int
    pending: int
    ack_subject: str


class PullEnded(CalqueError):
    """Something was lost, or the connection broke: temporary, begin again."""

    def __init__(self, why: str) -> None:
        super().__init__(temporary("unavailable", f"reading was interrupted: {why}"))


class Pull:
    """Reads from the pull consumer ``consumer`` of ``stream``, which was just made, or moved back."""

    def __init__(self, bus: Bus, *, stream: str, consumer: str) -> None:
        self._bus = bus
        self._stream = stream
        self._consumer = consumer
        self._prefix = JetStream(bus).prefix
        self._delivered = 0
        """The last one that arrived, as the consumer counts."""

    async def read(self) -> AsyncGenerator[list[Pulled], None]:
        """Batches of messages, endless. Raises :class:`PullEnded`, or :class:`CalqueError` when it can't connect."""
        arrived: deque[Message] = deque()
        wake = asyncio.Event()
        reconnected = False

        def sink(message: Message) -> None:
            arrived.append(message)
            wake.set()

        def on_reconnect() -> None:
            nonlocal reconnected
            reconnected = True
            wake.set()

        await self._bus.wait_connected(EXPIRES_SECONDS)
        inbox = self._bus.new_inbox()
        forget = self._bus.on_reconnect(on_reconnect)
        subscription = await self._bus.listen(inbox, sink)
        outstanding = 0
        try:
            while True:
                while outstanding <= BATCH:
                    await self._ask(inbox)
                    outstanding += BATCH
                try:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        await wake.wait()
                except TimeoutError:
                    raise PullEnded(f"silence for {SILENCE_SECONDS:g} s") from None
                wake.clear()
                if reconnected:
                    raise PullEnded("reconnected")
                batch: list[Pulled] = []
                ended: str | None = None
                while arrived and ended is None:
                    message = arrived.popleft()
                    if message.reply is not None:
                        outstanding -= 1
                        ended = self._take(message, batch)
                        continue
                    over = self._status(message)
                    if isinstance(over, str):
                        ended = over
                    else:
                        outstanding -= over
                if batch:
                    yield batch
                if ended is not None:
                    raise PullEnded(ended)
        finally:
            forget()
            await subscription.drop()

    def _take(self, message: Message, batch: list[Pulled]) -> str | None:
        """Put the message into the batch; why that is not possible."""
        assert message.reply is not None
        at = position(message.reply)
        if at.delivered == 1 and at.consumer_sequence != self._delivered + 1:
            return "messages went elsewhere"
        self._delivered = max(self._delivered, at.consumer_sequence)
        batch.append(
            Pulled(at.stream_sequence, message.subject, message.payload, at.delivered, at.pending, message.reply)
        )
        return None

    def _status(self, message: Message) -> int | str:
        """How many messages of a pull will not come any more, or why the reading ends."""
        headers = message.headers or {}
        status, description = headers.get("Status"), headers.get("Description", "")
        if status == "100":
            last = headers.get("Nats-Last-Consumer")
            return 0 if last is None or int(last) <= self._delivered else "messages went elsewhere"
        if status == "408" or (status == "409" and description.startswith(PULL_IS_OVER)):
            return int(headers.get("Nats-Pending-Messages", "0"))
        return f"{status} {description}"

    async def _ask(self, inbox: str) -> None:
        request = (
            f'{{"batch":{BATCH},"max_bytes":{PULL_BYTES},"expires":{int(EXPIRES_SECONDS * NANOSECONDS)},'
            f'"idle_heartbeat":{int(HEARTBEAT_SECONDS * NANOSECONDS)}}}'
        )
        subject = f"{self._prefix}.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._bus.send(subject, request.encode(), reply=inbox)


async def acknowledge(bus: Bus, ack_subject: str) -> None:
    """Say that a message is done with. Lost on the way, it comes again. Raises :class:`CalqueError` (temporary)."""
    await bus.send(ack_subject, b"+ACK")
