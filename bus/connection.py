"""A connection to NATS that heals: endless reconnects, a watchdog on the round trip, errors as problems.

nats-py stays behind this module. What it must be protected from: an exception in a callback of its read loop
leaves a connection that looks alive and hears nothing, so callbacks here never raise, and a watchdog measures
the round trip and opens a new connection, with all subscriptions, when there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from nats import errors as nats_errors
from nats.aio.msg import Msg

from bus import tracing
from bus.client import BusClient as Client
from bus.dialling import dial
from bus.ending import end
from bus.errors import forbidden, timed_out, too_large, unavailable
from bus.logs import RateLimitedLog
from bus.messages import Handler, Message, Sink
from bus.refusals import Refusals
from bus.replies import Replies
from bus.subscription import Subscription, message_of
from bus.traffic import Traffic, crossed
from schemas.envelope import CONTENT_TYPE, Envelope, decode, encode, timestamp, unwrap, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError, permanent
from schemas.signals import ProblemReply

T = TypeVar("T")

__all__ = ["Bus", "BusSettings", "Handler", "Message", "Sink", "Subscription", "Traffic"]

logger = logging.getLogger(__name__)

CONTENT_HEADERS = {"content-type": CONTENT_TYPE}
CLOSE_SECONDS = 5.0


class BusSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where and as whom to connect. ``jetstream_prefix`` is that of the account's own JetStream API.

    ``credentials_file`` is a ``.creds`` file, for servers in operator mode, in place of a seed.

    ``inbox_prefix`` is where replies go: one of its own keeps a user's replies from the others of its account.

    ``replicas`` is how many servers of a cluster keep each stream that is made over this connection.
    """

    servers: list[str]
    nkey_seed_file: str | None = None
    credentials_file: str | None = None
    name: str = "calque"
    jetstream_prefix: str = "$JS.API"
    inbox_prefix: str = "_INBOX"
    replicas: int = 1
    watchdog_seconds: float = 5.0


