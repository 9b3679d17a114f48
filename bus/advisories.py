"""What a server has given up delivering, or was told to, becomes a dead letter: nothing ends without a trace.

Consumers of ours try without end (``bus.work`` counts), so this is about those that others made or changed. The server
says so in an advisory, which ``ADV`` stores. The message stays in its stream; from a work queue it is taken when it is
a letter, since nobody would get it any more.
"""

from __future__ import annotations

import base64
import logging
from typing import Any

import msgspec

from bus.connection import Bus
from bus.dlq import DeadLetters, Unhandled
from bus.jetstream import JetStream, JetStreamError
from bus.work import Delivery
from schemas.base import Fact
from schemas.unreadable import UNREADABLE

logger = logging.getLogger(__name__)

_GONE = (10037, 10043, 10057, 10059)


class Advisory(Fact, frozen=True, kw_only=True):
    """``io.nats.jetstream.advisory.v1.max_deliver`` and ``...terminated``."""

    type: str
    stream: str
    consumer: str
    stream_seq: int
    deliveries: int = 0
    reason: str = ""


class Advisories:
    """Handles deliveries from ``ADV`` at ``place``."""

    def __init__(self, bus: Bus, *, place: str) -> None:
        self._js = JetStream(bus)
        self._letters = DeadLetters(bus, place=place)

    async def handle(self, delivery: Delivery) -> None:
        """One advisory. Raises :class:`schemas.problems.CalqueError` to have it again."""
        try:
            said = msgspec.json.decode(delivery.payload, type=Advisory)
        except UNREADABLE as error:
            logger.warning("an advisory on %s can't be read: %s", delivery.subject, error)
            return
        message = await self._message(said)
        if message is None:
            logger.warning("%s %d was given up, and is gone: %s", said.stream, said.stream_seq, said.type)
            return
        reason = said.reason or f"consumer {said.consumer} gave it up after {said.deliveries} deliveries"
        await self._letters.bury(
            Unhandled(
                said.stream,
                said.consumer,
                said.stream_seq,
                str(message["subject"]),
                base64.b64decode(message.get("data", "")),
                "terminated" if said.type.endswith(".terminated") else "max_deliveries",
                reason,
                delivered=said.deliveries,
            )
        )
        info = await self._js.stream(said.stream)
        if info is not None and info["config"].get("retention") == "workqueue":
            await self._take_away(said)

    async def _message(self, said: Advisory) -> dict[str, Any] | None:
        try:
            answer = await self._js.call(f"STREAM.MSG.GET.{said.stream}", {"seq": said.stream_seq})
        except JetStreamError as error:
            if error.err_code in _GONE:
                return None
            raise
        message: dict[str, Any] = answer["message"]
        return message

    async def _take_away(self, said: Advisory) -> None:
        try:
            await self._js.call(f"STREAM.MSG.DELETE.{said.stream}", {"seq": said.stream_seq})
        except JetStreamError as error:
            if error.err_code not in _GONE:
                raise
