"""What the hub counts and tells of its work: commands as they are answered, operations and their steps as they end.

The spans of operations and steps are told when they are over, by the hub that stored the end, whichever began them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bus import tracing
from bus.events import Recorded
from bus.metrics import count, observe
from hub.application.aggregates import Loaded
from hub.application.context import Context
from schemas import metrics
from schemas.envelope import parse_timestamp
from schemas.events import (
    OperationAccepted,
    OperationCancelled,
    OperationFailed,
    OperationSucceeded,
    StepFailed,
    StepStarted,
    StepSucceeded,
)
from schemas.operations import effect_id
from schemas.traces import Trace, operation_trace, parse, span_id_of

OTHER = "other"
"""What no command is called: a name that a sender made up is no label."""


def command(context: Context, *, kind: str, outcome: str, stored_at: float) -> None:
    """A command of a known ``kind`` was answered, or passed on. ``stored_at``: Unix seconds, of the server."""
    count(metrics.COMMANDS, kind, outcome)
    observe(metrics.COMMAND_SECONDS, max(context.clock().timestamp() - stored_at, 0.0), kind)


def trace_of(loaded: Loaded) -> Trace | None:
    """The span of an operation; ``None`` when nobody records and no trace came with its command."""
    came = loaded.recorded[0].envelope.traceparent if loaded.recorded else None
    if tracing.recording():
        return operation_trace(loaded.key[1], came)
    return parse(came)


def step_trace(operation: Trace | None, effect: str) -> str | None:
    """The ``traceparent`` of what one attempt at a step sends."""
    if operation is None:
        return None
    return (operation.at(span_id_of("step", effect)) if tracing.recording() else operation).traceparent()


def operation(loaded: Loaded, stored: Sequence[Recorded]) -> None:
    """Events were stored for an operation: perhaps it has ended, or a step of it."""
    first = loaded.recorded[0] if loaded.recorded else None
    if first is None or not isinstance(first.event, OperationAccepted):
        return
    for each in stored:
        match each.event:
            case OperationSucceeded():
                _ended(first, first.event, each, "succeeded", problem=None)
            case OperationFailed(problem=problem):
                _ended(first, first.event, each, "failed", problem=problem.code)
            case OperationCancelled():
                _ended(first, first.event, each, "cancelled", problem="cancelled")
            case StepSucceeded(step=step, attempt=attempt):
                _step(first, first.event, (*loaded.recorded, *stored), each, step, attempt, problem=None)
            case StepFailed(step=step, attempt=attempt, problem=problem):
                _step(first, first.event, (*loaded.recorded, *stored), each, step, attempt, problem=problem.code)


def _ended(first: Recorded, accepted: OperationAccepted, last: Recorded, outcome: str, *, problem: str | None) -> None:
    began, ended = _seconds(first), _seconds(last)
    observe(metrics.OPERATIONS, max(ended - began, 0.0), accepted.kind, outcome)
    tracing.tell(
        f"operation {accepted.kind}",
        trace=operation_trace(first.id, first.envelope.traceparent),
        parent=parse(first.envelope.traceparent),
        start=began,
        end=ended,
        problem=problem,
        attributes={"calque.operation.id": first.id, "calque.name": accepted.name},
    )


def _step(
    first: Recorded,
    accepted: OperationAccepted,
    recorded: Iterable[Recorded],
    last: Recorded,
    step: str,
    attempt: int,
    *,
    problem: str | None,
) -> None:
    began = [each for each in recorded if each.event == StepStarted(step=step, attempt=attempt)]
    action = next((each.action for each in accepted.steps if each.id == step), OTHER)
    whole = operation_trace(first.id, first.envelope.traceparent)
    tracing.tell(
        f"step {action}",
        trace=whole.at(span_id_of("step", effect_id(first.id, step, attempt))),
        parent=whole,
        start=_seconds(began[-1] if began else last),
        end=_seconds(last),
        problem=problem,
        attributes={"calque.operation.id": first.id, "calque.step": step, "calque.attempt": attempt},
    )


def _seconds(recorded: Recorded) -> float:
    return parse_timestamp(recorded.envelope.time).timestamp()
