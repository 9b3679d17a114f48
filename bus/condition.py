"""How streams and durable consumers are: what they hold, and how far behind who reads them is.

For people and metrics only, asked when somebody looks: nothing that works depends on it.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

from bus.jetstream import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, JetStream, JetStreamError

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
    info = await js.stream(name)
    return None if info is None else _stream(info)


async def stream_conditions(js: JetStream) -> list[StreamCondition]:
    """All streams. Raises :class:`schemas.problems.CalqueError`."""
    return [_stream(info) async for info in _pages(js, "STREAM.LIST", "streams")]


async def consumer_condition(js: JetStream, stream: str, name: str) -> ConsumerCondition | None:
    """One durable consumer, ``None`` if there is none. Raises :class:`schemas.problems.CalqueError`."""
    try:
        return _consumer(await js.call(f"CONSUMER.INFO.{stream}.{name}"))
    except JetStreamError as error:
        if error.err_code in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
            return None
        raise


async def consumer_conditions(js: JetStream, stream: str) -> list[ConsumerCondition]:
    """All durable consumers of a stream, none of a stream that isn't there."""
    try:
        found = [_consumer(info) async for info in _pages(js, f"CONSUMER.LIST.{stream}", "consumers")]
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


async def _pages(js: JetStream, operation: str, field: str) -> AsyncGenerator[dict[str, Any], None]:
    offset = 0
    while True:
        answer = await js.call(operation, {"offset": offset})
        found = answer.get(field) or []
        for each in found:
            yield each
        offset += len(found)
        if not found or offset >= answer.get("total", 0):
            return


def _stream(info: dict[str, Any]) -> StreamCondition:
    config, state = info["config"], info["state"]
    limit = int(config.get("max_bytes", -1))
    return StreamCondition(
        name=config["name"],
        messages=int(state["messages"]),
        bytes=int(state["bytes"]),
        limit_bytes=limit if limit > 0 else None,
        last=int(state["last_seq"]),
        behind={source["name"]: int(source.get("lag", 0)) for source in info.get("sources") or []},
    )


def _consumer(info: dict[str, Any]) -> ConsumerCondition:
    return ConsumerCondition(
        stream=info["stream_name"],
        name=info["name"],
        pending=int(info["num_pending"]),
        unacknowledged=int(info["num_ack_pending"]),
        floor=int(info["ack_floor"]["stream_seq"]),
    )
