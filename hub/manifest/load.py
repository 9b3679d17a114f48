"""Loads a template file: places, types, meaning and artifacts, with every fault that can be found at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
from pydantic import ValidationError

from hub.manifest.document import read_document
from hub.manifest.faults import Fault, ManifestError
from hub.manifest.form import type_fault, without_faults
from hub.manifest.masking import masking_fields
from hub.manifest.models import ArtifactModel, TemplateFile
from schemas.artifact_digest import tree_digest
from schemas.problems import CalqueError, Problem, invalid, not_found
from schemas.template_check import check_template
from schemas.values import Artifact, Template

_STAND_IN = {"directory": ".", "command": ["true"]}


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
        faults = [type_fault(document, each) for each in error.errors(include_url=False)]
        repaired = without_faults(value, error)
        if repaired is None:
            raise ManifestError(faults) from None
        model = repaired
    faults += [document.fault(problem) for problem in _one_artifact_each(model)]
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


def _one_artifact_each(model: TemplateFile) -> list[Problem]:
    """App services whose artifact is missing, or written in both ways; afterwards each one has what is needed."""
    found: list[Problem] = []
    for name, service in model.services.items():
        field = f"services.{name}"
        if service.artifact is None and not service.artifacts:
            found.append(invalid(f"{field}.artifact", "it is missing", "add 'artifact' here"))
            service.artifact = ArtifactModel.model_validate(_STAND_IN)
        elif service.artifact is not None and service.artifacts:
            found.append(invalid(f"{field}.artifacts", "artifact is given too", "keep one of them"))
            service.artifacts = []
    return found


def _template(model: TemplateFile) -> Template:
    written = model.model_dump()
    for service in written["services"].values():
        artifacts = service.pop("artifacts")
        if artifacts:
            service["artifact"], *service["alternatives"] = artifacts
    for data_service in written["data_services"].values():
        if data_service["masking"] is not None:
            data_service["masking"] = masking_fields(data_service["masking"])
    return msgspec.convert(written, Template)


def _concerns(field: str, wrong: set[str]) -> bool:
    """Whether ``field`` is one of those, inside one of them or around one."""
    return any(field == each or field.startswith((f"{each}.", f"{each}[")) or each.startswith(f"{field}.")
               for each in wrong)  # fmt: skip


def _with_artifacts(template: Template, base: Path) -> tuple[Template, list[Problem]]:
    """``template`` with absolute paths and digests, and what can't be found or read."""
    problems: list[Problem] = []
    services = {}
    for name, service in template.services.items():
        found: list[Artifact] = []
        for number, artifact in enumerate((service.artifact, *service.alternatives)):
            field = f"services.{name}.artifact" + (f"s[{number}]" if service.alternatives else "")
            resolved = resolve_artifact(artifact, base)
            if isinstance(resolved, Problem):
                problems.append(msgspec.structs.replace(resolved, field=f"{field}.{resolved.field}"))
            else:
                found.append(resolved)
        if len(found) == 1 + len(service.alternatives):
            service = msgspec.structs.replace(service, artifact=found[0], alternatives=tuple(found[1:]))
        services[name] = service
    return msgspec.structs.replace(template, services=services), problems


def resolve_artifact(artifact: Artifact, base: Path) -> Artifact | Problem:
    """``artifact`` with its path absolute and the digest of what is there; relative paths are below ``base``.

    The field of a problem is ``directory`` or ``wheel``.
    """
    changes: dict[str, str] = {}
    for kind in ("directory", "wheel"):
        written = getattr(artifact, kind)
        if not written:
            continue
        path = (base / Path(written).expanduser()).resolve()
        changes[kind] = str(path)
        if (path.is_dir() if kind == "directory" else path.is_file()) is False:
            return invalid(kind, f"there is no {kind} {str(path)!r}", "correct the path")
        try:
            changes["digest"] = tree_digest(path)
        except OSError as error:
            return invalid(kind, f"{error.filename}: {error.strerror}", "make it readable")
    return msgspec.structs.replace(artifact, **changes)
