"""How a command that a site accepts begins an operation. Pure."""

from __future__ import annotations

from typing import Any

from schemas import commands as cmd
from schemas import events as ev
from schemas import saga
from schemas.deadlines import deadline
from schemas.operations import Step
from schemas.problems import Problem
from site_agent.domain import consequences
from site_agent.domain.site import Draft, Site

Decision = list[Draft] | Problem


def accept(
    site: Site,
    command: cmd.SiteCommand,
    id: str,
    *,
    kind: str,
    target: str,
    name: str,
    steps: tuple[Step, ...],
    request: dict[str, Any] | None = None,
) -> list[Draft]:
    """The events that begin operation ``id``, with what they mean for its parts."""
    accepted = ev.OperationAccepted(
        kind=kind,
        target=target,
        name=name,
        by=command.by,
        steps=steps,
        request=request or {},
        parent=command.parent,
        deadline_seconds=deadline(kind, command.deadline_seconds),
    )
    return consequences.expand(site, id, saga.accept(accepted))
