"""Reading a stream in order from any sequence, without gaps and repeats, over reconnects and restarts.

A consumer without acknowledgements is made for the reader, and messages are pulled from it into a callback (the
quickest way that was measured). Whenever something was lost - a jump in the consumer's sequence, silence, a
reconnect - the reader makes a new consumer after the last message that it handed out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator
from typing import NamedTuple

from bus.connection import Bus, Message
from bus.jetstream import NANOSECONDS, NO_MESSAGE, JetStream, JetStreamError, nanoseconds, position, sequences
from bus.logs import RateLimitedLog
from schemas.ids import new_id
from schemas.problems import CalqueError

logger = logging.getLogger(__name__)

EXPIRES_SECONDS = 5.0
HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 2.5
INACTIVE_SECONDS = 60.0
PULL_BYTES = 32 << 20
FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 2.0
PULL_IS_OVER = ("Message Size Exceeds MaxBytes", "Batch Completed")


class Stored(NamedTuple):
    """One message as the stream holds it."""

    sequence: int
    subject: str
    payload: bytes


class StreamReplaced(Exception):
    """The stream is not the one that was read: what follows in it does not follow on what was handed out."""


class _Lost(Exception):
    """The consumer can't be trusted any more; a new one is made."""


class StreamReader:
    """Reads ``stream`` after a sequence; ``position`` is the last sequence handed out.

    Reading raises :class:`StreamReplaced` when the stream was deleted and made anew, or restored from a backup.
    """

    def __init__(
        self, bus: Bus, *, stream: str, after: int = 0, filter_subject: str | None = None, pull_messages: int = 5000
    ) -> None:
        self._bus = bus
        self._js = JetStream(bus)
        self._stream = stream
        self._filter = filter_subject
        self._pull = pull_messages
        self._log = RateLimitedLog(logger)
        self.position = after
        self._latest = ""
        """The reply subject of the last message handed out: it says when the server had stored it."""

    async def read(self) -> AsyncGenerator[list[Stored], None]:
        """Batches of messages, endless. Waits, and logs, while the stream can't be reached."""
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            try:
                async for batch in self._read_one_consumer():
                    backoff = FIRST_BACKOFF_SECONDS
                    yield batch
            except (_Lost, CalqueError) as error:
                self._log.warning("lost", f"reading {self._stream} after {self.position}: {error}; trying again")
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)

    async def _read_one_consumer(self) -> AsyncGenerator[list[Stored], None]:
        name = f"reader-{new_id()}"
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
        try:
            await self._create(name)
            await self._check_same()
            outstanding = 0
            consumed = 0
            while True:
                while outstanding <= self._pull:
                    await self._ask(name, inbox)
                    outstanding += self._pull
                try:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        await wake.wait()
                except TimeoutError:
                    raise _Lost(f"silence for {SILENCE_SECONDS:g} s") from None
                wake.clear()
                if reconnected:
                    raise _Lost("reconnected")
                batch: list[Stored] = []
                lost: str | None = None
                while arrived:
                    message = arrived.popleft()
                    if message.reply is None:
                        ended = _ended(message, consumed)
                        if isinstance(ended, str):
                            lost = ended
                            break
                        outstanding -= ended
                        continue
                    sequence, number = sequences(message.reply)
                    consumed += 1
                    outstanding -= 1
                    if number != consumed:
                        lost = f"{number - consumed} messages were dropped"
                        break
                    batch.append(Stored(sequence, message.subject, message.payload))
                    latest = message.reply
                if batch:
                    self.position, self._latest = batch[-1].sequence, latest
                    yield batch
                if lost is not None:
                    raise _Lost(lost)
        finally:
            forget()
            await subscription.drop()
            await self._delete(name)

    async def _create(self, name: str) -> None:
        config: dict[str, object] = {
            "name": name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.position + 1,
            "ack_policy": "none",
            "mem_storage": True,
            "inactive_threshold": int(INACTIVE_SECONDS * NANOSECONDS),
            "num_replicas": 1,
        }
        operation = f"CONSUMER.CREATE.{self._stream}.{name}"
        if self._filter is not None:
            config["filter_subject"] = self._filter
            operation += f".{self._filter}"
        await self._js.call(operation, {"stream_name": self._stream, "config": config, "action": "create"})

    async def _check_same(self) -> None:
        """Raise :class:`StreamReplaced` unless the last message lies where it was, stored when it was.

        A consumer goes with its stream, so this is looked at before anything is read of another stream.
        """
        if not self._latest:
            return
        try:
            answer = await self._js.call(f"STREAM.MSG.GET.{self._stream}", {"seq": self.position})
        except JetStreamError as error:
            if error.err_code != NO_MESSAGE:
                raise
            state = (await self._js.call(f"STREAM.INFO.{self._stream}"))["state"]
            same = int(state["first_seq"]) > self.position  # it was trimmed, what is behind it is still the same
        else:
            same = nanoseconds(answer["message"]["time"]) == position(self._latest).timestamp_ns
        if not same:
            raise StreamReplaced(f"{self._stream} is not the stream that was read up to {self.position}")

    async def _ask(self, name: str, inbox: str) -> None:
        request = (
            f'{{"batch":{self._pull},"max_bytes":{PULL_BYTES},"expires":{int(EXPIRES_SECONDS * NANOSECONDS)},'
            f'"idle_heartbeat":{int(HEARTBEAT_SECONDS * NANOSECONDS)}}}'
        )
        await self._bus.send(
            f"{self._js.prefix}.CONSUMER.MSG.NEXT.{self._stream}.{name}", request.encode(), reply=inbox
        )

    async def _delete(self, name: str) -> None:
        if not self._bus.is_connected:
            return  # it ends by itself when nobody pulls
        try:
            await self._bus.send(f"{self._js.prefix}.CONSUMER.DELETE.{self._stream}.{name}", b"")
        except CalqueError as error:
            logger.debug("deleting consumer %s: %s", name, error)


def _ended(message: Message, consumed: int) -> int | str:
    """How many messages of a pull will not come any more, or why the consumer is lost."""
    headers = message.headers or {}
    status, description = headers.get("Status"), headers.get("Description", "")
    if status == "100":
        last = headers.get("Nats-Last-Consumer")
        return 0 if last is None or int(last) == consumed else f"{int(last) - consumed} messages were dropped"
    if status == "408" or (status == "409" and description.startswith(PULL_IS_OVER)):
        return int(headers.get("Nats-Pending-Messages", "0"))
    return f"{status} {description}"