class Bus:
    """One connection. Made with :meth:`connect`, ended with :meth:`close`."""

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        self._client = Client()
        self._subscriptions: dict[Subscription, None] = {}
        self._listeners: dict[Callable[[], None], None] = {}
        self._connected = asyncio.Event()
        self._suspect = asyncio.Event()
        self._closing = False
        self._watchdog: asyncio.Task[None] | None = None
        self._faults = RateLimitedLog(logger)
        self._refusals = Refusals()
        self._past = Traffic(0, 0, 0, 0, 0)
        self._replies: Replies | None = None

    @classmethod
    async def connect(cls, settings: BusSettings, *, deadline_seconds: float = 30.0) -> Bus:
        """Connect before the deadline, then stay connected for ever.

        Raises :class:`CalqueError`: ``unreachable`` (temporary) or ``forbidden`` (credentials not accepted).
        """
        bus = cls(settings)
        bus._client = await bus._dial(deadline_seconds)
        bus._connected.set()
        bus._watchdog = asyncio.create_task(bus._watch(), name=f"bus-watchdog-{settings.name}")
        return bus

    async def close(self) -> None:
        """Handle what arrived, send what waits, and disconnect."""
        if self._closing:
            return
        self._closing = True
        if self._watchdog is not None:
            await end([self._watchdog])
        try:
            if self._client.is_connected:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._client.drain()
        except (nats_errors.Error, OSError, TimeoutError) as error:
            logger.debug("draining %s: %s", self.settings.name, error)
        await self._discard(self._client)
        self._connected.clear()

    # --- messages

    async def publish(self, subject: str, envelope: Envelope) -> None:
        """Send to whoever listens now; nothing is stored."""
        await self.send(subject, encode(envelope), headers=CONTENT_HEADERS)

    async def request(self, subject: str, envelope: Envelope, *, timeout_seconds: float) -> Envelope:
        """The reply to ``envelope``.

        Raises :class:`CalqueError`: ``unavailable`` when nobody listens, ``timeout``, or the problem replied.
        """
        reply = await self.call(subject, encode(envelope), headers=CONTENT_HEADERS, timeout_seconds=timeout_seconds)
        answer = decode(reply.payload)
        if answer.type == ProblemReply.TYPE:
            raise CalqueError(unwrap(answer, ProblemReply).problem)
        return answer

    async def ask(
        self,
        subject: str,
        data: msgspec.Struct,
        reply_type: type[T],
        *,
        source: str,
        timeout_seconds: float,
        operation: str | None = None,
    ) -> T:
        """Request with a Struct of the contract and get its reply; raises as :meth:`request` does."""
        envelope = wrap(
            data,
            id=new_id(),
            source=source,
            time=timestamp(datetime.now(UTC)),
            operationid=operation,
            subject=subject,
            traceparent=tracing.current(),
        )
        answer = await self.request(subject, envelope, timeout_seconds=timeout_seconds)
        expected = getattr(reply_type, "TYPE", None)
        if expected is not None and answer.type != expected:
            raise CalqueError(
                permanent("unexpected_reply", f"{subject} answered {answer.type}, not {expected}", field="type")
            )
        return unwrap(answer, reply_type)

    async def subscribe(self, subject: str, handler: Handler, *, queue: str | None = None) -> Subscription:
        """Call ``handler`` for each message, one after another; what it raises is logged.

        Returns when the server knows of it: whoever sends from now on, over any connection, is heard.
        """

        async def deliver(raw: Msg) -> None:
            try:
                await handler(message_of(raw))
            except Exception:
                logger.exception("handling a message on %s failed", raw.subject)

        subscription = Subscription(subject=subject, queue=queue or "", deliver=deliver, forget=self._forget)
        await self._attach(subscription)
        try:
            await self._client.flush()
        except (nats_errors.Error, OSError) as error:
            # Disconnected: the server is told at the reconnect.
            logger.debug("subscribing to %s: %s", subject, error)
        return subscription

    async def listen(self, subject: str, sink: Sink) -> Subscription:
        """Like :meth:`subscribe` for a plain function that can't wait: the fast way."""

        def safe(message: Message) -> None:
            try:
                sink(message)
            except Exception:
                logger.exception("handling a message on %s failed", message.subject)

        return await self._attach(Subscription(forget=self._forget, subject=subject, queue="", sink=safe))

    def new_inbox(self) -> str:
        """A subject for replies that nobody else has."""
        return self._client.new_inbox()

    # --- bytes, for the modules of this room

    async def send(
        self, subject: str, payload: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish bytes. Raises :class:`CalqueError`."""
        try:
            await self._client.publish(subject, payload, reply=reply, headers=dict(headers) if headers else None)
        except (nats_errors.Error, OSError) as error:
            raise self._problem(error, subject=subject, size=len(payload)) from error

    async def call(
        self, subject: str, payload: bytes, *, timeout_seconds: float, headers: Mapping[str, str] | None = None
    ) -> Message:
        """Publish bytes and wait for one reply. Raises :class:`CalqueError`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        # Sent while disconnected, a request would lie in a buffer and be carried out after its caller gave up.
        await self.wait_connected(timeout_seconds, subject=subject)
        replied: asyncio.Future[Message | None] = loop.create_future()

        def take(message: Message | None) -> None:
            if not replied.done():
                replied.set_result(message)

        replies = await self._replies_heard()
        inbox = replies.expect(take)
        try:
            async with asyncio.timeout_at(max(deadline, loop.time() + 0.001)) as limit:
                with self._refusals.watching(subject, limit):
                    await self.send(subject, payload, reply=inbox, headers=headers)
                    message = await replied
        except TimeoutError as error:
            if self._refusals.took(limit):
                raise forbidden(subject) from None
            raise timed_out(subject, seconds=timeout_seconds) from error
        finally:
            replies.forget(inbox)
        if message is None:
            raise unavailable(subject, "the connection broke")
        if message.status == "503" and not message.payload:
            raise unavailable(subject, "no responders")
        return message

    async def replies(
        self, subject: str, payload: bytes, *, gap_seconds: float, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Message, None]:
        """Every reply to one request, until ``gap_seconds`` pass without one, or nobody listens.

        Status messages of the server come through, except ``503`` (no responders), which ends it.
        """
        queue: asyncio.Queue[Message | None] = asyncio.Queue()
        replies = await self._replies_heard()
        inbox = replies.expect(queue.put_nowait)
        try:
            await self.send(subject, payload, reply=inbox, headers=headers)
            while True:
                try:
                    async with asyncio.timeout(gap_seconds):
                        message = await queue.get()
                except TimeoutError:
                    return
                if message is None or (message.status == "503" and not message.payload):
                    return
                yield message
        finally:
            replies.forget(inbox)

    async def _replies_heard(self) -> Replies:
        """What hears replies; subscribed to with the first request."""
        if self._replies is None:
            self._replies = Replies(self.new_inbox())
            try:
                await self.listen(self._replies.subject, self._replies.hear)
            except CalqueError:
                self._replies = None
                raise
        return self._replies

    async def wait_connected(self, timeout_seconds: float, *, subject: str = "the bus") -> None:
        """Return once connected. Raises :class:`CalqueError` ``unavailable`` after ``timeout_seconds``."""
        if self._connected.is_set():
            return
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._connected.wait()
        except TimeoutError:
            raise unavailable(subject, "disconnected from " + ", ".join(self.settings.servers)) from None

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._connected.is_set()

    @property
    def max_payload_bytes(self) -> int:
        """The biggest message that the server takes."""
        return self._client.max_payload

    def traffic(self) -> Traffic:
        """What has crossed this connection so far."""
        return self._past.with_more(crossed(self._client))

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have ``listener`` called after each reconnect; returns what ends that."""
        self._listeners[listener] = None
        return lambda: self._listeners.pop(listener, None)

    def _forget(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription, None)

    # --- staying alive

    async def _attach(self, subscription: Subscription) -> Subscription:
        try:
            await subscription.attach(self._client)
        except (nats_errors.Error, OSError) as error:
            raise self._problem(error, subject="a subscription", size=0) from error
        self._subscriptions[subscription] = None
        return subscription

    async def _dial(self, deadline_seconds: float) -> Client:
        return await dial(
            self.settings.servers,
            name=self.settings.name,
            nkey_seed_file=self.settings.nkey_seed_file,
            credentials_file=self.settings.credentials_file,
            inbox_prefix=self.settings.inbox_prefix,
            deadline_seconds=deadline_seconds,
            on_error=self._on_error,
            on_disconnected=self._on_disconnected,
            on_reconnected=self._on_reconnected,
            on_closed=self._on_closed,
        )

    async def _on_error(self, client: Client, error: Exception) -> None:
        if client is self._client and not self._closing:
            self._refusals.note(error)
            self._faults.warning(type(error).__name__, f"{self.settings.name}: {type(error).__name__}: {error}")

    async def _on_disconnected(self, client: Client) -> None:
        if client is self._client:
            self._connected.clear()
            self._cut()

    async def _on_reconnected(self, client: Client) -> None:
        if client is self._client:
            self._announce()

    async def _on_closed(self, client: Client) -> None:
        if client is self._client and not self._closing:
            self._connected.clear()
            self._suspect.set()

    def _cut(self) -> None:
        if self._replies is not None:
            self._replies.cut()

    def _announce(self) -> None:
        self._connected.set()
        for listener in list(self._listeners):
            try:
                listener()
            except Exception:
                logger.exception("a listener to reconnects failed")

    async def _watch(self) -> None:
        """Measure the round trip; open a new connection when there is none for longer than a reconnect takes."""
        period = self.settings.watchdog_seconds
        unhealthy = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(period):
                    await self._suspect.wait()
            self._suspect.clear()
            try:
                if await self._healthy(period):
                    unhealthy = 0
                    continue
                unhealthy += 1
                if self._client.is_closed or unhealthy >= 2:
                    await self._renew(period)
                    unhealthy = 0
            except CalqueError as error:
                self._faults.warning("renew", f"{self.settings.name}: {error}")
            except Exception:
                logger.exception("the watchdog of %s failed, and goes on", self.settings.name)

    async def _healthy(self, seconds: float) -> bool:
        if not self._client.is_connected:
            return False
        try:
            async with asyncio.timeout(seconds):
                await self._client.rtt()
        except (nats_errors.Error, OSError, TimeoutError, AssertionError) as error:
            self._faults.warning("rtt", f"{self.settings.name}: no round trip ({type(error).__name__})")
            return False
        return True

    async def _renew(self, seconds: float) -> None:
        client = await self._dial(seconds)
        old, self._client = self._client, client
        self._cut()
        self._past = self._past.with_more(crossed(old))
        await self._discard(old)
        for subscription in list(self._subscriptions):
            await subscription.attach(client)
        logger.warning("%s: opened a new connection", self.settings.name)
        self._announce()

    async def _discard(self, client: Client) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await client.close()
        except (nats_errors.Error, OSError, TimeoutError) as error:
            logger.debug("closing %s: %s", self.settings.name, error)

    def _problem(self, error: Exception, *, subject: str, size: int) -> CalqueError:
        if isinstance(error, nats_errors.MaxPayloadError):
            return too_large(subject, size=size, limit=self._client.max_payload)
        if isinstance(error, nats_errors.NoRespondersError):
            return unavailable(subject, "no responders")
        return unavailable(subject, type(error).__name__)
