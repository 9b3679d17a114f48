"""Checks of what hub and sites say of their own condition: consumers, snapshots, disks."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from hub.cli.findings import Finding, note, ok, problem
from hub.cli.output import age, seconds, size
from schemas.conditions import ConditionView
from schemas.envelope import parse_timestamp
from schemas.queries import BrokerView, OperationView, SiteView

COMMANDS = "CMD"

LEAST_FREE_BYTES = 1 << 30
LEAST_FREE_SHARE = 0.05
STALLED_SECONDS = 60.0
BEHIND_SECONDS = 30.0
SNAPSHOT_EVENTS = 100_000
"""From so many events on, a hub without a newer snapshot starts slowly."""
STUCK = timedelta(hours=1)
MOST = 5
"""How many of many alike are named."""


def check_consumers(condition: ConditionView, sites: Collection[SiteView]) -> list[Finding]:
    """Who reads a stream and gets nowhere; and the hub's own reading."""
    away = {site.name for site in sites if site.state != "online"}
    found = [
        problem(
            "consumers",
            f"{each.stream}/{each.name}",
            f"{each.pending + each.unacknowledged} messages wait, and none was acknowledged for"
            f" {seconds(each.stalled_seconds)}",
            _remedy(each.stream, each.name),
            since=_before(each.stalled_seconds),
        )
        for each in condition.consumers
        if each.stalled_seconds > STALLED_SECONDS and not (each.stream == COMMANDS and each.name in away)
    ]
    if condition.behind_seconds > BEHIND_SECONDS:
        found.append(
            problem(
                "consumers",
                condition.hub,
                f"it is {condition.behind} events behind its own record",
                f"its answers are old meanwhile; if it does not catch up, see 'calque logs {condition.hub}'",
                since=_before(condition.behind_seconds),
            )
        )
    return found or [ok("consumers", f"{len(condition.consumers)} move on")]


def _remedy(stream: str, consumer: str) -> str:
    if stream == COMMANDS:
        return f"the agent of {consumer} does not take its commands: see 'calque logs {consumer}-agent' where it runs"
    if consumer in ("jobs", "sagas", "letters"):
        return "see 'calque logs hub' for what it tries again and again; then start the hub anew"
    return "see that who subscribed runs: 'calque subscription list'; 'calque subscription delete' ends one for good"


def check_snapshots(condition: ConditionView) -> list[Finding]:
    """Whether the hub would start quickly."""
    behind = condition.position - condition.snapshot_position
    if behind > SNAPSHOT_EVENTS:
        since = f"the newest is {age(condition.snapshot_at)} old" if condition.snapshot_at else "there is none"
        why = ", ".join(f"{reason} ({number})" for reason, number in sorted(condition.snapshot_failures.items()))
        return [
            problem(
                "snapshots",
                condition.hub,
                f"{since}, {behind} events back"
                + (f"; failed: {why}" if why else "")
                + ": nothing is lost, but the next start takes long",
                f"see 'calque logs {condition.hub}' for why none is written",
                since=condition.snapshot_at,
            )
        ]
    if number := condition.snapshot_failures.get("write"):
        return [
            problem(
                "snapshots",
                condition.hub,
                f"{number} could not be written since the hub's start",
                f"see 'calque logs {condition.hub}' for why, and the room in its store",
            )
        ]
    taken = f"the newest is {age(condition.snapshot_at)} old" if condition.snapshot_at else "none is needed yet"
    return [ok("snapshots", taken)]


def check_disks(sites: Collection[SiteView]) -> list[Finding]:
    """Disks at the sites, as their agents see them."""
    found = []
    seen = 0
    for site in sites:
        said = site.condition
        if said is None or said.disk_free_bytes is None or not said.disk_total_bytes:
            continue
        seen += 1
        if said.disk_free_bytes < LEAST_FREE_BYTES or said.disk_free_bytes < said.disk_total_bytes * LEAST_FREE_SHARE:
            room = f"{size(said.disk_free_bytes)} of {size(said.disk_total_bytes)} free"
            remedy = "free some: delete images with 'calque image delete', then 'calque repository collect'"
            found.append(problem("disks", site.name, f"its disk is nearly full: {room}", remedy))
    return found or [ok("disks", f"{seen} sites have room")]


def check_limits(brokers: Collection[BrokerView]) -> list[Finding]:
    """What brokers say that they can't do as they are set up."""
    found = [
        note("limits", f"{each.site}/{each.kind}-{each.name}", "; ".join(each.limits), "see docs/settings.md")
        for each in brokers
        if each.limits
    ]
    return found or [ok("limits", "no broker says that it lacks anything")]


def check_stuck(operations: Collection[OperationView], *, now: datetime | None = None) -> list[Finding]:
    """Operations that have been under way for very long."""
    moment = now or datetime.now(UTC)
    found = [
        problem(
            "stuck",
            f"{view.kind} {view.name} at {view.site}",
            f"it is {view.state}" + (" and undoes what it had done" if view.undoing else ""),
            f"see 'calque operation describe {view.id}'; 'calque operation cancel {view.id}' gives it up",
            since=view.created_at,
            details=tuple(
                f"{step.step.id}: {step.state}, attempt {step.attempt}"
                + (f": {step.problem.sentence()}" if step.problem else "")
                for step in view.steps
                if step.state not in ("done", "pending", "undone")
            )[:MOST],
        )
        for view in operations
        if view.state in ("accepted", "running") and _old(view.created_at, moment)
    ]
    return found or [ok("stuck", "no operation takes very long")]


def _old(text: str, now: datetime) -> bool:
    try:
        return now - parse_timestamp(text) > STUCK
    except ValueError:
        return False


def _before(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds").replace("+00:00", "Z")
