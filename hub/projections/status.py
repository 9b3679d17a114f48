"""Activiti's view, derived and never stored: UP, DOWN, PENDING or ERROR."""

from __future__ import annotations

from hub.projections.apps import AppRow, ServiceRow
from schemas.values import Status

_WORST_FIRST: tuple[Status, ...] = ("ERROR", "DOWN", "PENDING", "UP")


def of_service(service: ServiceRow) -> Status:
    """The status of an app service: what its state and its probe say."""
    match service.state:
        case "failed":
            return "ERROR"
        case "pending" | "deploying" | "stopping":
            return "PENDING"
        case "running":
            return "UP" if service.healthy else "DOWN"
    return "DOWN"


def of_app(row: AppRow) -> Status:
    """The status of an app: the worst of its services, and of its data services where their health is watched; an app
    with neither is not UP."""
    if row.state == "failed":
        return "ERROR"
    if row.state in ("stopped", "deleted"):
        return "DOWN"
    if row.state in ("pending", "deploying", "stopping", "starting", "deleting"):
        return "PENDING"
    found = {of_service(service) for service in row.services.values()}
    found |= {"UP" if data.healthy else "DOWN" for data in row.data_services.values() if data.healthy is not None}
    worst: Status = next((status for status in _WORST_FIRST if status in found), "DOWN")
    return "DOWN" if row.state == "degraded" and worst == "UP" else worst
