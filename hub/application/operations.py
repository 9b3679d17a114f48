"""Cancelling operations: the hub's own, or those of a site."""

from __future__ import annotations

from bus.events import Conflict
from hub.application.aggregates import accepting, append, load
from hub.application.context import TRIES, Context, contended
from hub.application.outcome import Forward, Outcome
from hub.domain.images import DELETE_KIND
from hub.domain.received import Received
from schemas import saga
from schemas.commands import Answer, SiteCancelOperation
from schemas.problems import Problem, conflict, not_found
from schemas.saga import Operation
from schemas.subjects import HUB


async def cancel(context: Context, received: Received) -> Outcome:
    """``operation.cancel``"""
    id = received.aggregate_id
    for _ in range(TRIES):
        loaded = await load(context.events, "operation", id)
        operation = saga.fold(id, loaded.events)
        if operation is None:
            return _at_site(context, received)
        accepted = Answer(command=received.id, state="accepted", operation=id)
        if loaded.caused_by(received.id):
            return accepted
        if problem := _check(operation):
            return problem
        try:
            appended = await append(
                context.events,
                accepting(received),
                (loaded, saga.cancel(operation, received.by)),
                causation=received.id,
                operation=id,
                correlation=received.envelope.correlationid,
            )
        except Conflict:
            continue
        await context.projector.seen(appended)
        return accepted
    raise contended(f"operation {id}")


def _check(operation: Operation) -> Problem | None:
    if operation.outcome is not None:
        return conflict(
            "operation", f"operation {operation.id} is {operation.outcome} already", "nothing is left to cancel"
        )
    if operation.accepted.kind == DELETE_KIND:
        return conflict("operation", "a deletion can't be cancelled: the image is deleted already", "let it end")
    return None


def _at_site(context: Context, received: Received) -> Outcome:
    id = received.aggregate_id
    for row in context.state.operations.find(id):
        if row.writer == HUB:
            continue
        if problem := _check(context.state.operations.whole(row)):
            return problem
        return Forward(row.writer, id, SiteCancelOperation(by=received.by))
    return not_found("operation", f"there is no operation {id}", "see `calque operation list`")
