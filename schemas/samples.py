"""Sample values of the contract's types, for the published documents. Made from the types, so always valid."""

from __future__ import annotations

from enum import Enum
from typing import Any

from msgspec import inspect

from schemas.values import Template, TemplateRef

SAMPLE_ID = "01977f2e-8d3c-7a4e-9b60-3f1c2d4e5a6b"
SAMPLE_TIME = "2026-01-31T12:00:00.000000Z"
_BY_FIELD: dict[str, Any] = {
    "name": "ideas",
    "instance_name": "ideas",
    "site": "north",
    "source": "north",
    "target": "south",
    "sender": "north",
    "principal": "admin",
    "team": "default",
    "version": "1.0.0",
    "instance": SAMPLE_ID,
    "image": SAMPLE_ID,
    "copy": SAMPLE_ID,
    "command": SAMPLE_ID,
    "id": SAMPLE_ID,
    "operation": SAMPLE_ID,
    "service_id": SAMPLE_ID,
    "binding_id": SAMPLE_ID,
    "data_service": "ideas",
    "service": "web",
    "broker": "postgres",
    "plan": "small",
    "repository": "north/main",
    "plans": {"ideas": "small"},
    "environment": {"web": {"TITLE": "Ideas"}},
    "tags": ["nightly"],
    "comment": "before the upgrade",
}
_TEMPLATE: dict[str, Any] = {
    "name": "hackathon",
    "version": "1.0.0",
    "entrypoint": "web",
    "services": {
        "web": {
            "type": "public",
            "artifact": {"type": "process", "directory": "/srv/hackathon", "command": ["python", "-m", "app"]},
            "port": 8080,
            "environment": {"IDEAS_URI": "${ideas.uri}"},
            "health": {"path": "/healthz"},
        }
    },
    "data_services": {"ideas": {"type": "database", "plan": "small"}},
}
_BY_TYPE: dict[type, dict[str, Any]] = {Template: _TEMPLATE, TemplateRef: {"name": "hackathon", "version": "1.0.0"}}


def sample(kind: type) -> dict[str, Any]:
    """A value of the Struct ``kind`` as JSON types: what is required, and what has a well-known name."""
    return _struct(inspect.type_info(kind))


def _struct(info: Any) -> dict[str, Any]:
    if info.cls in _BY_TYPE:
        return _BY_TYPE[info.cls]
    return {field.encode_name: _field(field) for field in info.fields if _shown(field)}


def _shown(field: Any) -> bool:
    return bool(field.required) or field.encode_name in ("tags", "comment")


def _field(field: Any) -> Any:
    known = _BY_FIELD.get(field.encode_name)
    if known is not None and _fits(known, field.type):
        return known
    return _value(field.type)


def _fits(value: Any, info: Any) -> bool:
    """Whether the well-known ``value`` is one of this type."""
    if isinstance(info, inspect.UnionType):
        return any(_fits(value, each) for each in info.types)
    if isinstance(value, str):
        return isinstance(info, inspect.StrType)
    if isinstance(value, list):
        return isinstance(info, (inspect.VarTupleType, inspect.ListType)) and _fits(value[0], info.item_type)
    return isinstance(info, inspect.DictType) and _fits(next(iter(value.values())), info.value_type)


def _value(info: Any) -> Any:
    match info:
        case inspect.StructType():
            return _struct(info)
        case inspect.UnionType():
            return None if info.includes_none else _value(info.types[0])
        case inspect.LiteralType():
            return info.values[0]
        case inspect.EnumType():
            first = next(iter(info.cls))
            return first.value if isinstance(first, Enum) else first
        case inspect.StrType():
            return "text"
        case inspect.BytesType():
            return "AAEC"
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return 1
        case inspect.FloatType():
            return 1.0
        case inspect.VarTupleType() | inspect.ListType():
            return [_value(info.item_type)]
        case inspect.DictType():
            return {"key": _value(info.value_type)}
        case inspect.NoneType() | inspect.AnyType() | inspect.RawType():
            return None
    raise TypeError(f"no sample for {info!r}")


def sample_envelope(kind: type, *, type_name: str, source: str, **extensions: str) -> dict[str, Any]:
    """A whole message that carries a sample of ``kind``."""
    return {
        "specversion": "1.0",
        "id": SAMPLE_ID,
        "type": type_name,
        "source": source,
        "time": SAMPLE_TIME,
        "datacontenttype": "application/json",
        **extensions,
        "data": sample(kind),
    }
