"""Subscriptions: what is heard, apart from the connection that may be replaced underneath."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from bus.client import BusClient
from bus.messages import Message, Sink

logger = logging.getLogger(__name__)

PENDING_MESSAGES = 1 << 20
PENDING_BYTES = 512 << 20


class Subscription:
    """A subscription that lives on through reconnects. Its handler gets one message after another."""

    def __init__(
        self,
        *,
        subject: str,
        queue: str,
        deliver: Callable[[Msg], Awaitable[None]] | None = None,
        sink: Sink | None = None,
        forget: Callable[[Subscription], None],
    ) -> None:
        """Messages go to ``sink`` at once or, one after another, to ``deliver``."""
        assert (deliver is None) != (sink is None)
        self._forget = forget
        self._sink = sink
        self._client: BusClient | None = None
        self._subject = subject
        self._queue = queue
        self._deliver = deliver
        self._raw: NatsSubscription | None = None

    async def attach(self, client: BusClient) -> None:
        """Subscribe on ``client``; called again by the bus when it had to open a new connection."""
        self._client = client
        if self._sink is not None:
            self._raw = await client.hand_to(self._sink, subject=self._subject, queue=self._queue)
            return
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
        if raw is None or self._client is None:
            return
        if self._sink is not None and not drain:
            self._client.hand_no_more(raw)
        try:
            await (_untyped(raw).drain() if drain else raw.unsubscribe())
        except (nats_errors.Error, OSError) as error:
            logger.debug("unsubscribing from %s: %s", self._subject, error)
        if self._sink is not None and drain:
            self._client.hand_no_more(raw)


def _untyped(value: object) -> Any:
    """For the few calls of nats-py that carry no types."""
    return value


def message_of(raw: Msg) -> Message:
    """What nats-py delivered, as this room passes it on."""
    return Message(raw.subject, raw.data, raw.reply or None, raw.headers)
