"""The forms of option values: durations, assignments, template references."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

from schemas.rates import parse_rate
from schemas.site_secrets import secret_reference
from schemas.values import Attachment, TemplateRef

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")


class Duration(click.ParamType[float]):
    """Seconds, written as ``90``, ``90s``, ``2m``, ``1h30m``."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        match = _DURATION.fullmatch(str(value).strip())
        if not match or not any(match.groups()):
            self.fail(f"{value!r} is no duration; write 90, 90s, 2m or 1h30m", param, ctx)
        hours, minutes, rest = match.groups()
        total = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest or 0)
        if not 0 < total <= 7 * 86400:
            self.fail(f"{value!r} is out of range; use more than 0 and at most 7 days", param, ctx)
        return total


class RateParameter(click.ParamType[int]):
    """Bytes per second, written as ``50MiB/s``, ``50M`` or ``off``."""

    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_rate(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def environment(
    assignments: Iterable[str], *, hint: str = "--set", form: str = "service.VARIABLE=value"
) -> dict[str, dict[str, str]]:
    """``service.VARIABLE=value`` by service and variable."""
    found: dict[str, dict[str, str]] = {}
    for text in assignments:
        target, equals, value = text.partition("=")
        service, dot, variable = target.partition(".")
        if not (equals and dot and service and variable):
            raise click.BadParameter(f"{text!r} is not {form}", param_hint=hint)
        found.setdefault(service, {})[variable] = value
    return found


def plans(assignments: Iterable[str]) -> dict[str, str]:
    """``data-service=plan`` by data service."""
    found: dict[str, str] = {}
    for text in assignments:
        service, equals, plan = text.partition("=")
        if not (equals and service and plan):
            raise click.BadParameter(f"{text!r} is not data-service=plan", param_hint="--plan")
        found[service] = plan
    return found


def template_ref(text: str) -> TemplateRef:
    """``name`` or ``name@version``."""
    name, at, version = text.partition("@")
    if not name or (at and not version):
        raise click.BadParameter(f"{text!r} is not NAME or NAME@VERSION", param_hint="TEMPLATE")
    return TemplateRef(name=name, version=version or None)


def attachments(urls: Iterable[str], secrets: Iterable[str]) -> dict[str, Attachment]:
    """``data-service=URL`` and ``data-service=name of a secret`` by data service."""
    where = pairs(urls, hint="--attach", form="data-service=URL")
    opened_by = pairs(secrets, hint="--attach-secret", form="data-service=SECRET")
    if stray := sorted(opened_by.keys() - where.keys()):
        raise click.BadParameter(
            f"{stray[0]!r} is not attached: add --attach {stray[0]}=URL", param_hint="--attach-secret"
        )
    return {
        name: Attachment(url=url, secret=secret_reference(opened_by[name]) if name in opened_by else None)
        for name, url in where.items()
    }


def pairs(assignments: Iterable[str], *, hint: str, form: str) -> dict[str, str]:
    """``name=value`` by name; ``form`` says what they are."""
    found: dict[str, str] = {}
    for number, text in enumerate(assignments, start=1):
        name, equals, value = text.partition("=")
        if not (equals and name and value) or name in found:
            # not repeated: somebody may have typed a password into it
            raise click.BadParameter(f"number {number} is not {form}, or names a service again", param_hint=hint)
        found[name] = value
    return found
