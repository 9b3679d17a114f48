"""How a template is shown."""

from __future__ import annotations

from collections.abc import Iterator

import click

from hub.cli.tables import show_fields, show_table
from schemas.configuration import artifacts_of, shown
from schemas.hook_check import PHASES
from schemas.template_check import template_digest
from schemas.values import Artifact, Hook, ServiceSpec, Template


def show_template(found: Template) -> None:
    """All that a template holds."""
    show_fields(
        {
            "name": found.name,
            "version": found.version,
            "description": found.description,
            "entry point": found.entrypoint,
            "requires": f"calque {found.requires.calque}" if found.requires else "",
            "environments": [
                f"{name} (without {', '.join(each.without)})" if each.without else name
                for name, each in found.environments.items()
            ],
            "digest": template_digest(found),
        }
    )
    _table(
        ("service", "type", "optional", "port", "artifact", "depends on", "wants", "requires"),
        [
            (
                name,
                service.type,
                service.optional,
                service.port,
                [_artifact(each) for each in artifacts_of(service)],
                service.depends_on,
                service.wants,
                service.requires,
            )
            for name, service in found.services.items()
        ],
    )
    _table(("layer", "service", "variable", "value"), list(_variables(found)))
    _table(("service", "hook", "calls"), list(_hooks(found.services)))
    _table(
        ("data service", "type", "optional", "broker", "plan", "data class", "parameters", "requires"),
        [
            (
                name,
                service.type,
                service.optional,
                service.broker,
                service.plan,
                service.data_class,
                service.parameters,
                f"{service.requires.engine} {service.requires.version}".strip() if service.requires else "",
            )
            for name, service in found.data_services.items()
        ],
    )


def _table(titles: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    if rows:
        click.echo("")
        show_table(titles, rows)


def _artifact(artifact: Artifact) -> str:
    return artifact.image or artifact.directory or artifact.wheel or artifact.type


def _variables(found: Template) -> Iterator[tuple[object, ...]]:
    """In the order of precedence, the weakest layer first."""
    for variable, value in found.environment.items():
        yield "app", "", variable, shown(value)
    for name, service in found.services.items():
        for variable, value in service.environment.items():
            yield "service", name, variable, shown(value)
    for layer, environment in found.environments.items():
        for variable, value in environment.environment.items():
            yield layer, "", variable, shown(value)
        for name, values in environment.services.items():
            for variable, value in values.environment.items():
                yield layer, name, variable, shown(value)


def _hooks(services: dict[str, ServiceSpec]) -> Iterator[tuple[object, ...]]:
    for name, service in services.items():
        for phase in PHASES:
            hook: Hook | None = getattr(service.hooks, phase)
            if hook is not None:
                yield name, phase, hook.http or " ".join(hook.exec)
