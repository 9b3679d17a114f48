"""What must hold of variables and their values, in whichever layer they stand. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from schemas.names import check_name
from schemas.problems import Problem, invalid
from schemas.references import SERVICE_ATTRIBUTES, MalformedReference, Reference, references
from schemas.values import Template, Value

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_variables(template: Template, variables: Mapping[str, Value], *, field: str) -> Iterator[Problem]:
    """What is wrong with the variables that stand in ``field``."""
    for variable, value in variables.items():
        here = f"{field}.{variable}"
        if not _VARIABLE.fullmatch(variable):
            yield invalid(here, f"{variable!r} is no variable's name", "use A-Z, a-z, 0-9 and '_', no digit first")
        if isinstance(value, str):
            yield from _text(template, value, field=here)
        elif problem := check_name(value.name, field=f"{here}.secretRef"):
            yield problem


def unknown(field: str, kind: str, name: str, known: Iterable[str]) -> Problem:
    """The problem of a name that the template does not hold."""
    listed = ", ".join(sorted(known))
    return invalid(
        field, f"there is no {kind} {name!r} in the template", f"name one of: {listed}" if listed else "describe it"
    )


def _text(template: Template, value: str, *, field: str) -> Iterator[Problem]:
    if "\0" in value:
        yield invalid(field, "the value holds a NUL character", "remove it")
    try:
        used = references(value)
    except MalformedReference as error:
        yield invalid(field, f"{str(error)!r} is no reference", "write ${service.attribute}, or $${ for a literal ${")
        return
    for reference in used:
        yield from _reference(template, reference, field=field)


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
