"""Messages and subscriptions: what is heard, apart from the connection that may be replaced underneath."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

logger = logging.getLogger(__name__)

PENDING_MESSAGES = 1 << 20
PENDING_BYTES = 512 << 20


class Message(NamedTuple):
    """A message as it came. ``headers`` is ``None`` when there were none."""

    subject: str
    payload: bytes
    reply: str | None
    headers: Mapping[str, str] | None = None

    @property
    def status(self) -> str | None:
        """The status of a control message of the server (``100``, ``404``, ``503``, ...)."""
        return self.headers.get("Status") if self.headers else None


Handler = Callable[[Message], Awaitable[None]]
Sink = Callable[[Message], None]


class Subscription:
    """A subscription that lives on through reconnects. Its handler gets one message after another."""

    def __init__(
        self,
        *,
        subject: str,
        queue: str,
        deliver: Callable[[Msg], Awaitable[None]],
        forget: Callable[[Subscription], None],
    ) -> None:
        self._forget = forget
        self._subject = subject
        self._queue = queue
        self._deliver = deliver
        self._raw: NatsSubscription | None = None

    async def attach(self, client: Client) -> None:
        """Subscribe on ``client``; called again by the bus when it had to open a new connection."""
        self._raw = await client.subscribe(
            self._subject,
            queue=self._queue,
            cb=self._deliver,
            pending_msgs_limit=PENDING_MESSAGES,
            pending_bytes_limit=PENDING_BYTES,
        )

    async def stop(self) -> None:
        """No new messages; returns when those that had arrived are handled."""
        await self._end(drain=True)

    async def drop(self) -> None:
        """No messages any more, also not those that had arrived."""
        await self._end(drain=False)

    async def _end(self, *, drain: bool) -> None:
        raw, self._raw = self._raw, None
        self._forget(self)
        if raw is None:
            return
        try:
            await (_untyped(raw).drain() if drain else raw.unsubscribe())
        except (nats_errors.Error, OSError) as error:
            logger.debug("unsubscribing from %s: %s", self._subject, error)


def _untyped(value: object) -> Any:
    """For the few calls of nats-py that carry no types."""
    return value


def message_of(raw: Msg) -> Message:
    """What nats-py delivered, as this room passes it on."""
    return Message(raw.subject, raw.data, raw.reply or None, raw.headers)
