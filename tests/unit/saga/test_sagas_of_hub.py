"""Every saga of the hub against sites that succeed, fail, reject, are away, and get commands late, twice or never.

The hub keeps nothing but what is stored, so every turn is a restart. Whatever happens, the operation ends, and what the
sites were told adds up: nothing goes on, and nothing that succeeded too late stays.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hub.domain.children import Child, Clockwork, Outgoing, advance, outgoing
from hub.domain.images import Across, ImageFacts, plan_delete, plan_run, plan_transfer
from schemas import events as ev
from schemas import saga
from schemas.commands import (
    RunImage,
    SiteCancelOperation,
    SiteDeleteInstance,
    SiteForgetImage,
    SiteRunImage,
    TransferImage,
)
from schemas.operations import effect_id
from schemas.problems import conflict, not_found, permanent
from tests.unit.hub.scenes import BY, content

ACROSS = Across(content(), "north")
BROKEN = permanent("broken", "it is broken")
TURN_SECONDS = 7.0


def plan(kind: str, deadline: float | None) -> ev.OperationAccepted:
    match kind:
        case "run":
            command = RunImage(instance="i2", name="two", site="south", deadline_seconds=deadline)
            return plan_run(command, image="img", way=ACROSS, by=BY)
        case "transfer":
            wanted = TransferImage(site="south", deadline_seconds=deadline)
            return plan_transfer(wanted, image="img", way=ACROSS, by=BY)
    held = {copy: frozenset({"north", "south"}) for copy in ("c1", "c2")}
    return plan_delete(ImageFacts("img", "golden", "saved", content(), held, site="north"), by=BY)


class Site:
    """A site's agent as the hub sees it: it takes each command once, and ends operations as it is told to."""

    def __init__(self, ends: list[str]) -> None:
        self.ends = ends
        self.children: dict[str, Child] = {}
        self.told: dict[str, Outgoing] = {}
        self.cancelled_early: set[str] = set()
        self.instances: set[str] = set()

    def take(self, each: Outgoing) -> None:
        """A command arrives; again it changes nothing."""
        if each.id in self.children:
            return
        self.told[each.id] = each
        match each.command:
            case SiteCancelOperation():
                self._cancel(each)
            case SiteDeleteInstance():
                there = each.aggregate_id in self.instances
                self.instances.discard(each.aggregate_id)
                missing = not_found("app", "there is none")
                self.children[each.id] = Child("succeeded") if there else Child("rejected", missing)
            case _ if each.id in self.cancelled_early:
                self.children[each.id] = Child("rejected", conflict("operation", "it was cancelled before it began"))
            case _:
                self.children[each.id] = Child("running")

    def work(self) -> None:
        """What runs ends, each as the next word says."""
        for id, child in list(self.children.items()):
            if child.state != "running":
                continue
            word = self.ends.pop(0) if self.ends else "succeeded"
            command = self.told[id].command
            if isinstance(command, SiteForgetImage) and word == "failed" and not self.ends:
                word = "succeeded"
            if word == "succeeded":
                self.children[id] = Child("succeeded")
                if isinstance(command, SiteRunImage):
                    self.instances.add(self.told[id].aggregate_id)
            elif word == "failed":
                self.children[id] = Child("failed", BROKEN)

    def _cancel(self, each: Outgoing) -> None:
        target = self.children.get(each.aggregate_id)
        if target is None:
            self.cancelled_early.add(each.aggregate_id)
            self.children[each.id] = Child("succeeded")
        elif target.state == "running":
            self.children[each.aggregate_id] = Child("cancelled")
            self.children[each.id] = Child("succeeded")
        else:
            self.children[each.id] = Child("rejected", conflict("operation", "nothing is left to cancel"))


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(("run", "transfer", "delete")),
    ends=st.lists(st.sampled_from(("succeeded", "failed", "later")), max_size=8),
    lost=st.sets(st.integers(0, 30), max_size=12),
    away=st.tuples(st.integers(0, 20), st.integers(0, 150)),
    cancel=st.none() | st.integers(0, 12),
    deadline=st.none() | st.sampled_from((1.0, 20.0, 60.0)),
)
def test_whatever_the_sites_do_it_ends_and_adds_up(
    kind: str,
    ends: list[str],
    lost: set[int],
    away: tuple[int, int],
    cancel: int | None,
    deadline: float | None,
) -> None:
    site = Site(ends)
    accepted = plan(kind, deadline)
    stored: list[ev.Event] = saga.accept(accepted)
    times = [0.0] * len(stored)
    number, now = 0, 0.0

    def operation() -> saga.Operation:
        found = saga.fold("op", stored)
        assert found is not None
        return found

    def clock() -> Clockwork:
        changed: dict[str, float] = {}
        undoing = None
        for event, time in zip(stored, times, strict=True):
            if isinstance(step := getattr(event, "step", None), str):
                changed[step] = time
            if isinstance(event, ev.UndoStarted):
                undoing = time
        return Clockwork(now=now, accepted=0.0, changed=changed, undoing=undoing)

    def store(events: list[Any]) -> None:
        stored.extend(events)
        times.extend([now] * len(events))

    def child(_: str, id: str) -> Child | None:
        return site.children.get(id)

    for turn in range(600):
        now = turn * TURN_SECONDS
        reachable = not away[0] <= turn < away[0] + away[1]
        if turn == cancel and kind != "delete":
            store(saga.cancel(operation(), BY))
        while events := advance(operation(), child, clock=clock()):
            store(events)
        if not operation().live and not site_is_busy(site):
            break
        for each in outgoing(operation(), child, clock=clock()):
            number += 1
            if reachable and number not in lost:
                site.take(each)
        if reachable:
            site.work()
    ended = operation()
    assert ended.outcome is not None, ended
    assert not ended.live, ended
    assert not site_is_busy(site)
    assert sum(isinstance(event, saga_ends()) for event in stored) == 1
    if ended.outcome == "succeeded":
        assert {state.status for state in ended.steps.values()} == {"done"}
        assert site.instances == ({"i2"} if kind == "run" else set())
    else:
        assert site.instances == set(), "an operation that did not succeed left its app"
        assert ended.cleanup in ("done", "none")
        assert all(
            state.step.undo is None or state.status in ("pending", "undone") for state in ended.steps.values()
        ), ended


