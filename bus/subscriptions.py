"""Pull consumers on ``EVENTS`` that keep a place in the record for somebody: made, found, removed.

What a subscription is called and whose it is stands in the consumer's metadata; consumers have the names that the
credential of their principal holds (`schemas.subjects.subscription_consumers`). There is no other record of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from bus.connection import Bus
from bus.jetstream import CONSUMER_NOT_FOUND, NANOSECONDS, JetStream, JetStreamError
from schemas.subscriptions import STREAM

ACK_WAIT_SECONDS = 30
MOST_UNACKNOWLEDGED = 1000
_PREFIX = "calque."
_NAME_IN_USE = frozenset({10013, 10105, 10148})


class Place(NamedTuple):
    """A consumer as it is: its name, our notes in its metadata, what the server says of it."""

    consumer: str
    notes: Mapping[str, str]
    info: dict[str, Any]

    @property
    def acknowledged(self) -> int:
        """The sequence up to which all was acknowledged."""
        return int(self.info["ack_floor"]["stream_seq"])

    @property
    def made(self) -> str:
        """When the server made it: the later of two is greater."""
        return str(self.info["created"])


class Places:
    """The consumers of subscriptions on ``EVENTS``."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._js = JetStream(bus)

    async def all(self) -> list[Place]:
        """Every one of them. Raises :class:`CalqueError`."""
        found: list[Place] = []
        offset = 0
        while True:
            page = await self._js.call(f"CONSUMER.LIST.{STREAM}", {"offset": offset})
            consumers: list[dict[str, Any]] = page.get("consumers") or []
            found += [place for place in map(_place, consumers) if place.notes]
            offset += len(consumers)
            if not consumers or offset >= int(page.get("total", 0)):
                return found

    async def create(
        self, consumer: str, *, after: int, filters: Sequence[str], notes: Mapping[str, str]
    ) -> Place | None:
        """A new one that begins behind the sequence ``after``; ``None`` when the name is in use."""
        config: dict[str, object] = {
            "durable_name": consumer,
            "name": consumer,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "ack_policy": "explicit",
            "ack_wait": ACK_WAIT_SECONDS * NANOSECONDS,
            "max_ack_pending": MOST_UNACKNOWLEDGED,
            "max_deliver": -1,
            "filter_subjects": list(filters),
            "metadata": {_PREFIX + key: value for key, value in notes.items()},
        }
        request = {"stream_name": STREAM, "config": config, "action": "create"}
        try:
            return _place(await self._js.call(f"CONSUMER.CREATE.{STREAM}.{consumer}", request))
        except JetStreamError as error:
            if error.err_code in _NAME_IN_USE:
                return None
            raise

    async def remove(self, consumer: str) -> bool:
        """Whether there was one to remove."""
        try:
            await self._js.call(f"CONSUMER.DELETE.{STREAM}.{consumer}")
        except JetStreamError as error:
            if error.err_code == CONSUMER_NOT_FOUND:
                return False
            raise
        return True

    async def last_sequence(self) -> int:
        """The sequence of the last event."""
        return await self._js.last_sequence(STREAM)

    async def last_before(self, time: str) -> int:
        """The sequence before the first event that was stored at ``time`` (RFC 3339) or later."""
        subject = f"{self._js.prefix}.DIRECT.GET.{STREAM}"
        request = msgspec.json.encode({"start_time": time, "batch": 1, "next_by_subj": ">"})
        found: int | None = None
        replies = self._bus.replies(subject, request, gap_seconds=5.0)
        try:
            async for message in replies:
                headers = message.headers or {}
                if "Nats-Sequence" in headers:
                    found = int(headers["Nats-Sequence"])
                break
        finally:
            await replies.aclose()
        return found - 1 if found is not None else await self.last_sequence()


def _place(info: dict[str, Any]) -> Place:
    metadata: dict[str, str] = info["config"].get("metadata") or {}
    notes = {key.removeprefix(_PREFIX): value for key, value in metadata.items() if key.startswith(_PREFIX)}
    return Place(info["name"], notes, info)
