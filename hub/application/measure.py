"""What the hub counts: commands as they were answered, its own operations as they end."""

from __future__ import annotations

from collections.abc import Sequence

from bus.events import Recorded
from bus.metrics import count, observe
from hub.application.aggregates import Loaded
from hub.application.context import Context
from schemas import metrics
from schemas.envelope import parse_timestamp
from schemas.events import OperationAccepted, OperationCancelled, OperationFailed, OperationSucceeded

OUTCOMES: dict[type, str] = {
    OperationSucceeded: "succeeded",
    OperationFailed: "failed",
    OperationCancelled: "cancelled",
}
OTHER = "other"
"""What no command is called: a name that a sender made up is no label."""


def command(context: Context, *, kind: str, outcome: str, stored_at: float) -> None:
    """A command of a known ``kind`` was answered, or passed on. ``stored_at``: Unix seconds, of the server."""
    count(metrics.COMMANDS, kind, outcome)
    observe(metrics.COMMAND_SECONDS, max(context.clock().timestamp() - stored_at, 0.0), kind)


def operation(loaded: Loaded, stored: Sequence[Recorded]) -> None:
    """Events were stored for an operation: perhaps it has ended."""
    for each in stored:
        outcome = OUTCOMES.get(type(each.event))
        if outcome is None or not loaded.recorded or not isinstance(loaded.recorded[0].event, OperationAccepted):
            continue
        began = parse_timestamp(loaded.recorded[0].envelope.time)
        took = (parse_timestamp(each.envelope.time) - began).total_seconds()
        observe(metrics.OPERATIONS, max(took, 0.0), loaded.recorded[0].event.kind, outcome)
