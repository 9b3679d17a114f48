"""Loads a template file: places, types, meaning and artifacts, with every fault that can be found at once."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
from pydantic import BaseModel, ValidationError

from hub.manifest.document import Document, field_name, read_document
from hub.manifest.faults import Fault, ManifestError
from hub.manifest.models import TemplateFile
from schemas.artifact_digest import tree_digest
from schemas.problems import CalqueError, Problem, invalid, not_found
from schemas.template_check import check_template
from schemas.values import Template

_MISSING = object()
# What stands in for a wrong value while the rest is checked: nothing else may look wrong because of it.
_STAND_INS: dict[str, Any] = {
    "name": "name",
    "version": "0",
    "description": "",
    "port": 1,
    "http": "GET /",
    "path": "/",
    "restart": "always",
    "data_class": "restricted",
    "artifact": {"directory": ".", "command": ["true"]},
    "interval_seconds": 1,
    "timeout_seconds": 1,
    "start_period_seconds": 1,
    "stop_grace_seconds": 1,
    "broker": None,
    "plan": None,
}


def load_template(path: Path) -> Template:
    """The template in the file, its directories absolute and its artifacts' digests taken.

    Raises :class:`ManifestError` with all faults, or :class:`CalqueError` when there is no such file.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CalqueError(not_found("file", f"there is no file {str(path)!r}", "check the path")) from None
    except OSError as error:
        raise CalqueError(invalid("file", f"{str(path)!r}: {error.strerror}", "name a file to read")) from None
    return parse_template(content, file=str(path), base=path.resolve().parent)


def parse_template(content: bytes, *, file: str, base: Path) -> Template:
    """The template in ``content``; relative paths are below ``base``. Raises :class:`ManifestError`."""
    document = read_document(content, file=file)
    value = cast(dict[str, Any], document.value)
    faults: list[Fault] = []
    try:
        model = TemplateFile.model_validate(value)
    except ValidationError as error:
        faults = [_type_fault(document, each) for each in error.errors(include_url=False)]
        repaired = _without_faults(value, error)
        if repaired is None:
            raise ManifestError(faults) from None
        model = repaired
    wrong = {fault.problem.field or "" for fault in faults}
    template = _template(model)
    found = check_template(template)
    template, missing = _with_artifacts(template, base)
    for problem in [*found, *missing]:
        if not _concerns(problem.field or "", wrong):
            faults.append(document.fault(problem))
    if faults:
        raise ManifestError(faults)
    return template


def _template(model: TemplateFile) -> Template:
    return msgspec.convert(model.model_dump(), Template)


def _concerns(field: str, wrong: set[str]) -> bool:
    """Whether ``field`` is one of those, inside one of them or around one."""
    return any(field == each or field.startswith((f"{each}.", f"{each}[")) or each.startswith(f"{field}.")
               for each in wrong)  # fmt: skip


def _type_fault(document: Document, error: Mapping[str, Any]) -> Fault:
    path = error["loc"]
    if path and path[-1] == "[key]":
        path = path[:-1]
    field = field_name(path)
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(known)}"
        return document.fault(invalid(field, "unknown key", remedy), at_key=True)
    if kind == "missing":
        return document.fault(invalid(field, "it is missing", f"add {path[-1]!r} here"))
    return document.fault(invalid(field, *_wrong_value(kind, given, error.get("ctx", {}))))


def _wrong_value(kind: str, given: Any, context: Mapping[str, Any]) -> tuple[str, str]:
    if given is None:
        return "there is no value", "write one, or '' for empty text"
    shown = repr(given) if isinstance(given, str) else "a mapping" if isinstance(given, dict) else "a list"
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        return f"{shown} is not possible here", f"use one of: {expected}"
    expected = {
        "string_type": "text",
        "int_parsing": "a whole number",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_parsing": "a number",
        "float_type": "a number",
        "finite_number": "a number",
        "list_type": "a list, such as [one, two]",
        "dict_type": "a mapping of 'key: value' lines",
        "model_type": "a mapping of 'key: value' lines",
        "model_attributes_type": "a mapping of 'key: value' lines",
    }.get(kind, "another value")
    return f"{shown} is not possible here", f"write {expected}"


def _known_keys(path: tuple[str | int, ...]) -> list[str]:
    """The keys that the mapping at ``path`` may have."""
    model: Any = TemplateFile
    for part in path:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[str(part)].annotation
        else:
            model = model.__args__[1]  # dict[str, Model]
        if not isinstance(model, type) and type(None) in getattr(model, "__args__", ()):
            model = model.__args__[0]  # Model | None
    return list(model.model_fields)


def _without_faults(value: dict[str, Any], error: ValidationError) -> TemplateFile | None:
    """The file with stand-ins for what is wrong, so that the rest can be checked; ``None`` where none fits."""
    repaired = copy.deepcopy(value)
    for each in error.errors(include_url=False):
        path = each["loc"]
        parent: Any = repaired
        for part in path[:-1]:
            parent = parent[part]
        stand_in: Any = _STAND_INS.get(str(path[-1]), _MISSING)
        if each["type"] == "extra_forbidden":
            parent.pop(path[-1], None)
        elif path[-1] == "type":
            parent["type"] = {"services": "public", "data_services": "other"}.get(str(path[0]), "process")
            if len(path) > 3:
                parent["type"] = "process"
        elif path[-2:-1] in (("environment",), ("parameters",)):
            parent[path[-1]] = ""
        elif stand_in is not _MISSING:
            parent[path[-1]] = copy.deepcopy(stand_in)
        else:
            return None
    try:
        return TemplateFile.model_validate(repaired)
    except ValidationError:
        return None


def _with_artifacts(template: Template, base: Path) -> tuple[Template, list[Problem]]:
    """``template`` with absolute paths and digests, and what can't be found or read."""
    problems: list[Problem] = []
    services = {}
    for name, service in template.services.items():
        changes: dict[str, str] = {}
        for kind in ("directory", "wheel"):
            written = getattr(service.artifact, kind)
            if not written:
                continue
            field = f"services.{name}.artifact.{kind}"
            path = (base / Path(written).expanduser()).resolve()
            changes[kind] = str(path)
            if (path.is_dir() if kind == "directory" else path.is_file()) is False:
                problems.append(invalid(field, f"there is no {kind} {str(path)!r}", "correct the path"))
                continue
            try:
                changes["digest"] = tree_digest(path)
            except OSError as error:
                problems.append(invalid(field, f"{error.filename}: {error.strerror}", "make it readable"))
        artifact = msgspec.structs.replace(service.artifact, **changes)
        services[name] = msgspec.structs.replace(service, artifact=artifact)
    return msgspec.structs.replace(template, services=services), problems
