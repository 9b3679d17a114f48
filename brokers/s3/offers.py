"""What may be asked of the broker: plans and formats of copies."""

from __future__ import annotations

from schemas.brokers import Provision
from schemas.problems import CalqueError, invalid
from schemas.values import Plan

COPY_FORMAT = "s3-objects"
PLANS = (Plan(name="small", description="a versioned bucket of its own on the shared server"),)


def check(request: Provision) -> None:
    """Raises CalqueError that names the field at fault."""
    if request.type != "objectstore":
        raise CalqueError(invalid("type", f"S3 offers no {request.type}", "ask for an objectstore"))
    if request.plan not in {plan.name for plan in PLANS}:
        offered = ", ".join(plan.name for plan in PLANS)
        raise CalqueError(invalid("plan", f"there is no plan {request.plan!r}", f"choose one of: {offered}"))
    if request.parameters:
        raise CalqueError(invalid("parameters", f"{', '.join(sorted(request.parameters))}: S3 takes none"))
    if request.restore is not None and request.copy_format != COPY_FORMAT:
        raise CalqueError(
            invalid("copy_format", f"{request.copy_format!r} can't be restored here", f"use {COPY_FORMAT}")
        )
