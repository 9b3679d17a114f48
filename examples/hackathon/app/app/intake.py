"""Checks what clients send and turns it into values of the model; every refusal names the field."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from .ideas import NewIdea

MAX_TITLE = 200
MAX_TEXT = 20_000
MAX_AUTHOR = 100
MAX_DOCUMENT = 8 * 1024 * 1024
MAX_BATCH = 200
MAX_VOTES_AT_ONCE = 1000
MAX_QUIESCE_SECONDS = 300
MAX_PAGE = 500
_BIGINT = 2**63 - 1
_WRITER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FIELDS = frozenset({"title", "text", "author", "document", "writer", "seq"})


class InvalidError(Exception):
    """The client's input is wrong: ``field`` says where, ``problem`` says what and what is expected."""

    def __init__(self, *, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in ``body``.

    Raises:
        InvalidError: it is no JSON, or no object.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidError(field="body", problem=f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidError(field="body", problem="must be a JSON object")
    return value


def new_idea(fields: Mapping[str, Any], *, at: str = "") -> NewIdea:
    """An idea from JSON fields; ``document`` is base64 text, or bytes when it came as a part of its own.

    Args:
        fields: the fields as sent.
        at: prefix of the field names in errors, such as ``ideas[3].``.
    """
    unknown = sorted(set(fields) - _FIELDS)
    if unknown:
        raise InvalidError(field=at + unknown[0], problem=f"is not a field; known are {', '.join(sorted(_FIELDS))}")
    writer, seq = fields.get("writer"), fields.get("seq")
    if writer is not None and not (isinstance(writer, str) and _WRITER.fullmatch(writer)):
        raise InvalidError(field=f"{at}writer", problem="must be 1 to 64 letters, digits, dots, dashes, underscores")
    if seq is not None:
        seq = whole_number(seq, field=f"{at}seq", low=1, high=_BIGINT)
    if (writer is None) != (seq is None):
        missing = "writer" if writer is None else "seq"
        raise InvalidError(field=at + missing, problem="is missing: writer and seq come together")
    return NewIdea(
        title=_text(fields, "title", at=at, low=1, high=MAX_TITLE),
        text=_text(fields, "text", at=at, low=0, high=MAX_TEXT),
        author=_text(fields, "author", at=at, low=1, high=MAX_AUTHOR),
        document=_document(fields, at=at),
        writer=writer,
        seq=seq,
    )


def new_ideas(fields: Mapping[str, Any]) -> list[NewIdea]:
    """The ideas of a batch, ``{"ideas": [...]}``."""
    listed = fields.get("ideas")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_BATCH:
        raise InvalidError(field="ideas", problem=f"must be a list of 1 to {MAX_BATCH} ideas")
    ideas = []
    seen: set[tuple[str, int]] = set()
    for index, each in enumerate(listed):
        if not isinstance(each, dict):
            raise InvalidError(field=f"ideas[{index}]", problem="must be an object")
        idea = new_idea(each, at=f"ideas[{index}].")
        if idea.writer is not None and idea.seq is not None:
            if (idea.writer, idea.seq) in seen:
                raise InvalidError(field=f"ideas[{index}].seq", problem="is used twice by its writer in this batch")
            seen.add((idea.writer, idea.seq))
        ideas.append(idea)
    return ideas


def whole_number(value: object, *, field: str, low: int, high: int) -> int:
    """``value`` if it is an integer from ``low`` to ``high``; digits as text (a query, a form) count too."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidError(field=field, problem=f"must be a whole number from {low} to {high}")
    return value


def seconds(value: object, *, field: str) -> float:
    """A positive duration in seconds, at most :data:`MAX_QUIESCE_SECONDS`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_QUIESCE_SECONDS:
        raise InvalidError(field=field, problem=f"must be a number of seconds, over 0, at most {MAX_QUIESCE_SECONDS}")
    return float(value)


def _text(fields: Mapping[str, Any], name: str, *, at: str, low: int, high: int) -> str:
    if name not in fields:
        raise InvalidError(field=at + name, problem="is missing")
    value = fields[name]
    if not isinstance(value, str):
        raise InvalidError(field=at + name, problem="must be text")
    if not low <= len(value.strip() if low else value) or len(value) > high:
        raise InvalidError(field=at + name, problem=f"must have {low} to {high} characters")
    # PostgreSQL keeps neither NUL nor half a surrogate pair; JSON can carry both.
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidError(field=at + name, problem="holds a character that is no text")
    return value


def _document(fields: Mapping[str, Any], *, at: str) -> bytes:
    field = f"{at}document"
    if "document" not in fields:
        raise InvalidError(field=field, problem="is missing; send it as base64, or as a part of a multipart form")
    value = fields["document"]
    if isinstance(value, str):
        try:
            value = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidError(field=field, problem="must be base64") from None
    if not isinstance(value, bytes):
        raise InvalidError(field=field, problem="must be base64 text")
    if len(value) > MAX_DOCUMENT:
        raise InvalidError(field=field, problem=f"must have at most {MAX_DOCUMENT} bytes")
    return value
