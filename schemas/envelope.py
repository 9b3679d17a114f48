"""The envelope: CloudEvents 1.0, structured mode, in JSON (CloudEvents specification 1.0.2; NATS binding 1.0).

One envelope per message, with the single header ``content-type: application/cloudevents+json`` that the
NATS binding asks for. ``id`` is also the ``Nats-Msg-Id``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from schemas.base import Fact
from schemas.problems import CalqueError, invalid
from schemas.unreadable import UNREADABLE

CONTENT_TYPE = "application/cloudevents+json"
SCHEMA_PREFIX = "urn:calque:schema:"
MAX_EVENT_BYTES = 64 * 1024

T = TypeVar("T")


class Envelope(Fact, frozen=True, kw_only=True):
    """One message. ``data`` is the raw JSON of the Struct that ``type`` names.

    ``operationid``, ``causationid`` (the message that led to this one), ``correlationid``, ``replyto``
    (where the answer of a command goes), ``expirytime`` and ``traceparent`` are CloudEvents extensions.
    """

    id: str
    type: str
    source: str
    time: str
    specversion: str = ""
    subject: str | None = None
    datacontenttype: str = ""
    dataschema: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    operationid: str | None = None
    causationid: str | None = None
    correlationid: str | None = None
    replyto: str | None = None
    expirytime: str | None = None
    traceparent: str | None = None


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Envelope)


def type_of(data: object) -> str:
    """The message type of a registered Struct, e.g. ``calque.event.copy.prepared.v1``."""
    kind = getattr(type(data), "TYPE", None)
    if not isinstance(kind, str):
        raise TypeError(f"{type(data).__name__} is no message type")
    return kind


def wrap(
    data: object,
    *,
    id: str,
    source: str,
    time: str,
    subject: str | None = None,
    operationid: str | None = None,
    causationid: str | None = None,
    correlationid: str | None = None,
    replyto: str | None = None,
    expirytime: str | None = None,
    traceparent: str | None = None,
) -> Envelope:
    """The envelope of one message Struct. ``source`` is a site's name, ``hub``, a principal or a broker."""
    kind = type_of(data)
    return Envelope(
        id=id,
        type=kind,
        source=source,
        time=time,
        specversion="1.0",
        subject=subject,
        datacontenttype="application/json",
        dataschema=SCHEMA_PREFIX + kind.removeprefix("calque."),
        data=msgspec.Raw(_encoder.encode(data)),
        operationid=operationid,
        causationid=causationid,
        correlationid=correlationid,
        replyto=replyto,
        expirytime=expirytime,
        traceparent=traceparent,
    )


def encode(envelope: Envelope) -> bytes:
    """The bytes of one message."""
    return _encoder.encode(envelope)


def decode(payload: bytes) -> Envelope:
    """The envelope in ``payload``; raises :class:`CalqueError` (invalid) for anything else."""
    try:
        envelope = _decoder.decode(payload)
    except UNREADABLE as error:
        raise CalqueError(invalid("message", f"not a CloudEvents 1.0 envelope: {error}")) from None
    if envelope.specversion != "1.0":
        raise CalqueError(invalid("specversion", f"{envelope.specversion!r} is not supported", "send CloudEvents 1.0"))
    return envelope


def unwrap(envelope: Envelope, expected: type[T]) -> T:
    """The data of ``envelope`` as ``expected``; raises :class:`CalqueError` naming the field."""
    return convert(envelope.data, expected)


def convert(data: msgspec.Raw | bytes, expected: type[T]) -> T:
    """Raw JSON as ``expected``; raises :class:`CalqueError` naming the field."""
    try:
        return msgspec.json.decode(data, type=expected)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        field = path.rstrip("`").removeprefix("$.") or "data"
        raise CalqueError(invalid(field, message)) from None
    except UNREADABLE as error:
        raise CalqueError(invalid("data", f"not JSON: {error}")) from None


def to_raw(value: Any) -> msgspec.Raw:
    """Any value of the contract as raw JSON, for the fields that hold data of several types."""
    return msgspec.Raw(_encoder.encode(value))


def timestamp(moment: datetime) -> str:
    """An instant as the envelope writes it: RFC 3339, UTC, microseconds."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_timestamp(text: str) -> datetime:
    """The instant of an RFC 3339 text; raises ``ValueError``."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
