"""What must hold in a template beyond the types of its fields: names, references, order, ports.

Pure. Every problem names the path of the field (``services.web.environment.IDEAS_URI``) and what to do, and
all of them are found at once, in the order of the template.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from schemas.channels import check_channels
from schemas.names import check_name, check_version
from schemas.problems import Problem, invalid
from schemas.references import SERVICE_ATTRIBUTES, MalformedReference, Reference, references, resolve
from schemas.template_order import CycleError, needs, order
from schemas.values import Artifact, DataServiceSpec, HealthCheck, Hook, ServiceSpec, Template

__all__ = [
    "CycleError",
    "MalformedReference",
    "Reference",
    "check_overrides",
    "check_template",
    "needs",
    "order",
    "references",
    "resolve",
    "template_digest",
]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOOK = re.compile(r"(?:GET|POST|PUT|PATCH|DELETE) /[\x21-\x7e]*")
_PATH = re.compile(r"/[\x21-\x7e]*")
_canonical = msgspec.json.Encoder(order="deterministic")


def template_digest(template: Template) -> str:
    """The identity of a template: SHA-256 (hex) of its canonical JSON, keys sorted, defaults left out."""
    return hashlib.sha256(_canonical.encode(template)).hexdigest()


def check_template(template: Template) -> list[Problem]:
    """All that is wrong with ``template``; an empty list when it can be applied."""
    found: list[Problem] = []
    _add(found, check_name(template.name, field="name"))
    _add(found, check_version(template.version, field="version"))
    found.extend(_entrypoint(template))
    if not template.services:
        found.append(invalid("services", "there is no app service", "describe at least one app service"))
    for name, service in template.services.items():
        found.extend(_service(template, name, service))
    for name, data_service in template.data_services.items():
        found.extend(_data_service(template, name, data_service))
    found.extend(_cycle(template))
    return found


def check_overrides(
    template: Template, *, environment: Mapping[str, Mapping[str, str]], plans: Mapping[str, str]
) -> list[Problem]:
    """What is wrong with the values that a deployment lays over ``template``; fields as in the command."""
    found: list[Problem] = []
    for service, variables in environment.items():
        if service not in template.services:
            found.append(_unknown(f"environment.{service}", "app service", service, template.services))
            continue
        found.extend(_environment(template, variables, field=f"environment.{service}"))
    for data_service, plan in plans.items():
        field = f"plans.{data_service}"
        if data_service not in template.data_services:
            found.append(_unknown(field, "data service", data_service, template.data_services))
        _add(found, check_name(plan, field=field))
    if found:
        return found
    merged = {
        name: msgspec.structs.replace(spec, environment={**spec.environment, **environment.get(name, {})})
        for name, spec in template.services.items()
    }
    return _cycle(msgspec.structs.replace(template, services=merged))


def _add(found: list[Problem], problem: Problem | None) -> None:
    if problem is not None:
        found.append(problem)


def _unknown(field: str, kind: str, name: str, known: Iterable[str]) -> Problem:
    listed = ", ".join(sorted(known))
    return invalid(
        field, f"there is no {kind} {name!r} in the template", f"name one of: {listed}" if listed else "describe it"
    )


def _entrypoint(template: Template) -> Iterator[Problem]:
    name = template.entrypoint
    if name is None:
        return
    service = template.services.get(name)
    if service is None:
        yield _unknown("entrypoint", "app service", name, template.services)
        return
    if service.port is None:
        yield invalid("entrypoint", f"app service {name!r} has no port", f"give services.{name}.port")
    if service.type != "public":
        yield invalid(
            "entrypoint", f"app service {name!r} is {service.type}, not public", f"set services.{name}.type to public"
        )


def _service(template: Template, name: str, service: ServiceSpec) -> Iterator[Problem]:
    field = f"services.{name}"
    if problem := check_name(name, field=field):
        yield problem
    if name in template.data_services:
        yield invalid(field, f"{name!r} names a data service too", "give one of the two another name")
    yield from _artifact(service.artifact, field=f"{field}.artifact")
    if service.port is not None and not 1 <= service.port <= 65535:
        yield invalid(f"{field}.port", f"{service.port} is no port", "use a number from 1 to 65535")
    if service.type == "public" and service.port is None:
        yield invalid(f"{field}.port", "a public app service needs a port", "give the port, 1 to 65535")
    yield from _environment(template, service.environment, field=f"{field}.environment")
    if service.health is not None:
        yield from _health(service.health, service, field=f"{field}.health")
    yield from _hooks(service, field=f"{field}.hooks")
    yield from check_channels(template, name, service)
    for number, other in enumerate(service.depends_on):
        if other not in template.services:
            problem = _unknown(f"{field}.depends_on[{number}]", "app service", other, template.services)
            if other in template.data_services:
                remedy = "leave it out: data services are there before any app service starts"
                problem = invalid(problem.field or field, f"{other!r} is a data service", remedy)
            yield problem
    if not _seconds(service.stop_grace_seconds, low=0):
        yield _no_duration(f"{field}.stop_grace_seconds", service.stop_grace_seconds)


def _artifact(artifact: Artifact, *, field: str) -> Iterator[Problem]:
    if artifact.type == "image":
        if not artifact.image:
            yield invalid(f"{field}.image", "an artifact of type image needs an image", "name it: registry/name:tag")
        return
    if artifact.directory and artifact.wheel:
        yield invalid(field, "both directory and wheel are given", "keep one of them")
    elif not artifact.directory and not artifact.wheel:
        yield invalid(
            field, "an artifact of type process needs a directory or a wheel", f"give {field}.directory or .wheel"
        )
    if not artifact.command or not artifact.command[0]:
        yield invalid(f"{field}.command", "there is no command to run", "give it as a list: [python, -m, app]")
    for number, word in enumerate(artifact.command):
        if "\0" in word:
            yield invalid(f"{field}.command[{number}]", "it holds a NUL character", "remove it")


def _environment(template: Template, variables: Mapping[str, str], *, field: str) -> Iterator[Problem]:
    for variable, value in variables.items():
        here = f"{field}.{variable}"
        if not _VARIABLE.fullmatch(variable):
            yield invalid(here, f"{variable!r} is no variable's name", "use A-Z, a-z, 0-9 and '_', no digit first")
        if "\0" in value:
            yield invalid(here, "the value holds a NUL character", "remove it")
        try:
            used = references(value)
        except MalformedReference as error:
            yield invalid(
                here, f"{str(error)!r} is no reference", "write ${service.attribute}, or $${ for a literal ${"
            )
            continue
        for reference in used:
            yield from _reference(template, reference, field=here)


def _reference(template: Template, reference: Reference, *, field: str) -> Iterator[Problem]:
    name, attribute = reference
    written = f"${{{name}.{attribute}}}"
    if name in template.data_services:
        return  # which attributes there are is the broker's word, and depends on the site
    service = template.services.get(name)
    if service is None:
        known = ", ".join(sorted({**template.data_services, **template.services}))
        yield invalid(field, f"{written} names no data service or app service", f"name one of: {known}")
    elif attribute not in SERVICE_ATTRIBUTES:
        yield invalid(
            field, f"{written}: an app service has no {attribute!r}", f"use one of: {', '.join(SERVICE_ATTRIBUTES)}"
        )
    elif service.port is None:
        yield invalid(field, f"{written}: app service {name!r} has no port", f"give services.{name}.port")


def _health(health: HealthCheck, service: ServiceSpec, *, field: str) -> Iterator[Problem]:
    if health.path is not None and not _PATH.fullmatch(health.path):
        yield invalid(f"{field}.path", f"{health.path!r} is no path", "begin it with '/', without spaces")
    if service.port is None:
        yield invalid(field, "a health check needs a port", "give the app service a port, or remove the health check")
    for name in ("interval_seconds", "timeout_seconds", "start_period_seconds"):
        if not _seconds(getattr(health, name), low=0.05):
            yield _no_duration(f"{field}.{name}", getattr(health, name))


def _hooks(service: ServiceSpec, *, field: str) -> Iterator[Problem]:
    hooks = service.hooks
    for phase, hook in (("quiesce", hooks.quiesce), ("thaw", hooks.thaw)):
        if hook is not None:
            yield from _hook(hook, service, field=f"{field}.{phase}")
    if (hooks.quiesce is None) != (hooks.thaw is None):
        missing = "thaw" if hooks.thaw is None else "quiesce"
        yield invalid(f"{field}.{missing}", "one hook is given without the other", f"give {missing} too, or neither")


def _hook(hook: Hook, service: ServiceSpec, *, field: str) -> Iterator[Problem]:
    if not _HOOK.fullmatch(hook.http):
        yield invalid(f"{field}.http", f"{hook.http!r} is no hook", "write METHOD /path, such as: POST /hooks/quiesce")
    if service.port is None:
        yield invalid(field, "a hook needs a port", "give the app service a port")
    if not _seconds(hook.timeout_seconds, low=0.05):
        yield _no_duration(f"{field}.timeout_seconds", hook.timeout_seconds)


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


def _cycle(template: Template) -> list[Problem]:
    try:
        order(template.services)
    except CycleError as error:
        first, second = error.cycle[:2]
        declared = second in template.services[first].depends_on
        return [
            invalid(
                f"services.{first}.depends_on" if declared else f"services.{first}.environment",
                f"app services need each other in a circle: {error}",
                "remove one of these dependencies or references",
            )
        ]
    return []


def _seconds(value: float, *, low: float) -> bool:
    return math.isfinite(value) and low <= value <= 86400


def _no_duration(field: str, value: float) -> Problem:
    return invalid(field, f"{value} is no duration", "give seconds, more than 0 and at most a day")
