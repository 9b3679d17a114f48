"""How streams and durable consumers are: what they hold, and how far behind who reads them is.

For people and metrics only, asked when somebody looks: nothing that works depends on it.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from typing import Generic, NamedTuple, TypeVar

import msgspec

from bus.jetstream import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, JetStream, JetStreamError, Reply, StreamState

T = TypeVar("T")

READER_PREFIX = "reader-"
"""Consumers that a reader makes for itself and nobody shares (``bus.reader``)."""
SOURCE_HEADER = "Nats-Stream-Source"
NO_MESSAGE = 10037


class StreamCondition(NamedTuple):
    """One stream: ``last`` is the sequence of its last message, ``limit_bytes`` what it may hold (``None``: no limit).

    ``behind`` is, per stream that it sources from, how many messages of that one it lacks.
    """

    name: str
    messages: int
    bytes: int
    limit_bytes: int | None
    last: int
    behind: dict[str, int]


class ConsumerCondition(NamedTuple):
    """One durable consumer. ``floor`` is the sequence up to which everything is acknowledged."""

    stream: str
    name: str
    pending: int
    unacknowledged: int
    floor: int


async def stream_condition(js: JetStream, name: str) -> StreamCondition | None:
    """One stream, ``None`` if there is none. Raises :class:`schemas.problems.CalqueError`."""
    try:
        return _stream(await js.ask(f"STREAM.INFO.{name}", _StreamInfo))
    except JetStreamError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return None
        raise


async def stream_conditions(js: JetStream) -> list[StreamCondition]:
    """All streams. Raises :class:`schemas.problems.CalqueError`."""
    return [_stream(info) async for info in _pages(js, "STREAM.LIST", _Streams)]


async def consumer_condition(js: JetStream, stream: str, name: str) -> ConsumerCondition | None:
    """One durable consumer, ``None`` if there is none. Raises :class:`schemas.problems.CalqueError`."""
    try:
        return _consumer(await js.ask(f"CONSUMER.INFO.{stream}.{name}", _ConsumerInfo))
    except JetStreamError as error:
        if error.err_code in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
            return None
        raise


async def consumer_conditions(js: JetStream, stream: str) -> list[ConsumerCondition]:
    """All durable consumers of a stream, none of a stream that isn't there."""
    try:
        found = [_consumer(info) async for info in _pages(js, f"CONSUMER.LIST.{stream}", _Consumers)]
    except JetStreamError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return []
        raise
    return [each for each in found if not each.name.startswith(READER_PREFIX)]


async def sourced_up_to(js: JetStream, stream: str) -> int:
    """The sequence that the last message of a sourcing stream has in the stream it comes from; 0 without messages."""
    try:
        answer = await js.call(f"STREAM.MSG.GET.{stream}", {"last_by_subj": ">"})
    except JetStreamError as error:
        if error.err_code == NO_MESSAGE:
            return 0
        raise
    headers = _headers(answer["message"].get("hdrs", ""))
    parts = headers.get(SOURCE_HEADER, "").split(" ")
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0


def _headers(encoded: str) -> dict[str, str]:
    lines = base64.b64decode(encoded).decode("latin-1").split("\r\n")[1:]
    return {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


class _Config(msgspec.Struct, frozen=True):
    name: str = ""
    max_bytes: int = -1


class _Source(msgspec.Struct, frozen=True):
    name: str
    lag: int = 0


class _StreamInfo(Reply, frozen=True, kw_only=True):
    config: _Config = _Config()
    state: StreamState = StreamState()
    sources: tuple[_Source, ...] | None = None


class _Floor(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class _ConsumerInfo(Reply, frozen=True, kw_only=True):
    stream_name: str = ""
    name: str = ""
    num_pending: int = 0
    num_ack_pending: int = 0
    ack_floor: _Floor = _Floor()


class _Page(Reply, Generic[T], frozen=True, kw_only=True):
    total: int = 0

    def found(self) -> tuple[T, ...]:
        raise NotImplementedError


class _Streams(_Page[_StreamInfo], frozen=True, kw_only=True):
    streams: tuple[_StreamInfo, ...] | None = None

    def found(self) -> tuple[_StreamInfo, ...]:
        return self.streams or ()


class _Consumers(_Page[_ConsumerInfo], frozen=True, kw_only=True):
    consumers: tuple[_ConsumerInfo, ...] | None = None

    def found(self) -> tuple[_ConsumerInfo, ...]:
        return self.consumers or ()


async def _pages(js: JetStream, operation: str, page: type[_Page[T]]) -> AsyncGenerator[T, None]:
    offset = 0
    while True:
        answer = await js.ask(operation, page, request={"offset": offset})
        found = answer.found()
        for each in found:
            yield each
        offset += len(found)
        if not found or offset >= answer.total:
            return


def _stream(info: _StreamInfo) -> StreamCondition:
    limit = info.config.max_bytes
    return StreamCondition(
        name=info.config.name,
        messages=info.state.messages,
        bytes=info.state.bytes,
        limit_bytes=limit if limit > 0 else None,
        last=info.state.last_seq,
        behind={source.name: source.lag for source in info.sources or ()},
    )


def _consumer(info: _ConsumerInfo) -> ConsumerCondition:
    return ConsumerCondition(
        stream=info.stream_name,
        name=info.name,
        pending=info.num_pending,
        unacknowledged=info.num_ack_pending,
        floor=info.ack_floor.stream_seq,
    )
