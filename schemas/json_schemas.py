"""JSON Schema (draft 2020-12) of every message type and of the envelope, made from the Structs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec

# Imported for their registrations.
from schemas import brokers, commands, events, queries, signals, site_secrets, subscriptions, webhooks
from schemas.envelope import SCHEMA_PREFIX, Envelope
from schemas.registry import MESSAGES

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ROOMS = (brokers, commands, events, queries, signals, site_secrets, subscriptions, webhooks)
ENVELOPE = "envelope"


def message_types() -> dict[str, type]:
    """Every message type by its name, in the order of names."""
    return dict(sorted(MESSAGES.items()))


def components(kinds: Iterable[type], *, ref_template: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The schemas of ``kinds`` and of all that they refer to."""
    found, parts = msgspec.json.schema_components(
        [_describable(kind) for kind in kinds], schema_hook=_raw, ref_template=ref_template
    )
    return [_clean(each) for each in found], {name: _clean(part) for name, part in sorted(parts.items())}


def schema_of(kind: type, *, name: str) -> dict[str, Any]:
    """One schema that stands alone. ``name`` is the message type's, or ``envelope``."""
    [reference], parts = components([kind], ref_template="#/$defs/{name}")
    title = reference["$ref"].rsplit("/", 1)[-1]
    return {
        "$schema": DIALECT,
        "$id": SCHEMA_PREFIX + name.removeprefix("calque."),
        **parts.pop(title),
        "title": name,
        **({"$defs": parts} if parts else {}),
    }


def all_schemas() -> dict[str, dict[str, Any]]:
    """Every schema by its name: the message types and ``envelope``."""
    found = {name: schema_of(kind, name=name) for name, kind in message_types().items()}
    return {**found, ENVELOPE: schema_of(Envelope, name=ENVELOPE)}


def _describable(kind: type) -> type:
    """``kind``, or its like without raw JSON as a default, which msgspec can't put into a schema."""
    fields = msgspec.structs.fields(kind)
    if not any(isinstance(field.default, msgspec.Raw) for field in fields):
        return kind
    config = kind.__struct_config__  # type: ignore[attr-defined]
    return msgspec.defstruct(
        kind.__name__,
        [
            (field.name, field.type)
            if field.required
            else (field.name, Any, None)
            if isinstance(field.default, msgspec.Raw)
            else (field.name, field.type, field.default)
            for field in fields
        ],
        kw_only=True,
        forbid_unknown_fields=config.forbid_unknown_fields,
        namespace={"__doc__": kind.__doc__},
    )


def _raw(kind: type) -> dict[str, Any]:
    if kind is msgspec.Raw:
        return {"description": "any JSON value"}
    raise NotImplementedError(kind)  # how msgspec is told that a type is not ours to describe


def _clean(schema: Any) -> Any:
    """``schema`` with descriptions as they read, not as the source indents them."""
    if isinstance(schema, dict):
        return {
            key: inspect.cleandoc(value) if key == "description" and isinstance(value, str) else _clean(value)
            for key, value in schema.items()
        }
    if isinstance(schema, (list, tuple)):
        return [_clean(each) for each in schema]
    return schema
