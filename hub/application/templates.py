"""Applying and finding templates."""

from __future__ import annotations

from bus.events import Conflict
from hub.application.aggregates import accepting, append, load
from hub.application.context import TRIES, Context, contended
from hub.application.outcome import Outcome
from hub.domain import template as domain
from hub.domain.received import Received
from hub.domain.template import TemplateState
from schemas.commands import Answer, ApplyTemplate
from schemas.names import is_token, template_token
from schemas.problems import Problem, not_found
from schemas.values import Template, TemplateRef

NOTHING: TemplateState | None = None
KEPT = 256
"""So many templates are kept at hand."""


async def apply(context: Context, received: Received) -> Outcome:
    """``template.apply``"""
    assert isinstance(received.command, ApplyTemplate)
    for _ in range(TRIES):
        loaded = await load(context.events, "template", received.aggregate_id)
        state = loaded.fold(domain.evolve, NOTHING)
        events = domain.decide(state, received.command, id=received.aggregate_id, by=received.by)
        if isinstance(events, Problem):
            return events
        try:
            appended = await append(
                context.events,
                accepting(received),
                (loaded, events),
                causation=received.id,
                correlation=received.envelope.correlationid,
            )
        except Conflict:
            continue
        await context.projector.seen(appended)
        return Answer(command=received.id, state="accepted")
    raise contended(f"template {received.aggregate_id}")


async def find(context: Context, reference: TemplateRef) -> Template | Problem:
    """The template that a command refers to, from the hub's own stream; without a version, the newest applied."""
    if reference.version is None:
        token = context.state.templates.newest(reference.name)
    else:
        token = template_token(reference.name, reference.version)
    if token is not None and is_token(token):
        if (known := context.applied.get(token)) is not None:
            return known
        state = (await load(context.events, "template", token)).fold(domain.evolve, NOTHING)
        if state is not None:
            if len(context.applied) >= KEPT:
                context.applied.pop(next(iter(context.applied)))
            context.applied[token] = state.template
            return state.template
    return _missing(context, reference)


def _missing(context: Context, reference: TemplateRef) -> Problem:
    templates = [row.applied.template for row in context.state.templates.rows.values()]
    versions = [each.version for each in templates if each.name == reference.name]
    if reference.version is not None and versions:
        return not_found(
            "template.version",
            f"there is no version {reference.version!r} of template {reference.name!r}",
            f"use one of: {', '.join(versions)}",
        )
    names = sorted({each.name for each in templates})
    return not_found(
        "template.name",
        f"there is no template {reference.name!r}",
        f"use one of: {', '.join(names)}" if names else "apply it first",
    )
