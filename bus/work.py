"""Work from a durable pull consumer: at least once, acknowledged only after the handler has returned.

The consumer is made in advance (``bus.streams``), and nothing is asked of the server but the next message and to take
an acknowledgement: a site may do no more on the hub's ``CMD``. While a handler runs, the server is told so. What a
handler refuses for good is copied to ``DLQ`` with the reason before it is taken off the queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import msgspec

from bus.connection import CONTENT_HEADERS, Bus, Message
from bus.dlq import DeadLetters, Unhandled
from bus.jetstream import NANOSECONDS, JetStream, Position, position
from bus.logs import RateLimitedLog
from bus.metrics import count
from bus.streams import ACK_WAIT_SECONDS
from schemas import metrics
from schemas.envelope import MAX_EVENT_BYTES, Envelope, encode
from schemas.problems import CalqueError, temporary
from schemas.sizes import oversized
from schemas.subjects import HUB, HUB_JETSTREAM

logger = logging.getLogger(__name__)

EXPIRES_SECONDS = 5.0
HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 2.5
FIRST_BACKOFF_SECONDS = 0.1
LAST_BACKOFF_SECONDS = 5.0
LAST_DELAY_SECONDS = 30.0
STOP_SECONDS = 20.0
SITE_PREFIX = HUB_JETSTREAM
"""The prefix under which a site's account imports its share of the hub's JetStream."""


class Later(CalqueError):
    """What a handler raises to have the message again after exactly ``seconds``, however often it came before."""

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__(temporary("unavailable", reason, retry_after_seconds=seconds))
        self.seconds = seconds


class Delivery(NamedTuple):
    """One message of a queue. ``delivered`` counts from 1; ``timestamp`` is when it was stored, in Unix seconds."""

    subject: str
    payload: bytes
    sequence: int
    delivered: int
    timestamp: float
    bus: Bus
    ack_subject: str
    headers: Mapping[str, str] | None = None

    async def in_progress(self) -> None:
        """Tell the server that the work goes on. The queue does so by itself while the handler runs."""
        await self.bus.send(self.ack_subject, b"+WPI")


class WorkQueue:
    """The durable ``consumer`` on ``stream``.

    ``max_deliveries`` bounds how often a message is tried (``None``: for ever); ``ack_wait_seconds`` is what the
    consumer was made with. ``prefix`` is where the stream's JetStream API is found: :data:`SITE_PREFIX` for ``CMD``.
    ``place`` is the site, or ``hub``, where this runs: its dead letters stay there.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        stream: str,
        consumer: str,
        prefix: str | None = None,
        max_deliveries: int | None = 20,
        ack_wait_seconds: float = ACK_WAIT_SECONDS,
        place: str = HUB,
    ) -> None:
        self._bus = bus
        self._letters = DeadLetters(bus, place=place)
        self._stream = stream
        self._consumer = consumer
        self._prefix = JetStream(bus, prefix=prefix).prefix
        self._max_deliveries = max_deliveries
        self._progress_seconds = ack_wait_seconds / 3
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._ended.set()
        self._log = RateLimitedLog(logger)

    async def run(self, handler: Callable[[Delivery], Awaitable[None]], *, concurrency: int = 8) -> None:
        """Handle messages until :meth:`stop` or cancellation, at most ``concurrency`` at once.

        The handler returns: acknowledged. It raises a temporary :class:`CalqueError`: tried again after its
        ``retry_after_seconds``, doubled each time up to 30 s. It raises anything else: dead letter.
        """
        self._ended.clear()
        backoff = FIRST_BACKOFF_SECONDS
        try:
            while not self._stopping.is_set():
                try:
                    if await self._pull(handler, concurrency):
                        backoff = FIRST_BACKOFF_SECONDS
                except CalqueError as error:
                    self._log.warning("pull", f"pulling from {self._stream}/{self._consumer}: {error}")
                if not self._stopping.is_set():
                    await self._pause(backoff)
                    backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)
            await self._finish(STOP_SECONDS)
        finally:
            await self._finish(0)
            self._ended.set()

    async def stop(self) -> None:
        """Take no more; returns when what is handled now has ended (or was given back, after 20 s)."""
        self._stopping.set()
        self._wake.set()
        await self._ended.wait()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _pull(self, handler: Callable[[Delivery], Awaitable[None]], concurrency: int) -> bool:
        """Pull into one inbox until something is wrong with it; says whether anything was right with it."""
        arrived: list[Message] = []
        fine = False
        reconnected = False
        loop = asyncio.get_running_loop()
        heard = loop.time()

        def sink(message: Message) -> None:
            nonlocal fine, heard
            heard = loop.time()
            if message.reply is None and message.status == "100":
                fine = True  # nothing to wake for: that the server is there
                return
            arrived.append(message)
            self._wake.set()

        def on_reconnect() -> None:
            nonlocal reconnected
            reconnected = True
            self._wake.set()

        await self._bus.wait_connected(EXPIRES_SECONDS)
        inbox = self._bus.new_inbox()
        forget = self._bus.on_reconnect(on_reconnect)
        subscription = await self._bus.listen(inbox, sink)
        outstanding = 0
        try:
            while not self._stopping.is_set():
                free = concurrency - len(self._running)
                if outstanding == 0 and free > 0:
                    await self._ask(inbox, free)
                    outstanding = free
                    heard = loop.time()
                try:
                    async with asyncio.timeout_at(heard + SILENCE_SECONDS if outstanding else None):
                        await self._wake.wait()
                except TimeoutError:
                    if loop.time() - heard >= SILENCE_SECONDS:
                        return fine
                self._wake.clear()
                messages, arrived[:] = arrived[:], []
                for message in messages:
                    if (
                        message.reply is not None
                    ):  # only what is stored has one; headers may be made to look like a status
                        fine = True
                        outstanding -= 1
                        self._begin(handler, message, position(message.reply))
                        continue
                    if message.status == "408":
                        fine = True
                        outstanding = 0
                        continue
                    description = (message.headers or {}).get("Description", "")
                    self._log.warning(
                        "status", f"pulling from {self._stream}/{self._consumer}: {message.status} {description}"
                    )
                    return fine
                if reconnected:
                    return True
            return fine
        finally:
            forget()
            await subscription.drop()
            for message in arrived:
                if message.reply is not None:
                    await self._reply(message.reply, b"-NAK")

    async def _ask(self, inbox: str, batch: int) -> None:
        request = (
            f'{{"batch":{batch},"expires":{int(EXPIRES_SECONDS * NANOSECONDS)},'
            f'"idle_heartbeat":{int(HEARTBEAT_SECONDS * NANOSECONDS)}}}'
        )
        await self._bus.send(
            f"{self._prefix}.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}", request.encode(), reply=inbox
        )

    def _begin(self, handler: Callable[[Delivery], Awaitable[None]], message: Message, at: Position) -> None:
        assert message.reply is not None
        delivery = Delivery(
            subject=message.subject,
            payload=message.payload,
            sequence=at.stream_sequence,
            delivered=at.delivered,
            timestamp=at.timestamp_ns / NANOSECONDS,
            bus=self._bus,
            ack_subject=message.reply,
            headers=message.headers,
        )
        task = asyncio.create_task(self._handle(handler, delivery), name=f"{self._stream}-{at.stream_sequence}")
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._wake.set()

    async def _handle(self, handler: Callable[[Delivery], Awaitable[None]], delivery: Delivery) -> None:
        progress: asyncio.Task[None] | None = None

        def takes_long() -> None:
            nonlocal progress
            progress = asyncio.create_task(self._tell_progress(delivery))

        later = asyncio.get_running_loop().call_later(self._progress_seconds, takes_long)
        try:
            if self._max_deliveries is not None and delivery.delivered > self._max_deliveries:
                # Its handler neither returned nor failed: most likely it took its process down, each time.
                await self._put_aside(delivery, "no_end", f"delivered {delivery.delivered} times without an end")
                return
            await handler(delivery)
            await self._reply(delivery.ack_subject, b"+ACK")
            self._count("done")
        except asyncio.CancelledError:
            await self._reply(delivery.ack_subject, b"-NAK")
            raise
        except CalqueError as error:
            tried_enough = self._max_deliveries is not None and delivery.delivered >= self._max_deliveries
            if error.problem.temporary and not tried_enough:
                await self._later(delivery, error)
            else:
                await self._put_aside(delivery, error.problem.code, str(error))
        except Exception as error:
            logger.exception("handling %s %d failed", self._stream, delivery.sequence)
            await self._put_aside(delivery, "internal", f"{type(error).__name__}: {error}")
        finally:
            later.cancel()
            if progress is not None:
                progress.cancel()

    async def _tell_progress(self, delivery: Delivery) -> None:
        while True:
            await self._reply(delivery.ack_subject, b"+WPI")
            await asyncio.sleep(self._progress_seconds)

    async def _later(self, delivery: Delivery, error: CalqueError) -> None:
        if isinstance(error, Later):
            seconds = error.seconds
        else:
            first = error.problem.retry_after_seconds or 1.0
            seconds = min(first * 2 ** min(delivery.delivered - 1, 10), max(LAST_DELAY_SECONDS, first))
        self._count("later")
        self._log.warning("later", f"{self._stream} {delivery.sequence}: {error}; again in {seconds:g} s")
        await self._reply(delivery.ack_subject, b'-NAK {"delay": %d}' % int(seconds * NANOSECONDS))

    async def _put_aside(self, delivery: Delivery, code: str, reason: str) -> None:
        failure = Unhandled(
            self._stream,
            self._consumer,
            delivery.sequence,
            delivery.subject,
            delivery.payload,
            code,
            reason,
            delivered=delivery.delivered,
            headers=delivery.headers,
        )
        try:
            await self._letters.bury(failure)
        except CalqueError as error:
            logger.warning("%s %d can't be put aside: %s", self._stream, delivery.sequence, error)
            await self._reply(delivery.ack_subject, b'-NAK {"delay": %d}' % int(LAST_BACKOFF_SECONDS * NANOSECONDS))
            return
        self._count("dead")
        count(metrics.DEAD_LETTERS, self._stream, self._consumer)
        logger.error("%s %d is a dead letter: %s: %s", self._stream, delivery.sequence, code, reason)
        await self._reply(delivery.ack_subject, b"+ACK")

    def _count(self, outcome: str) -> None:
        count(metrics.DELIVERIES, self._stream, self._consumer, outcome)

    async def _reply(self, subject: str, answer: bytes) -> None:
        try:
            await self._bus.send(subject, answer)
        except CalqueError as error:
            # Not acknowledged, it comes again: that is what at least once means.
            self._log.warning("ack", f"{self._stream}/{self._consumer}: {answer[:4]!r} was not sent: {error}")

    async def _finish(self, grace_seconds: float) -> None:
        if not self._running:
            return
        _, late = await asyncio.wait(set(self._running), timeout=grace_seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


async def enqueue(bus: Bus, subject: str, envelope: Envelope, *, timeout_seconds: float = 5.0) -> int:
    """Store a command in the stream that captures ``subject``; returns its sequence. The same id is stored once.

    Raises :class:`CalqueError`; after a ``timeout`` it may be stored: send it again, it has one effect.
    """
    headers = {**CONTENT_HEADERS, "Nats-Msg-Id": envelope.id}
    payload = encode(envelope)
    if len(payload) > MAX_EVENT_BYTES:
        what = f"the command {envelope.type}"
        raise CalqueError(
            oversized(msgspec.json.decode(envelope.data), what=what, size=len(payload), limit=MAX_EVENT_BYTES)
        )
    ack = await JetStream(bus).publish(subject, payload, headers=headers, timeout_seconds=timeout_seconds)
    return ack.seq
