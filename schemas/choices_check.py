"""What must hold of the choices of a deployment: values, plans, artifacts, and which parts are left out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from schemas.artifact_check import check_artifact
from schemas.attachment import check_attachments
from schemas.channels import no_channel
from schemas.configuration import artifacts_of, configured, effective, left_out, named, parts, without_parts
from schemas.environment_check import check_variables, unknown
from schemas.names import check_name
from schemas.problems import Problem, conflict, invalid, not_found
from schemas.template_order import CycleError, order
from schemas.values import Choices, Template


def check_choices(template: Template, choices: Choices) -> list[Problem]:
    """What is wrong with the values that a deployment lays over ``template``; fields as in the command."""
    found = [*_environment(template, choices), *_parts(template, choices), *_plans(template, choices)]
    found.extend(_artifacts(template, choices))
    found.extend(_attached(template, choices))
    if found:
        return found
    return [*check_left_out(template, choices), *_without_channel(template, choices), *_circle(template, choices)]


def check_overrides(
    template: Template, *, environment: Mapping[str, Mapping[str, str]], plans: Mapping[str, str]
) -> list[Problem]:
    """:func:`check_choices` of values and plans alone."""
    values = {name: dict(variables) for name, variables in environment.items()}
    return check_choices(template, msgspec.convert({"environment": values, "plans": dict(plans)}, Choices))


def check_environments(template: Template) -> Iterator[Problem]:
    """What is wrong with the layers of ``template`` itself: the app's own values and the named environments."""
    yield from check_variables(template, template.environment, field="environment")
    for name, environment in template.environments.items():
        field = f"environments.{name}"
        if problem := check_name(name, field=field):
            yield problem
        yield from check_variables(template, environment.environment, field=f"{field}.environment")
        for service, values in environment.services.items():
            if service not in template.services:
                yield unknown(f"{field}.services.{service}", "app service", service, template.services)
                continue
            yield from check_variables(template, values.environment, field=f"{field}.services.{service}.environment")
        yield from _named_parts(template, environment.without, field=f"{field}.without")


def check_left_out(template: Template, choices: Choices) -> Iterator[Problem]:
    """Whether what is there can do without what is left out."""
    absent = left_out(template, choices)
    if not absent:
        return
    if template.entrypoint in absent:
        yield conflict("without", f"{template.entrypoint!r} is the entry point", "keep it")
    reduced = without_parts(template, absent)
    if not reduced.services:
        yield conflict("without", "no app service is left", "keep one")
    for name, spec in reduced.services.items():
        for other in sorted(set(spec.depends_on) & set(absent)):
            yield _needed(name, other, f"services.{name}.depends_on")
        for other in sorted(set(spec.channels) & set(absent) - set(spec.wants)):
            yield _needed(name, other, f"services.{name}.channels.{other}")
        for variable, each in configured(reduced, name, choices).items():
            for other in sorted(named(each.value) & set(absent)):
                yield _needed(name, other, f"{each.field}", variable)


def _needed(service: str, other: str, field: str, variable: str = "") -> Problem:
    why = f"its variable {variable} refers to it" if variable else "it depends on it"
    return conflict(
        field,
        f"app service {service!r} can't do without {other!r}, which is left out: {why}",
        f"take {other} in, leave {service} out too, or let it only want it: services.{service}.wants: [{other}]",
    )


def _environment(template: Template, choices: Choices) -> Iterator[Problem]:
    name = choices.environment_name
    if name is not None and name not in template.environments:
        known = ", ".join(sorted(template.environments))
        yield not_found(
            "environment_name",
            f"the template knows no environment {name!r}",
            f"use one of: {known}" if known else "it knows none; leave it out",
        )
    for service, variables in choices.environment.items():
        field = f"environment.{service}"
        if service not in template.services:
            yield unknown(field, "app service", service, template.services)
            continue
        yield from check_variables(template, variables, field=field)


def _parts(template: Template, choices: Choices) -> Iterator[Problem]:
    yield from _named_parts(template, choices.without, field="without")
    yield from _named_parts(template, choices.including, field="including")
    for name in sorted({*choices.without} & {*choices.including}):
        yield invalid("including", f"{name!r} is to be left out and taken in", "say one of the two")


def _named_parts(template: Template, names: Iterable[str], *, field: str) -> Iterator[Problem]:
    names = tuple(names)
    if not names:
        return
    known = parts(template)
    optional = ", ".join(sorted(name for name, spec in known.items() if spec.optional))
    for number, name in enumerate(names):
        here = f"{field}[{number}]"
        if name not in known:
            yield unknown(here, "part", name, known)
        elif not known[name].optional:
            remedy = f"optional are: {optional}" if optional else "the template has no optional part"
            yield conflict(here, f"{name!r} is not optional", remedy)


def _plans(template: Template, choices: Choices) -> Iterator[Problem]:
    for data_service, plan in choices.plans.items():
        field = f"plans.{data_service}"
        if data_service not in template.data_services:
            yield unknown(field, "data service", data_service, template.data_services)
        if problem := check_name(plan, field=field):
            yield problem


def _attached(template: Template, choices: Choices) -> Iterator[Problem]:
    there = without_parts(template, left_out(template, choices)).data_services
    yield from check_attachments(choices.attach, known=there)
    for name in sorted(choices.attach.keys() & choices.plans.keys()):
        yield invalid(f"plans.{name}", f"{name!r} is attached and has no plan", "leave the plan out")
    if not choices.adopted:
        return
    for name in there:
        if name not in choices.attach:
            yield invalid(
                f"attach.{name}",
                f"an adopted app uses the data services that it has, and nothing says where {name!r} is",
                f"add --attach {name}=URL",
            )
    if not there:
        yield invalid("template", f"{template.name} has no data service, so there is nothing to adopt")


def _artifacts(template: Template, choices: Choices) -> Iterator[Problem]:
    for service, artifact in choices.artifacts.items():
        field = f"artifacts.{service}"
        if service not in template.services:
            yield unknown(field, "app service", service, template.services)
            continue
        [meant] = artifacts_of(template.services[service], artifact)
        yield from check_artifact(meant, field=field)


def _without_channel(template: Template, choices: Choices) -> Iterator[Problem]:
    reduced = without_parts(template, left_out(template, choices))
    messaging = {name for name, spec in reduced.data_services.items() if spec.type == "messaging"}
    for name, spec in reduced.services.items():
        for each in configured(reduced, name, choices).values():
            for data_service in sorted(named(each.value) & messaging - spec.channels.keys()):
                yield no_channel(name, data_service, field=each.field)


def _circle(template: Template, choices: Choices) -> Iterator[Problem]:
    whole = effective(template, choices)
    try:
        order(whole.services)
    except CycleError as error:
        first, second = error.cycle[:2]
        field = f"services.{first}.environment"
        if second in (*whole.services[first].depends_on, *whole.services[first].wants):
            field = f"services.{first}.depends_on"
        else:
            for each in configured(without_parts(template, left_out(template, choices)), first, choices).values():
                # the template's own service layer is named as a whole: the fault may lie in any of its variables
                if second in named(each.value) and each.layer in ("app", "environment"):
                    field = each.field
        yield invalid(
            field,
            f"app services need each other in a circle: {error}",
            "remove one of these dependencies or references",
        )
