"""Decoding events at one go: the envelope and what it carries, for readers of very many.

What is taken here is just what :func:`bus.records.record` takes and reads the same; of anything that is not plainly an
event of a type known here, in the place of such events, by its own writer, nothing is said: then ask ``record``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, Protocol

import msgspec

from schemas.envelope import SCHEMA_PREFIX
from schemas.events import Event
from schemas.registry import MESSAGES


class QuickEvent(Protocol):
    """An envelope whose ``data`` is decoded: those of its fields that readers ask for."""

    id: str
    source: str
    time: str
    operationid: str | None
    causationid: str | None
    data: Event


QuickDecoder = msgspec.json.Decoder[QuickEvent]


@cache
def quick_decoders() -> Mapping[tuple[str, str], QuickDecoder]:
    """By aggregate and event, as they stand in the subject. A decoder raises ``msgspec.DecodeError``,
    ``UnicodeDecodeError`` or ``RecursionError`` for what it does not take; that ``source`` is the writer is left to be
    seen to."""
    found: dict[tuple[str, str], QuickDecoder] = {}
    ambiguous: set[tuple[str, str]] = set()
    for kind, data in MESSAGES.items():
        if issubclass(data, Event):
            key = (data.AGGREGATE, data.EVENT)
            if key in found:
                ambiguous.add(key)
            found[key] = msgspec.json.Decoder(_envelope(kind, data))
    return MappingProxyType({key: decoder for key, decoder in found.items() if key not in ambiguous})


def _envelope(kind: str, data: type[Event]) -> Any:
    """All fields of :class:`schemas.envelope.Envelope`, so that what is wrong there is wrong here; those that say the
    same in every event of a type are compared and not kept."""
    optional = ("operationid", "causationid", "correlationid", "replyto", "expirytime", "traceparent")
    return msgspec.defstruct(
        f"Quick{data.__name__}",
        [
            ("id", str),
            ("type", Literal[kind]),
            ("source", str),
            ("time", str),
            ("specversion", Literal["1.0"]),
            ("subject", str | None, None),
            ("datacontenttype", Literal["application/json"]),
            ("dataschema", Literal[SCHEMA_PREFIX + kind.removeprefix("calque.")]),
            ("data", data),
            *((name, str | None, None) for name in optional),
        ],
        kw_only=True,
        gc=False,
    )
