"""The template aggregate: a version of a template is applied once and never changes."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.base import Fact
from schemas.commands import ApplyTemplate
from schemas.events import Event, TemplateApplied
from schemas.names import template_token
from schemas.problems import Problem, conflict, invalid
from schemas.template_check import check_template, template_digest
from schemas.values import Requester, Template


class TemplateState(Fact, frozen=True, kw_only=True):
    """A template version as it was applied."""

    template: Template
    digest: str


def evolve(state: TemplateState | None, event: Event) -> TemplateState | None:
    """The state after ``event``."""
    if isinstance(event, TemplateApplied):
        return TemplateState(template=event.template, digest=event.digest)
    return state


def decide(state: TemplateState | None, command: ApplyTemplate, *, id: str, by: Requester) -> list[Event] | Problem:
    """Apply a template; ``id`` is the aggregate's. The same content again is accepted and changes nothing."""
    template = command.template
    if found := check_template(template):
        return together(found)
    expected = template_token(template.name, template.version)
    if id != expected:
        return invalid("subject", f"{id!r} is not the id of {template.name} {template.version}", f"use {expected!r}")
    digest = template_digest(template)
    if state is None:
        return [TemplateApplied(template=template, digest=digest, by=by)]
    if state.digest == digest:
        return []
    return conflict(
        "version",
        f"{template.name} {template.version} was applied with other content",
        "templates are immutable; use a new version",
    )


def together(problems: Sequence[Problem]) -> Problem:
    """Several problems of one request as one: the first, and where the others are."""
    first, *others = problems
    if not others:
        return first
    more = "; ".join(each.sentence() for each in others)
    return Problem(
        code=first.code,
        field=first.field,
        message=f"{first.message}; {first.remedy}" if first.remedy else first.message,
        actor=first.actor,
        remedy=f"and {len(others)} more: {more}",
    )