def site_is_busy(site: Site) -> bool:
    return any(one.state == "running" for one in site.children.values())


def saga_ends() -> tuple[type[ev.Event], ...]:
    return (ev.OperationSucceeded, ev.OperationFailed, ev.OperationCancelled)


def test_an_operation_whose_site_stays_away_ends_and_its_clean_up_goes_on() -> None:
    """Whoever waited for it waited for as long as the site was away."""
    stored = saga.accept(plan("run", None))
    for name in ("transfer-south",):
        operation = saga.fold("op", stored)
        assert operation is not None
        stored += saga.succeeded(operation, name, 1, {})
    operation = saga.fold("op", stored)
    assert operation is not None
    stored += saga.cancel(operation, BY)
    operation = saga.fold("op", stored)
    assert operation is not None
    run = effect_id("op", "run-south", 1)
    children = {run: Child("running")}

    def child(_: str, id: str) -> Child | None:
        return children.get(id)

    early = Clockwork(now=599.0, accepted=0.0, changed={}, undoing=0.0)
    assert advance(operation, child, clock=early) == []
    late = early._replace(now=601.0)
    ended = advance(operation, child, clock=late)
    assert ended == [ev.OperationCancelled(cleanup="pending")]
    operation = saga.fold("op", [*stored, *ended])
    assert operation is not None
    assert operation.live
    assert [each.id for each in outgoing(operation, child, clock=late)] == ["op/cancel-run-south/1"]
    children[run] = Child("cancelled")
    assert advance(operation, child, clock=late) == [ev.StepUndone(step="run-south"), ev.OperationCleanedUp()]
