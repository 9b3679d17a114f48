"""JetStream's API in raw JSON: what nats-py's classes lack (durable sources, atomic batches) is needed here.

Field names are those of the server's API; durations in it are nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import msgspec

from bus.connection import Bus
from schemas.problems import Actor, CalqueError, Problem, invalid, permanent, temporary
from schemas.unreadable import UNREADABLE

NANOSECONDS = 1_000_000_000
API_SECONDS = 5.0

WRONG_LAST_SEQUENCE = 10071
IN_FLIGHT = 10164
"""A cluster's way to refuse an append because another one of the same subjects is not settled yet, maybe our own."""
BATCH_INCOMPLETE = 10176
BATCH_DUPLICATE = 10201
STREAM_NOT_FOUND = 10059
STREAM_NAME_IN_USE = 10058
CONSUMER_NOT_FOUND = 10014
NO_MESSAGE = 10037
NOT_CLUSTERED = 10074
TOO_LARGE = 10054
UNSETTLED = frozenset({10007, 10009, 10118, 10158, 10194})
"""Of a cluster in which a leader is being elected; 10158: this very message is on its way already."""
STORE_FULL = frozenset({10023, 10028, 10047, 10077})
"""Insufficient resources, account limits, stream or store at its maximum of bytes."""


class ApiError(msgspec.Struct, frozen=True, kw_only=True):
    """The error of an answer: ``code`` in the manner of HTTP, ``err_code`` precise."""

    code: int
    err_code: int = 0
    description: str = ""


class PubAck(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a publish that a stream captured."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    batch: str = ""
    count: int = 0
    error: ApiError | None = None


class JetStreamError(CalqueError):
    """The server refused; ``err_code`` says why, precisely."""

    def __init__(self, error: ApiError, *, subject: str, stream: str = "") -> None:
        self.err_code = error.err_code
        text = f"{subject}: {error.description} ({error.err_code})"
        if error.err_code in STORE_FULL:
            problem = Problem(
                code="stream_full",
                message=f"stream {stream} is full: {text}" if stream else text,
                actor=Actor.ENVIRONMENT,
                remedy="free disk space, or raise max_bytes of the stream: it goes on by itself",
                retry_after_seconds=5.0,
            )
        elif error.err_code == NOT_CLUSTERED:
            problem = permanent(
                "not_clustered",
                text,
                field="bus.replicas",
                remedy="set it to 1, or run that many of the hub's servers as a cluster",
            )
        elif error.err_code == TOO_LARGE:
            problem = invalid(
                "message", f"stream {stream} takes no message this large: {text}", "refer to it by digest"
            )
        elif error.code in (408, 429, 503) or error.err_code in UNSETTLED:
            problem = temporary("jetstream", text)
        else:
            problem = permanent("jetstream", text)
        super().__init__(problem)


class Position(NamedTuple):
    """What the reply subject of a delivered message says."""

    delivered: int
    stream_sequence: int
    consumer_sequence: int
    timestamp_ns: int
    pending: int


R = TypeVar("R", bound="Reply")


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at of an answer of the API; what stands beside that is skipped, which for long answers is much
    quicker than taking it in. All fields have defaults: an error comes without them."""

    error: ApiError | None = None


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """Of a stream: what it holds."""

    messages: int = 0
    bytes: int = 0
    last_seq: int = 0


class _Positioned(Reply, frozen=True, kw_only=True):
    state: StreamState = StreamState()


_ack = msgspec.json.Decoder(PubAck)


class JetStream:
    """The JetStream API under ``prefix`` (default: that of the bus' own account)."""

    def __init__(self, bus: Bus, *, prefix: str | None = None) -> None:
        self.bus = bus
        self.prefix = prefix or bus.settings.jetstream_prefix

    async def call(
        self, operation: str, request: Mapping[str, Any] | None = None, *, timeout_seconds: float = API_SECONDS
    ) -> dict[str, Any]:
        """The answer to one API request. Raises :class:`JetStreamError` or :class:`CalqueError` (temporary)."""
        answer = msgspec.json.decode(await self._asked(operation, request, timeout_seconds), type=dict[str, Any])
        if answer.get("error"):
            error = msgspec.convert(answer["error"], ApiError)
            raise JetStreamError(error, subject=f"{self.prefix}.{operation}")
        return answer

    async def ask(
        self,
        operation: str,
        reply: type[R],
        *,
        request: Mapping[str, Any] | None = None,
        timeout_seconds: float = API_SECONDS,
    ) -> R:
        """As :meth:`call`, of an answer of which only a part is looked at."""
        answer = msgspec.json.decode(await self._asked(operation, request, timeout_seconds), type=reply)
        if answer.error is not None:
            raise JetStreamError(answer.error, subject=f"{self.prefix}.{operation}")
        return answer

    async def _asked(self, operation: str, request: Mapping[str, Any] | None, timeout_seconds: float) -> bytes:
        payload = msgspec.json.encode(request) if request is not None else b""
        return (await self.bus.call(f"{self.prefix}.{operation}", payload, timeout_seconds=timeout_seconds)).payload

    async def publish(
        self, subject: str, payload: bytes, *, headers: Mapping[str, str], timeout_seconds: float = API_SECONDS
    ) -> PubAck:
        """Publish to the stream that captures ``subject``. Raises as :meth:`call` does."""
        message = await self.bus.call(subject, payload, headers=headers, timeout_seconds=timeout_seconds)
        try:
            ack = _ack.decode(message.payload)
        except UNREADABLE as error:
            raise CalqueError(permanent("jetstream", f"{subject} is not stored by a stream: {error}")) from None
        if ack.error is not None:
            raise JetStreamError(ack.error, subject=subject, stream=ack.stream)
        return ack

    async def stream(self, name: str) -> dict[str, Any] | None:
        """``config``, ``state`` and ``sources`` of a stream; ``None`` if there is none."""
        try:
            return await self.call(f"STREAM.INFO.{name}")
        except JetStreamError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return None
            raise

    async def last_of(self, stream: str, filter_subject: str) -> int:
        """The sequence of the last message that the filter takes in, 0 if there is none, as the stream's leader has it.

        Any replica may answer a direct get, also one that lags.
        """
        try:
            found = await self.call(f"STREAM.MSG.GET.{stream}", {"last_by_subj": filter_subject})
        except JetStreamError as error:
            if error.err_code == NO_MESSAGE:
                return 0
            raise
        return int(found["message"]["seq"])

    async def last_sequence(self, stream: str) -> int:
        """The sequence of the last message of a stream, 0 if it never had one. Raises if there is no stream."""
        return (await self.ask(f"STREAM.INFO.{stream}", _Positioned)).state.last_seq


def nanoseconds(time: str) -> int:
    """A time of the server's (RFC 3339 in UTC) in Unix nanoseconds."""
    seconds, _, fraction = time.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(f"{seconds}+00:00").timestamp()) * NANOSECONDS + int(fraction.ljust(9, "0") or 0)


def position(reply: str) -> Position:
    """The parts of ``$JS.ACK...``, in the form of 9 tokens and in the newer one with domain and account."""
    tokens = reply.split(".")
    at = 4 if len(tokens) == 9 else 6
    return Position(*(int(token) for token in tokens[at : at + 5]))


def sequences(reply: str) -> tuple[int, int]:
    """Only the stream's and the consumer's sequence: the quick half of :func:`position`."""
    tokens = reply.split(".")
    at = 5 if len(tokens) == 9 else 7
    return int(tokens[at]), int(tokens[at + 1])
