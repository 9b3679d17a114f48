"""What the agent counts of what it stores: operations as they end, the wait of writers for an image, commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bus import tracing
from bus.events import Recorded
from bus.metrics import count, observe
from schemas import metrics
from schemas.commands import SiteCommand
from schemas.envelope import parse_timestamp
from schemas.events import (
    CommandAccepted,
    CommandRejected,
    ImageSaved,
    OperationCancelled,
    OperationFailed,
    OperationSucceeded,
)
from schemas.registry import MESSAGES
from schemas.traces import operation_trace, parse
from site_agent.domain.site import Site

OTHER = "other"
"""What no command is called: a name that a sender made up is no label."""


def stored(site: Site, events: Sequence[Recorded], traces: Mapping[str, str]) -> None:
    """``events`` were stored just now, and ``site`` has taken them in. ``traces`` is, by operation, the ``traceparent``
    of its acceptance: what is told of an operation is told at its end, whichever process began it."""
    for each in events:
        match each.event:
            case OperationSucceeded():
                _ended(site, each, traces, "succeeded", problem=None)
            case OperationFailed(problem=problem):
                _ended(site, each, traces, "failed", problem=problem.code)
            case OperationCancelled():
                _ended(site, each, traces, "cancelled", problem="cancelled")
            case ImageSaved(content=content):
                observe(metrics.WRITERS_WAIT, content.writers_wait_seconds)
            case CommandAccepted(kind=kind):
                count(metrics.COMMANDS, known(kind), "accepted")
            case CommandRejected(kind=kind):
                count(metrics.COMMANDS, known(kind), "rejected")


def _ended(site: Site, each: Recorded, traces: Mapping[str, str], outcome: str, *, problem: str | None) -> None:
    operation, accepted = site.operations.get(each.id), site.accepted_at.get(each.id)
    if operation is None or accepted is None:
        return
    began, ended = parse_timestamp(accepted).timestamp(), parse_timestamp(each.envelope.time).timestamp()
    observe(metrics.OPERATIONS, max(ended - began, 0.0), operation.accepted.kind, outcome)
    came = traces.get(each.id)
    tracing.tell(
        f"operation {operation.accepted.kind}",
        trace=operation_trace(each.id, came),
        parent=parse(came),
        start=began,
        end=ended,
        problem=problem,
        attributes={"calque.operation.id": each.id, "calque.name": operation.accepted.name},
    )


def known(kind: str) -> str:
    """What metrics and spans call a command of this type."""
    data = MESSAGES.get(kind)
    return f"{data.AGGREGATE}.{data.VERB}" if data is not None and issubclass(data, SiteCommand) else OTHER
