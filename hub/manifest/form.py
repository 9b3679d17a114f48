"""The form of a template file: what pydantic finds wrong with it, said with place, field and what to write instead."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, RootModel, ValidationError

from hub.manifest.document import Document, field_name
from hub.manifest.faults import Fault
from hub.manifest.models import SECRET, TEXT, TemplateFile
from schemas.problems import invalid

_MISSING = object()
# What stands in for a wrong value while the rest is checked: nothing else may look wrong because of it. A field that
# is not here is taken out when it has a default.
_STAND_INS: dict[str, Any] = {
    "name": "name",
    "version": "0",
    "port": 1,
    "http": "GET /",
    "path": "/",
    "artifact": {"directory": ".", "command": ["true"]},
    "command": ["true"],
    "secretRef": "name",
}
_EXPECTED = {
    "string_type": "text",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "list_type": "a list, such as [one, two]",
    "dict_type": "a mapping of 'key: value' lines",
    "model_type": "a mapping of 'key: value' lines",
    "model_attributes_type": "a mapping of 'key: value' lines",
}


def type_fault(document: Document, error: Mapping[str, Any], *, model: type[BaseModel] = TemplateFile) -> Fault:
    """One error of pydantic's as a fault; ``model`` is what the file was to be."""
    path = _path(error)
    field = field_name(path)
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        known = _known_keys(path[:-1], model)
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(known)}"
        return document.fault(invalid(field, "unknown key", remedy), at_key=True)
    if kind == "missing":
        return document.fault(invalid(field, "it is missing", f"add {path[-1]!r} here"))
    return document.fault(invalid(field, *_wrong_value(kind, given, error.get("ctx", {}), path)))


def without_faults(value: dict[str, Any], error: ValidationError) -> TemplateFile | None:
    """The file with stand-ins for what is wrong, so that the rest can be checked; ``None`` where none fits."""
    repaired = copy.deepcopy(value)
    for each in error.errors(include_url=False):
        path = _path(each)
        parent: Any = repaired
        for part in path[:-1]:
            parent = parent[part]
        stand_in: Any = _STAND_INS.get(str(path[-1]), _MISSING)
        if each["type"] == "extra_forbidden":
            parent.pop(path[-1], None)
        elif path[-1] == "type" and len(path) == 3:
            parent["type"] = {"services": "public", "data_services": "other"}[str(path[0])]
        elif path[-2:-1] in (("environment",), ("parameters",)) or isinstance(parent, list):
            parent[path[-1]] = ""
        elif stand_in is not _MISSING:
            parent[path[-1]] = copy.deepcopy(stand_in)
        else:
            parent.pop(path[-1], None)
    try:
        return TemplateFile.model_validate(repaired)
    except ValidationError:
        return None


def _path(error: Mapping[str, Any]) -> tuple[str | int, ...]:
    """Where in the file the error is: what pydantic adds of its own is left out."""
    return tuple(part for part in error["loc"] if part not in ("[key]", TEXT, SECRET))


def _wrong_value(kind: str, given: Any, context: Mapping[str, Any], path: tuple[str | int, ...]) -> tuple[str, str]:
    if given is None:
        return "there is no value", "write one, or '' for empty text"
    shown = repr(given) if isinstance(given, str) else "a mapping" if isinstance(given, dict) else "a list"
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        return f"{shown} is not possible here", f"use one of: {expected}"
    if path[-2:-1] == ("environment",):
        return f"{shown} is not possible here", "write text, or {secretRef: NAME}"
    return f"{shown} is not possible here", f"write {_EXPECTED.get(kind, 'another value')}"


def _known_keys(path: tuple[str | int, ...], model: Any) -> list[str]:
    """The keys that the mapping at ``path`` of a ``model`` may have."""
    if issubclass(model, RootModel):
        model = model.model_fields["root"].annotation
    for part in path:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[str(part)].annotation
        else:
            model = model.__args__[-1]  # dict[str, Model], list[Model]
        model = _model_in(model)
    return list(model.model_fields)


def _model_in(annotation: Any) -> Any:
    """The model among the alternatives of ``annotation``, if it has any: ``Model | None``, a text or a secret."""
    alternatives = getattr(annotation, "__args__", ())
    if getattr(annotation, "__origin__", None) in (dict, list):
        return annotation
    for each in alternatives:
        found = _model_in(each)
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return annotation
