"""Stored events as readers see them: decoded where they are known, kept raw where they are newer, never an error."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import msgspec

from schemas.envelope import MAX_EVENT_BYTES, Envelope, decode
from schemas.events import Event
from schemas.problems import CalqueError
from schemas.registry import MESSAGES
from schemas.subjects import HUB, EventSubject, SubjectError, parse_event
from schemas.unreadable import UNREADABLE
from schemas.upcasting import UPCASTERS

logger = logging.getLogger(__name__)


class UnknownEvent(NamedTuple):
    """An event of a type, or in a shape, that this version does not know. It stops its aggregate, not the stream."""

    type: str
    data: bytes


class Recorded(NamedTuple):
    """One stored event. ``sequence`` is that of the stream it was read from.

    ``refused`` says why its writer may not have written it (feeds leave such events out); else it is ``None``. Its
    first word is the reason in short: ``source``, ``type``, ``owner``, ``size``, ``unreadable``, ``subject``.
    """

    sequence: int
    writer: str
    aggregate: str
    id: str
    event: Event | UnknownEvent
    envelope: Envelope
    refused: str | None = None


OF_THE_HUB = frozenset({"template", "catalog", "claim", "membership", "webhook"})
"""Aggregates that only the hub writes."""
OF_SITES = frozenset({"instance", "copy", "image", "location", "broker", "secret", "site", "signer"})
"""Aggregates that only sites write. What is in neither is of both, or of a newer version."""

_decoders: dict[str, msgspec.json.Decoder[Any] | None] = {}


def _decoder(kind: str) -> msgspec.json.Decoder[Any] | None:
    if kind not in _decoders:
        data = MESSAGES.get(kind)
        if data is None or not issubclass(data, Event):
            return None
        _decoders[kind] = msgspec.json.Decoder(data)
    return _decoders[kind]


def record(*, sequence: int, subject: str, payload: bytes) -> Recorded:
    """What is stored at ``sequence``. Never raises: what can't be read is an :class:`UnknownEvent`, or refused."""
    try:
        parts = parse_event(subject)
    except SubjectError as error:
        return _unreadable(sequence, EventSubject("", "", "", ""), payload, f"subject {error}")
    if len(payload) > MAX_EVENT_BYTES:
        return _unreadable(sequence, parts, b"", f"size {len(payload)} bytes, more than {MAX_EVENT_BYTES}")
    try:
        envelope = decode(payload)
    except CalqueError as error:
        return _unreadable(sequence, parts, payload, f"unreadable {error}")
    event = _event(envelope)
    return Recorded(
        sequence, parts.writer, parts.aggregate, parts.id, event, envelope, _refusal(parts, envelope, event)
    )


def _event(envelope: Envelope) -> Event | UnknownEvent:
    decoder = _decoder(envelope.type)
    if decoder is not None:
        try:
            event: Event = decoder.decode(envelope.data)
        except UNREADABLE:
            return UnknownEvent(envelope.type, bytes(envelope.data))
        return event
    if envelope.type in UPCASTERS.steps:
        return _upcast(envelope)
    return UnknownEvent(envelope.type, bytes(envelope.data))


def _upcast(envelope: Envelope) -> Event | UnknownEvent:
    """An event of a type that was replaced, as the type that replaced it."""
    try:
        kind, data = UPCASTERS.upcast(envelope.type, envelope.data)
        found = MESSAGES[kind]
        if issubclass(found, Event):
            return msgspec.convert(data, found)
    except Exception as error:
        # Steps trust in what old versions wrote; a site may have written anything.
        logger.warning("event %s of type %s can't be upcast: %r", envelope.id, envelope.type, error)
    return UnknownEvent(envelope.type, bytes(envelope.data))


def _refusal(parts: EventSubject, envelope: Envelope, event: Event | UnknownEvent) -> str | None:
    if envelope.source != parts.writer:
        return f"source {envelope.source!r} in the stream of {parts.writer!r}"
    if isinstance(event, Event) and (parts.aggregate, parts.event) != (event.AGGREGATE, event.EVENT):
        if envelope.type in UPCASTERS.steps and envelope.type.startswith(_type_on(parts)):
            return None  # it was renamed since; what is stored stands where it stood
        return f"type {envelope.type} on the subject of {parts.aggregate}.{parts.event}"
    if parts.aggregate in (OF_SITES if parts.writer == HUB else OF_THE_HUB):
        return f"owner {parts.writer} of the {parts.aggregate} {parts.id}, which is not its to write"
    return None


def _type_on(parts: EventSubject) -> str:
    """How types of events on this subject begin."""
    return f"calque.event.{parts.aggregate}.{parts.event}.v"


def _unreadable(sequence: int, parts: EventSubject, payload: bytes, reason: str) -> Recorded:
    envelope = Envelope(id="", type="", source="", time="")
    return Recorded(sequence, parts.writer, parts.aggregate, parts.id, UnknownEvent("", payload), envelope, reason)
