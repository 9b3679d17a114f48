"""Reading what a stream holds as quickly as it comes: blocking, in the thread that also makes something of it.

For catching up only. It reads to the end that the stream had at the beginning and stops; from there on
:class:`bus.reader.StreamReader` follows. Position is a sequence of the stream, so what one has read the other goes on
behind, without a gap or a repeat.

A consumer without acknowledgements is pulled from, and every message must be the next of that consumer. At any doubt -
another number, an error of the server, silence, an end of the connection - reading begins anew, on a new connection
with a new consumer, behind the last message that was handed out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing

import msgspec

from bus.connection import BusSettings
from bus.jetstream import NANOSECONDS
from bus.reader import StreamReplaced
from bus.sockets import BlockingConnection, ConnectionLost, publish
from schemas.ids import new_id
from schemas.unreadable import UNREADABLE

logger = logging.getLogger(__name__)

PULL_MESSAGES = 10_000
PULLS = 3
PULL_BYTES = 16 << 20
"""Three pulls of this size stay below what the server lets a slow reader have pending (64 MiB)."""
EXPIRES_SECONDS = 30.0
HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 5.0
INACTIVE_SECONDS = 10.0
FRUITLESS_ATTEMPTS = 3
MESSAGE = (b"HMSG", b"MSG")
PULL_IS_OVER = (b"Message Size Exceeds MaxBytes", b"Batch Completed")

Taken = tuple[int, str, bytes]
"""Sequence, subject and payload of a stored message."""


class _State(msgspec.Struct):
    first_seq: int
    last_seq: int


class _Answer(msgspec.Struct):
    state: _State | None = None
    created: str = ""
    num_pending: int = 0
    error: object = None


class Drain:
    """Reads ``stream`` behind ``after``, to its present end or to the sequence ``until`` when that comes first.

    ``position`` is the last sequence handed out; ``complete`` whether the end was reached."""

    def __init__(self, settings: BusSettings, *, stream: str, after: int = 0, until: int | None = None) -> None:
        self._settings = settings
        self._stream = stream
        self._until = until
        self._stopped = threading.Event()
        self._reading: _Reading | None = None
        self.position = after
        self.complete = False

    def read(self) -> Iterator[list[Taken]]:
        """Batches of messages in order. Ends when all are read, when it is stopped, or when several attempts in a row
        came to nothing: see ``complete``. Blocks; for a thread of its own. Raises :class:`StreamReplaced`."""
        fruitless = 0
        last: int | None = None
        until, created = self._until, ""
        while fruitless < FRUITLESS_ATTEMPTS and not self._stopped.is_set():
            before = self.position
            try:
                with closing(_Reading(self._settings, self._stream, after=before)) as self._reading:
                    if created not in ("", self._reading.created):
                        raise StreamReplaced(f"{self._stream} is not the stream that was read up to {self.position}")
                    created = self._reading.created
                    if last is None:
                        last = self._reading.last if until is None else min(until, self._reading.last)
                    for batch in self._reading.batches(last):
                        if batch[-1][0] > last and until is not None:
                            batch = [each for each in batch if each[0] <= last]
                            if not batch:
                                break
                        self.position = batch[-1][0]
                        yield batch
                        if self._stopped.is_set():
                            return
                    self.complete = True
                    return
            except ConnectionLost as error:
                if not self._stopped.is_set():
                    logger.warning("reading %s behind %d: %s; beginning anew", self._stream, self.position, error)
            fruitless = fruitless + 1 if self.position == before else 0

    def stop(self) -> None:
        """Have :meth:`read` end soon; from another thread."""
        self._stopped.set()
        if self._reading is not None:
            self._reading.abort()


class _Reading:
    """One connection with one consumer. ``last`` is the stream's last sequence, ``created`` when it was made."""

    def __init__(self, settings: BusSettings, stream: str, *, after: int) -> None:
        self._connection = BlockingConnection(settings, silence_seconds=SILENCE_SECONDS)
        self._api = settings.jetstream_prefix
        self._stream = stream
        self._consumer = f"drain-{new_id()}"
        self._inbox = f"{settings.inbox_prefix}.{new_id()}"
        self._position = after
        self._consumed = 0
        self._before = b" "
        self._buffer = b""
        try:
            self._connection.send(f"SUB {self._inbox}.* 1\r\n".encode())
            info = self._ask(f"STREAM.INFO.{stream}", b"")
            if info.state is None:
                raise ConnectionLost(f"stream {stream} does not say where it ends")
            self.last, self.created = info.state.last_seq, info.created
            if after < self.last:
                self._create(after)
        except BaseException:
            self._connection.close()
            raise

    def abort(self) -> None:
        """Have it end with :class:`ConnectionLost`, from another thread."""
        self._connection.abort()

    def close(self) -> None:
        """Ends the connection; the consumer is removed, or ends by itself."""
        try:
            self._connection.send(
                publish(f"{self._api}.CONSUMER.DELETE.{self._stream}.{self._consumer}", b""), b"PING\r\n"
            )
        except ConnectionLost as error:
            logger.debug("removing consumer %s: %s", self._consumer, error)
        self._connection.close()

    def batches(self, last: int) -> Iterator[list[Taken]]:
        """What comes, until the message ``last`` came or the consumer has no more. Raises :class:`ConnectionLost`."""
        if self._position >= last:
            return
        pull = publish(
            f"{self._api}.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}",
            b'{"batch":%d,"max_bytes":%d,"expires":%d,"idle_heartbeat":%d}'
            % (
                PULL_MESSAGES,
                PULL_BYTES,
                int(EXPIRES_SECONDS * NANOSECONDS),
                int(HEARTBEAT_SECONDS * NANOSECONDS),
            ),
            reply=f"{self._inbox}.m",
        )
        outstanding = 0
        while True:
            while outstanding <= (PULLS - 1) * PULL_MESSAGES:
                self._connection.send(pull)
                outstanding += PULL_MESSAGES
            taken, ended, pending = self._messages()
            outstanding -= len(taken) + ended
            if taken:
                self._position = taken[-1][0]
                yield taken
                if self._position >= last or pending == 0:
                    return

    def _create(self, after: int) -> None:
        config = {
            "name": self._consumer,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "ack_policy": "none",
            "mem_storage": True,
            "inactive_threshold": int(INACTIVE_SECONDS * NANOSECONDS),
            "num_replicas": 1,
        }
        request = msgspec.json.encode({"stream_name": self._stream, "config": config, "action": "create"})
        pending = self._ask(f"CONSUMER.CREATE.{self._stream}.{self._consumer}", request).num_pending
        if pending == 0:
            self._position = self.last  # what there was behind the position is gone

    def _ask(self, operation: str, request: bytes) -> _Answer:
        """The answer of JetStream's API."""
        self._connection.send(publish(f"{self._api}.{operation}", request, reply=f"{self._inbox}.a"))
        while True:
            line = self._line()
            if not line.startswith((b"MSG ", b"HMSG ")):
                self._control(line)
                continue
            body = self._exactly(int(line.rpartition(b" ")[2]) + 2)
            if line.startswith(b"HMSG "):
                raise ConnectionLost(f"{operation}: {body[:60]!r}")
            try:
                answer = msgspec.json.decode(body, type=_Answer)
            except UNREADABLE as error:
                raise ConnectionLost(f"{operation}: {error}") from error
            if answer.error is not None:
                raise ConnectionLost(f"{operation}: {answer.error}")
            return answer

    def _messages(self) -> tuple[list[Taken], int, int]:
        """The whole messages that came next: those of the stream; how many that were asked for will not come; and how
        many the stream holds behind the last one."""
        data = self._buffer + self._connection.receive() if self._buffer else self._connection.receive()
        find, size = data.find, len(data)
        consumed, before = self._consumed, self._before
        taken: list[Taken] = []
        take = taken.append
        ended, at, reply = 0, 0, b""
        while (eol := find(b"\r\n", at)) >= 0:
            words = data[at:eol].split(b" ")
            count = len(words)
            if count < 5 or words[0] not in MESSAGE:
                self._control(data[at:eol])
                at = eol + 2
                continue
            start = eol + 2
            end = start + int(words[-1])
            if end + 2 > size:
                break
            at = end + 2
            if count == 6:
                start += int(words[4])
            elif words[0] == b"HMSG":  # without a reply: from the server itself
                ended += self._status(data[start:end], consumed)
                continue
            reply = words[3]
            if not reply.startswith(before):
                before = self._before = _before_sequences(reply)
            sequence, number, _ = reply[len(before) :].split(b".", 2)
            consumed += 1
            if int(number) != consumed:
                raise ConnectionLost(f"message {int(number)} of the consumer came in place of {consumed}")
            take((int(sequence), words[1].decode(), data[start:end]))
        self._buffer = data[at:]
        self._consumed = consumed
        return taken, ended, _pending(reply) if taken else -1

    def _status(self, text: bytes, consumed: int) -> int:
        """How many messages that were asked for this status takes back. Raises :class:`ConnectionLost`."""
        head, _, rest = text.partition(b"\r\n")
        _, _, status = head.partition(b" ")
        headers = dict(line.split(b": ", 1) for line in rest.split(b"\r\n") if b": " in line)
        code, _, description = status.partition(b" ")
        if code == b"100":
            if int(headers.get(b"Nats-Last-Consumer", consumed)) != consumed:
                raise ConnectionLost("messages were dropped")
            return 0
        if code == b"408" or (code == b"409" and description.startswith(PULL_IS_OVER)):
            return int(headers.get(b"Nats-Pending-Messages", 0))
        raise ConnectionLost(f"the server says {status.decode(errors='replace')}")

    def _control(self, line: bytes) -> None:
        if line == b"PING":
            self._connection.send(b"PONG\r\n")
        elif line.startswith(b"-ERR"):
            raise ConnectionLost(line[5:].decode(errors="replace"))
        elif line not in (b"PONG", b"+OK") and not line.startswith(b"INFO "):
            raise ConnectionLost(f"the server says {line[:60]!r}")

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._buffer += self._connection.receive()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._buffer += self._connection.receive()
        exact, self._buffer = self._buffer[:count], self._buffer[count:]
        return exact


def _before_sequences(reply: bytes) -> bytes:
    """What stands before the sequences in the reply subject of a message: the same in all of a consumer's."""
    tokens = reply.split(b".")
    return b".".join(tokens[: 5 if len(tokens) == 9 else 7]) + b"."


def _pending(reply: bytes) -> int:
    tokens = reply.split(b".")
    return int(tokens[8 if len(tokens) == 9 else 10])
