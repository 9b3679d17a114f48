"""May a site read a copy of another site? Only for a transfer of the hub that is under way."""

from __future__ import annotations

import msgspec

from hub.domain.images import RUN_KIND, TRANSFER, TRANSFER_KIND, TransferRequest, copies_of, step_name
from schemas.problems import Problem, forbidden
from schemas.queries import AskGrant
from schemas.saga import Operation


def check_grant(question: AskGrant, operation: Operation | None, *, asking: str) -> Problem | None:
    """``None`` when ``asking`` may have the copy."""
    if operation is None or operation.accepted.kind not in (RUN_KIND, TRANSFER_KIND) or operation.outcome is not None:
        return forbidden(
            f"operation: {question.operation} is no transfer that is under way",
            "ask while the hub's operation runs",
        )
    state = operation.steps.get(step_name(TRANSFER, asking))
    if state is None or state.status != "running" or operation.phase != "running":
        return forbidden(
            f"operation: {operation.id} does not transfer anything to {asking} now",
            "ask while the transfer to this site runs",
        )
    request = msgspec.convert(operation.accepted.request, TransferRequest)
    if question.source != request.source:
        return forbidden(f"source: {operation.id} reads from {request.source}, not from {question.source}")
    if question.copy not in copies_of(request.content):
        return forbidden(f"copy: {question.copy} does not belong to image {request.image}", "ask for its copies only")
    return None
