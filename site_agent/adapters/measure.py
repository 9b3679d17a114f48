"""What the agent counts of what it stores: operations as they end, the wait of writers for an image, commands."""

from __future__ import annotations

from collections.abc import Sequence

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
from site_agent.domain.site import Site

OTHER = "other"
"""What no command is called: a name that a sender made up is no label."""


def stored(site: Site, events: Sequence[Recorded]) -> None:
    """``events`` were stored just now, and ``site`` has taken them in."""
    for each in events:
        match each.event:
            case OperationSucceeded():
                _ended(site, each, "succeeded")
            case OperationFailed():
                _ended(site, each, "failed")
            case OperationCancelled():
                _ended(site, each, "cancelled")
            case ImageSaved(content=content):
                observe(metrics.WRITERS_WAIT, content.writers_wait_seconds)
            case CommandAccepted(kind=kind):
                count(metrics.COMMANDS, _known(kind), "accepted")
            case CommandRejected(kind=kind):
                count(metrics.COMMANDS, _known(kind), "rejected")


def _ended(site: Site, each: Recorded, outcome: str) -> None:
    operation, accepted = site.operations.get(each.id), site.accepted_at.get(each.id)
    if operation is None or accepted is None:
        return
    took = (parse_timestamp(each.envelope.time) - parse_timestamp(accepted)).total_seconds()
    observe(metrics.OPERATIONS, max(took, 0.0), operation.accepted.kind, outcome)


def _known(kind: str) -> str:
    data = MESSAGES.get(kind)
    return f"{data.AGGREGATE}.{data.VERB}" if data is not None and issubclass(data, SiteCommand) else OTHER
