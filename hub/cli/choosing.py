"""What one chooses when an app is deployed or an image is run: values, plans, parts, artifacts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from hub.cli.values import environment, pairs, plans
from hub.manifest import resolve_artifact
from schemas.problems import Problem
from schemas.values import Artifact, Choices, SecretRef, Value

F = TypeVar("F", bound=Callable[..., Any])

set_option = click.option(
    "--set", "assignments", multiple=True, metavar="SERVICE.VAR=VALUE", help="Set a variable; may be repeated."
)
plan_option = click.option(
    "--plan", "chosen", multiple=True, metavar="DATA-SERVICE=PLAN", help="Choose a plan; may be repeated."
)
_OPTIONS = (
    set_option,
    click.option(
        "--set-secret",
        "secrets",
        multiple=True,
        metavar="SERVICE.VAR=SECRET",
        help="Set a variable to a secret of the site, see 'calque secret set'; may be repeated.",
    ),
    plan_option,
    click.option(
        "--environment", "environment_name", metavar="NAME", default=None, help="One of the template's environments."
    ),
    click.option("--without", multiple=True, metavar="NAME", help="Leave out an optional service; may be repeated."),
    click.option(
        "--with",
        "including",
        multiple=True,
        metavar="NAME",
        help="Take in an optional service that the environment or the image leaves out; may be repeated.",
    ),
    click.option(
        "--artifact",
        "artifacts",
        multiple=True,
        metavar="SERVICE=PATH|IMAGE",
        help="Run another artifact: ./directory, ./file.whl or a container image; may be repeated.",
    ),
)


def choice_options(function: F) -> F:
    """The options; the command gets them together, as ``choices``."""

    @functools.wraps(function)
    def gathered(
        *arguments: Any,
        assignments: tuple[str, ...],
        secrets: tuple[str, ...],
        chosen: tuple[str, ...],
        environment_name: str | None,
        without: tuple[str, ...],
        including: tuple[str, ...],
        artifacts: tuple[str, ...],
        **named: Any,
    ) -> Any:
        choices = Choices(
            environment=_values(assignments, secrets),
            plans=plans(chosen),
            environment_name=environment_name,
            without=without,
            including=including,
            artifacts=_artifacts(artifacts),
        )
        return function(*arguments, choices=choices, **named)

    wrapped: Any = gathered
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    result: F = wrapped
    return result


def _values(assignments: Iterable[str], secrets: Iterable[str]) -> dict[str, dict[str, Value]]:
    found: dict[str, dict[str, Value]] = {name: {**values} for name, values in environment(assignments).items()}
    for service, names in environment(secrets, hint="--set-secret", form="service.VARIABLE=secret").items():
        for variable, name in names.items():
            if variable in found.setdefault(service, {}):
                raise click.BadParameter(f"{service}.{variable} is set twice", param_hint="--set-secret")
            found[service][variable] = SecretRef(name=name)
    return found


def _artifacts(assignments: Iterable[str]) -> dict[str, Artifact]:
    found = pairs(assignments, hint="--artifact", form="service=path or service=image")
    return {service: _artifact(text) for service, text in found.items()}


def _artifact(text: str) -> Artifact:
    """``./x``, ``../x``, ``/x`` and ``~/x`` are paths here, all else is a container image."""
    if not text.startswith(("./", "../", "/", "~")):
        return Artifact(type="image", image=text)
    written = Artifact(wheel=text) if text.endswith(".whl") else Artifact(directory=text)
    found = resolve_artifact(written, Path.cwd())
    if isinstance(found, Problem):
        raise click.BadParameter(found.sentence(), param_hint="--artifact")
    return found
