"""What must hold in a template beyond the types of its fields: names, references, order, ports.

Pure. Every problem names the path of the field (``services.web.environment.IDEAS_URI``) and what to do, and
all of them are found at once, in the order of the template.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from schemas.artifact_check import check_artifact
from schemas.channels import check_channels
from schemas.choices_check import check_choices, check_environments, check_overrides
from schemas.configuration import parts
from schemas.environment_check import check_variables, unknown
from schemas.hook_check import check_health, check_hooks, is_duration, no_duration
from schemas.masking_rules import check_masking
from schemas.names import check_name, check_version
from schemas.problems import Problem, invalid
from schemas.references import MalformedReference, Reference, references, resolve
from schemas.template_order import CycleError, needs, order
from schemas.values import Choices, DataServiceSpec, ServiceSpec, Template
from schemas.versions import MalformedRange, parse_range

__all__ = [
    "CycleError",
    "MalformedReference",
    "Reference",
    "check_choices",
    "check_overrides",
    "check_template",
    "needs",
    "order",
    "references",
    "resolve",
    "template_digest",
]

_canonical = msgspec.json.Encoder(order="deterministic")


def template_digest(template: Template) -> str:
    """The identity of a template: SHA-256 (hex) of its canonical JSON, keys sorted, defaults left out."""
    return hashlib.sha256(_canonical.encode(template)).hexdigest()


def check_template(template: Template) -> list[Problem]:
    """All that is wrong with ``template``; an empty list when it can be applied."""
    found: list[Problem] = []
    _add(found, check_name(template.name, field="name"))
    _add(found, check_version(template.version, field="version"))
    if template.requires is not None:
        found.extend(_range(template.requires.calque, field="requires.calque"))
    found.extend(_entrypoint(template))
    if not template.services:
        found.append(invalid("services", "there is no app service", "describe at least one app service"))
    for name, service in template.services.items():
        found.extend(_service(template, name, service))
    for name, data_service in template.data_services.items():
        found.extend(_data_service(template, name, data_service))
    found.extend(check_environments(template))
    found.extend(each for each in _together(template) if each not in found)
    return found


def _together(template: Template) -> list[Problem]:
    """What is wrong with the parts together, as they are without a named environment and in each one."""
    found = check_choices(template, Choices())
    for name in template.environments:
        for problem in check_choices(template, Choices(environment_name=name)):
            if problem.field == "without":
                problem = msgspec.structs.replace(problem, field=f"environments.{name}.without")
            if problem not in found:
                found.append(problem)
    return found


def _add(found: list[Problem], problem: Problem | None) -> None:
    if problem is not None:
        found.append(problem)


def _entrypoint(template: Template) -> Iterator[Problem]:
    name = template.entrypoint
    if name is None:
        return
    service = template.services.get(name)
    if service is None:
        yield unknown("entrypoint", "app service", name, template.services)
        return
    if service.port is None:
        yield invalid("entrypoint", f"app service {name!r} has no port", f"give services.{name}.port")
    if service.type != "public":
        yield invalid(
            "entrypoint", f"app service {name!r} is {service.type}, not public", f"set services.{name}.type to public"
        )
    if service.optional:
        yield invalid("entrypoint", f"app service {name!r} is optional", f"remove services.{name}.optional")


def _service(template: Template, name: str, service: ServiceSpec) -> Iterator[Problem]:
    field = f"services.{name}"
    if problem := check_name(name, field=field):
        yield problem
    if name in template.data_services:
        yield invalid(field, f"{name!r} names a data service too", "give one of the two another name")
    yield from _artifacts(service, field=field)
    if service.port is not None and not 1 <= service.port <= 65535:
        yield invalid(f"{field}.port", f"{service.port} is no port", "use a number from 1 to 65535")
    if service.type == "public" and service.port is None:
        yield invalid(f"{field}.port", "a public app service needs a port", "give the port, 1 to 65535")
    yield from check_variables(template, service.environment, field=f"{field}.environment")
    if service.health is not None:
        yield from check_health(service.health, service, field=f"{field}.health")
    yield from check_hooks(service, field=f"{field}.hooks")
    yield from check_channels(template, name, service)
    yield from _dependencies(template, service, field=field)
    for engine, wanted in service.requires.items():
        yield from _range(wanted, field=f"{field}.requires.{engine}")
    if not is_duration(service.stop_grace_seconds, low=0):
        yield no_duration(f"{field}.stop_grace_seconds", service.stop_grace_seconds)


def _artifacts(service: ServiceSpec, *, field: str) -> Iterator[Problem]:
    if not service.alternatives:
        yield from check_artifact(service.artifact, field=f"{field}.artifact")
        return
    types: set[str] = set()
    for number, artifact in enumerate((service.artifact, *service.alternatives)):
        here = f"{field}.artifacts[{number}]"
        if artifact.type in types:
            yield invalid(here, f"there is an artifact of type {artifact.type} already", "keep one of each type")
        types.add(artifact.type)
        yield from check_artifact(artifact, field=here)


def _dependencies(template: Template, service: ServiceSpec, *, field: str) -> Iterator[Problem]:
    for number, other in enumerate(service.depends_on):
        here = f"{field}.depends_on[{number}]"
        if other in template.data_services:
            yield invalid(
                here,
                f"{other!r} is a data service",
                "leave it out: data services are there before any app service starts",
            )
        elif other not in template.services:
            yield unknown(here, "app service", other, template.services)
    known = parts(template)
    for number, other in enumerate(service.wants):
        here = f"{field}.wants[{number}]"
        if other not in known:
            yield unknown(here, "part", other, known)
        elif not known[other].optional:
            yield invalid(here, f"{other!r} is not optional", "use depends_on, or make it optional")
        elif other in service.depends_on:
            yield invalid(here, f"{other!r} is in depends_on too", "remove it there")


def _data_service(template: Template, name: str, service: DataServiceSpec) -> Iterator[Problem]:
    field = f"data_services.{name}"
    if problem := check_name(name, field=field):
        yield problem
    if name in template.services:
        yield invalid(field, f"{name!r} names an app service too", "give one of the two another name")
    for key in ("broker", "plan"):
        value = getattr(service, key)
        if value is not None and (problem := check_name(value, field=f"{field}.{key}")):
            yield problem
    if service.requires is not None:
        yield from _range(service.requires.version, field=f"{field}.requires.version")
    if service.masking is not None:
        yield from check_masking(service.masking, field=f"{field}.masking")


def _range(wanted: str, *, field: str) -> Iterator[Problem]:
    if not wanted:
        return
    try:
        parse_range(wanted)
    except MalformedRange as error:
        yield invalid(field, f"{str(error)!r} is no range of versions", "write it like: >=15,<18")
