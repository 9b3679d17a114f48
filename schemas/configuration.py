"""Configuration in layers, and what of a template an instance runs. Pure.

The value of a variable comes from the last of these layers that sets it:

    app < service < environment < instance

``app`` is the template's own ``environment``, ``service`` that of the app service, ``environment`` the named one
(its values for all app services first, then those for the single one), ``instance`` what was given with the
deployment. There is no other precedence anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from schemas.references import MalformedReference, references
from schemas.values import Artifact, Choices, DataServiceSpec, InstanceConfiguration, ServiceSpec, Template, Value

Layer = Literal["app", "service", "environment", "instance"]


class Configured(NamedTuple):
    """The value of one variable, the layer that it comes from, and the field where it stands (in the template, or
    ``environment.<service>.<variable>`` of the deployment)."""

    value: Value
    layer: Layer
    field: str


def configured(template: Template, service: str, choices: Choices) -> dict[str, Configured]:
    """The variables of an app service, by name; references and secrets are not resolved.

    Variables that refer to a part which ``template`` does not hold and the service merely ``wants`` are left out, so
    ask with a template that :func:`effective` or :func:`without_parts` has reduced.
    """
    found: dict[str, Configured] = {}
    for layer, field, values in _layers(template, service, choices):
        for variable, value in values.items():
            found[variable] = Configured(value, layer, f"{field}.{variable}")
    gone = set(template.services[service].wants) - template.services.keys() - template.data_services.keys()
    return {variable: each for variable, each in sorted(found.items()) if not gone & named(each.value)}


def named(value: Value) -> set[str]:
    """The services that a value refers to. A malformed one refers to nothing; the check of the template tells it."""
    if not isinstance(value, str):
        return set()
    try:
        return {each.service for each in references(value)}
    except MalformedReference:
        return set()


def parts(template: Template) -> dict[str, ServiceSpec | DataServiceSpec]:
    """All app services and data services, by name."""
    return {**template.services, **template.data_services}


def shown(value: Value) -> str:
    """A value as people see it: text, or which secret it is."""
    return value if isinstance(value, str) else f"{{secretRef: {value.name}}}"


def left_out(template: Template, choices: Choices) -> tuple[str, ...]:
    """The parts of ``template`` that are not there, by name: what the named environment and ``without`` leave out,
    but for what ``including`` takes in."""
    environment = template.environments.get(choices.environment_name or "")
    absent = {*choices.without, *(environment.without if environment else ())}
    return tuple(sorted(absent - set(choices.including)))


def without_parts(template: Template, absent: tuple[str, ...]) -> Template:
    """``template`` but for the parts that are left out."""
    if not absent:
        return template
    return msgspec.structs.replace(
        template,
        services={name: spec for name, spec in template.services.items() if name not in absent},
        data_services={name: spec for name, spec in template.data_services.items() if name not in absent},
    )


def artifacts_of(spec: ServiceSpec, override: Artifact | None = None) -> tuple[Artifact, ...]:
    """What an app service may run, the preferred first: the override alone, or all that the template offers."""
    offered = (spec.artifact, *spec.alternatives)
    if override is None:
        return offered
    if override.command:
        return (override,)
    same = next((each for each in offered if each.type == override.type), None)
    return (msgspec.structs.replace(override, command=same.command if same else ()),)


def effective(
    template: Template,
    choices: Choices,
    *,
    absent: tuple[str, ...] | None = None,
    picked: Mapping[str, Artifact] | None = None,
) -> Template:
    """What runs: the parts that are there, each app service with its one artifact and with all its values as its
    own ``environment``.

    ``absent`` are the parts that are left out, when that is settled already; else it follows from ``choices``.
    ``picked`` is what the site chose for services that may run several artifacts. ``choices`` must have been checked
    (:func:`schemas.choices_check.check_choices`). Of what is adopted no app service is ours to run.
    """
    reduced = without_parts(template, left_out(template, choices) if absent is None else absent)
    services = {}
    for name, spec in ({} if choices.adopted else reduced.services).items():
        offered = artifacts_of(spec, choices.artifacts.get(name))
        services[name] = msgspec.structs.replace(
            spec,
            artifact=(picked or {}).get(name, offered[0]),
            alternatives=(),
            environment={variable: each.value for variable, each in configured(reduced, name, choices).items()},
            channels={each: channel for each, channel in spec.channels.items() if each in reduced.data_services},
            wants=tuple(each for each in spec.wants if each in reduced.services or each in reduced.data_services),
        )
    return msgspec.structs.replace(reduced, services=services, environment={}, environments={})


def inherited(captured: InstanceConfiguration, choices: Choices) -> Choices:
    """The choices of whoever runs an image, over those that the image captured.

    The environment that they name replaces the captured one, their values go over the captured ones. What the image
    does not hold stays left out unless it is taken in, and then begins empty; what it holds is there, unless they
    leave it out or name an environment that does.
    """
    including = set(choices.including)
    if choices.environment_name in (None, captured.environment_name):
        usual = captured.template.environments.get(captured.environment_name or "")
        including |= set(usual.without if usual else ()) - {*captured.without, *choices.without}
    services = [*captured.environment, *(each for each in choices.environment if each not in captured.environment)]
    return msgspec.structs.replace(
        choices,
        environment={
            name: {**captured.environment.get(name, {}), **choices.environment.get(name, {})} for name in services
        },
        environment_name=choices.environment_name or captured.environment_name,
        without=tuple(sorted({*captured.without, *choices.without} - including)),
        including=tuple(sorted(including)),
        artifacts={**captured.artifacts, **choices.artifacts},
    )


def secret_names(template: Template) -> dict[str, str]:
    """The secrets of the site that ``template`` (an effective one) refers to, and the field of one that does."""
    found: dict[str, str] = {}
    for name, spec in template.services.items():
        for variable, value in spec.environment.items():
            if not isinstance(value, str):
                found.setdefault(value.name, f"services.{name}.environment.{variable}")
    return found


def _layers(template: Template, service: str, choices: Choices) -> Iterator[tuple[Layer, str, Mapping[str, Value]]]:
    yield "app", "environment", template.environment
    yield "service", f"services.{service}.environment", template.services[service].environment
    if (name := choices.environment_name) is not None and name in template.environments:
        environment = template.environments[name]
        yield "environment", f"environments.{name}.environment", environment.environment
        if service in environment.services:
            field = f"environments.{name}.services.{service}.environment"
            yield "environment", field, environment.services[service].environment
    yield "instance", f"environment.{service}", choices.environment.get(service, {})
