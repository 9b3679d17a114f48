"""Small things that lie in a stream until somebody takes them away: looked at one by one, deleted by sequence."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from bus.connection import CONTENT_HEADERS
from bus.jetstream import CONSUMER_NOT_FOUND, NANOSECONDS, NO_MESSAGE, JetStream, JetStreamError
from bus.reader import Stored
from bus.streams import keep_stream


class Shelf:
    """One stream of such things."""

    def __init__(self, js: JetStream, stream: str) -> None:
        self._js = js
        self._stream = stream

    async def open(self, settings: Mapping[str, Any]) -> None:
        """Make the stream, or bring it to these settings."""
        await keep_stream(self._js, {"name": self._stream, **settings})

    async def put(self, subject: str, payload: bytes) -> int:
        """Lay something there; its sequence."""
        return (await self._js.publish(subject, payload, headers=CONTENT_HEADERS)).seq

    async def items(self, subject: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        """What lies there under ``subject`` (may have wildcards), oldest first."""
        while (found := await self.next(subject, after=after)) is not None:
            after = found.sequence
            yield found

    async def next(self, subject: str, *, after: int = 0) -> Stored | None:
        """The first thing under ``subject`` after a sequence."""
        message = await self._next(subject, after=after)
        if message is None:
            return None
        return Stored(int(message["seq"]), str(message["subject"]), base64.b64decode(message.get("data", "")))

    async def time_of_next(self, after: int) -> str | None:
        """When the first thing after a sequence was laid there (RFC 3339)."""
        message = await self._next(">", after=after)
        return str(message["time"]) if message is not None else None

    async def _next(self, subject: str, *, after: int) -> dict[str, Any] | None:
        try:
            answer = await self._js.call(f"STREAM.MSG.GET.{self._stream}", {"seq": after + 1, "next_by_subj": subject})
        except JetStreamError as error:
            if error.err_code == NO_MESSAGE:
                return None
            raise
        message: dict[str, Any] = answer["message"]
        return message

    async def count(self, subject: str) -> dict[str, int]:
        """How many things lie under each subject that ``subject`` takes in."""
        answer = await self._js.call(f"STREAM.INFO.{self._stream}", {"subjects_filter": subject})
        return {str(name): int(count) for name, count in (answer["state"].get("subjects") or {}).items()}

    async def take_away(self, sequence: int) -> None:
        """Delete one thing. Gone is done."""
        try:
            await self._js.call(f"STREAM.MSG.DELETE.{self._stream}", {"seq": sequence})
        except JetStreamError as error:
            if error.err_code not in (NO_MESSAGE, 10043, 10057):
                raise

    async def clear(self, subject: str) -> int:
        """Delete all under ``subject``; how many that were."""
        answer = await self._js.call(f"STREAM.PURGE.{self._stream}", {"filter": subject})
        return int(answer.get("purged", 0))


class Durables:
    """Durable pull consumers on one stream, by their names."""

    def __init__(self, js: JetStream, stream: str) -> None:
        self._js = js
        self._stream = stream

    async def ensure(self, name: str, config: Mapping[str, Any], *, ack_wait_seconds: float) -> None:
        """Make it unless it is there. Tries without end: who handles counts."""
        if await self.info(name) is not None:
            return
        whole = {
            "durable_name": name,
            "ack_policy": "explicit",
            "ack_wait": int(ack_wait_seconds * NANOSECONDS),
            "max_deliver": -1,
            **config,
        }
        operation = f"CONSUMER.DURABLE.CREATE.{self._stream}.{name}"
        await self._js.call(operation, {"stream_name": self._stream, "config": whole})

    async def info(self, name: str) -> dict[str, Any] | None:
        """``num_pending``, ``num_ack_pending``, ...; ``None`` if there is none."""
        try:
            return await self._js.call(f"CONSUMER.INFO.{self._stream}.{name}")
        except JetStreamError as error:
            if error.err_code == CONSUMER_NOT_FOUND:
                return None
            raise

    async def names(self, *, prefix: str) -> list[str]:
        """Those whose names begin so."""
        found: list[str] = []
        while True:
            answer = await self._js.call(f"CONSUMER.NAMES.{self._stream}", {"offset": len(found)})
            page = [str(name) for name in answer.get("consumers") or ()]
            found += page
            if not page or len(found) >= int(answer.get("total", 0)):
                return [name for name in found if name.startswith(prefix)]

    async def remove(self, name: str) -> None:
        """Remove it. Gone is done."""
        try:
            await self._js.call(f"CONSUMER.DELETE.{self._stream}.{name}")
        except JetStreamError as error:
            if error.err_code != CONSUMER_NOT_FOUND:
                raise
