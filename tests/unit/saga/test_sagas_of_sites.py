"""Every saga of a site, every step of it: cancelled, failed, past its deadline, and taken up by a new process there.

Whatever happens where, the operation ends, what was done is undone in reverse order, and what it says of its clean-up
is true. The plans, the decisions and the fold are the product's; only who performs the steps is a test's.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import commands as cmd
from schemas import events as ev
from schemas import saga
from schemas.ids import new_id
from schemas.problems import permanent, temporary
from schemas.values import ImageContent
from site_agent.domain import consequences
from site_agent.domain.site import Site
from tests.unit.site_agent.world import BY, TEMPLATE, World, deployed, good

KINDS = ("deploy", "save", "stop", "start", "run", "transfer", "delete")
FAULTS = ("cancel", "failure", "last failure", "deadline", "lost")
BROKEN = permanent("broken", "it is broken")
AWAY = temporary("away", "it is away")


class Restarting(World):
    """A world whose agent may be started anew: all it knows is the fold of what is stored."""

    def restart(self) -> None:
        """A new process."""
        fresh = Site("north")
        for number, draft in enumerate(self.events, start=1):
            time = f"2026-01-01T00:00:{number % 60:02d}.{number:06d}Z"
            fresh.apply(draft.aggregate, draft.id, draft.event, time=time, sequence=number)
        before = self.site
        fresh.handled = before.handled
        assert fresh == before
        self.site = fresh


@cache
def _saved() -> ImageContent:
    world = World()
    target = deployed(world)
    _save(world, target)
    [image] = [one for one in world.site.images.values() if one.content is not None]
    assert image.content is not None
    return image.content


def _save(world: World, target: str, image: str = "m1") -> None:
    copies = {name: f"{image}-{name}" for name in TEMPLATE.data_services}
    operation = world.send(cmd.SiteSaveInstance(by=BY, image=image, copies=copies), target)
    assert isinstance(operation, str)
    assert world.run(operation, good).state == "succeeded"


def begun(kind: str) -> tuple[Restarting, str]:
    """A world in which an operation of ``kind`` was just accepted."""
    world = Restarting()
    target = deployed(world) if kind in ("save", "stop", "start", "delete") else new_id()
    if kind in ("start",):
        stop = world.send(cmd.SiteStopInstance(by=BY), target)
        assert isinstance(stop, str)
        world.run(stop, good)
    if kind == "run":
        _save(world, deployed(world))
    content = _saved() if kind == "transfer" else None
    command: cmd.SiteCommand
    match kind:
        case "deploy":
            command = cmd.SiteDeployInstance(by=BY, name="second", template=TEMPLATE)
        case "save":
            command = cmd.SiteSaveInstance(by=BY, image="m2", copies={name: f"m2-{name}" for name in ("db", "files")})
        case "stop":
            command = cmd.SiteStopInstance(by=BY)
        case "start":
            command = cmd.SiteStartInstance(by=BY)
        case "delete":
            command = cmd.SiteDeleteInstance(by=BY)
        case "run":
            [image] = [one for one in world.site.images.values() if one.content is not None]
            assert image.content is not None
            command = cmd.SiteRunImage(by=BY, name="second", content=image.content)
        case _:
            assert content is not None
            command, target = cmd.SiteTransferImage(by=BY, content=content, source="south"), content.image
    operation = world.send(command, target)
    assert isinstance(operation, str), operation
    world.performed.clear()
    return world, operation


class Player:
    """Performs an operation with one thing going wrong at one step, and notes what was done and undone."""

    def __init__(self, world: Restarting, operation: str, *, fault: str, step: int, restarts: Iterable[int]) -> None:
        self.world = world
        self.id = operation
        self.fault = fault
        self.step = step
        self.restarts = frozenset(restarts)
        self.done: list[str] = []
        self.undone: list[str] = []
        self.undo_refused: set[str] = set()

    @property
    def now(self) -> saga.Operation:
        return self.world.site.operations[self.id]

    def play(self) -> saga.Operation:
        names = list(self.now.steps)
        wrong = names[self.step % len(names)]
        happened = False
        for turn in range(600):
            if turn in self.restarts:
                self.world.restart()
            effects = saga.react(self.now)
            if not effects:
                return self.now
            effect = effects[turn % len(effects)]
            if not happened and isinstance(effect, saga.Do) and effect.step.id == wrong:
                happened = self._go_wrong(effect)
                continue
            self._perform(effect)
        raise AssertionError(f"it did not end: {self.now}")

    def _go_wrong(self, effect: saga.Do) -> bool:
        name, attempt = effect.step.id, effect.attempt
        match self.fault:
            case "cancel":
                self._apply(saga.cancel(self.now, BY))
            case "failure":
                self._apply(saga.failed(self.now, name, attempt, BROKEN))
            case "last failure":
                self._apply(saga.failed(self.now, name, attempt, AWAY))
                return self.now.phase != "running"
            case "deadline":
                self._apply(saga.give_up(self.now, saga.deadline_passed(1.0)))
            case "lost":
                self.world.restart()  # the effect happened, and nobody knows
        return True

    def _perform(self, effect: saga.Effect) -> None:
        name = effect.step.id
        match effect:
            case saga.Do(attempt=attempt):
                result = good(effect.step.action, effect.step.part)
                assert isinstance(result, dict)
                self.done.append(name)
                self._apply(saga.succeeded(self.now, name, attempt, result))
            case saga.Retry(attempt=attempt):
                self._apply(saga.retried(self.now, name, attempt))
            case saga.Undo(attempt=attempt):
                if name not in self.undo_refused:  # each is refused once
                    self.undo_refused.add(name)
                    self._apply(saga.undo_failed(self.now, name, attempt, AWAY))
                    return
                self.undone.append(name)
                self._apply(saga.undone(self.now, name))

    def _apply(self, events: list[Any]) -> None:
        self.world.tell(*consequences.expand(self.world.site, self.id, events))


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    fault=st.sampled_from(FAULTS),
    step=st.integers(0, 40),
    restarts=st.lists(st.integers(0, 60), max_size=4),
)
def test_whatever_happens_at_whatever_step_it_ends_and_undoes_in_reverse(
    kind: str, fault: str, step: int, restarts: list[int]
) -> None:
    _check(kind, fault, step, restarts)


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_step_of_every_saga(kind: str, fault: str) -> None:
    world, operation = begun(kind)
    for step in range(len(world.site.operations[operation].steps)):
        _check(kind, fault, step, (step + 1, step + 3))


def _check(kind: str, fault: str, step: int, restarts: Iterable[int]) -> None:
    world, operation = begun(kind)
    player = Player(world, operation, fault=fault, step=step, restarts=restarts)
    ended = player.play()
    assert ended.outcome is not None
    assert not ended.live
    ends = [one.event for one in world.events if one.id == operation and one.event.EVENT in saga_ends()]
    assert len(ends) == 1
    states = {name: state.status for name, state in ended.steps.items()}
    if fault == "lost":
        assert ended.state == "succeeded"
    if ended.outcome == "succeeded":
        assert set(states.values()) == {"done"}
        assert player.undone == []
    else:
        assert ended.state == ("cancelled" if fault == "cancel" else "failed")
        touched = [name for name, state in ended.steps.items() if state.status != "pending"]
        to_undo = {name for name in touched if ended.steps[name].step.undo is not None}
        assert set(player.undone) == to_undo
        assert len(player.undone) == len(to_undo)
        assert ended.cleanup == ("done" if to_undo else "none")
        _in_reverse(ended, player.undone)
    _agrees(world, ended)
    world.restart()
    assert saga.react(world.site.operations[operation]) == []


def saga_ends() -> tuple[str, ...]:
    return (ev.OperationSucceeded.EVENT, ev.OperationFailed.EVENT, ev.OperationCancelled.EVENT)


def _in_reverse(ended: saga.Operation, undone: list[str]) -> None:
    """Nothing was undone before what was built on it, at any distance."""

    def on(name: str) -> set[str]:
        direct = {one.step.id for one in ended.steps.values() if name in one.step.needs}
        return direct.union(*(on(each) for each in direct))

    for position, name in enumerate(undone):
        late = on(name) & set(undone[position + 1 :])
        assert not late, f"{name} was undone before {late}"


def _agrees(world: World, ended: saga.Operation) -> None:
    """The operation and what it worked on say the same."""
    site, kind, target = world.site, ended.accepted.kind, ended.accepted.target
    if kind == "save":
        image = site.images[ended.accepted.request["image"]]
        assert image.state == ("saved" if ended.outcome == "succeeded" else "failed")
        wanted = "committed" if ended.outcome == "succeeded" else "failed"
        assert {site.copies[copy].state for copy in image.copies.values()} == {wanted}
        assert site.instances[target].state == "running"
        assert all(site.has_copy(copy) == (ended.outcome == "succeeded") for copy in image.copies.values())
        return
    if kind == "transfer":
        copies = ended.accepted.request["copies"].values()
        assert {site.has_copy(copy) for copy in copies} == {ended.outcome == "succeeded"}
        return
    state = site.instances[target].state
    if ended.outcome == "succeeded":
        assert state == {"stop": "stopped", "delete": "deleted"}.get(kind, "running")
    else:
        assert state == {"stop": "degraded", "start": "stopped"}.get(kind, "failed")
    if kind in ("deploy", "run") and ended.outcome != "succeeded":
        instance = site.instances[target]
        assert instance.cleaned
        assert {one.state for one in instance.services.values()} <= {"pending", "removed"}
        assert {one.state for one in instance.data_services.values()} <= {"pending", "removed", "detached"}


def test_a_retry_waits_for_the_same_moment_in_whatever_process_asks() -> None:
    world, operation = begun("deploy")
    now = world.site.operations[operation]
    first = saga.react(now)[0].step.id
    world.tell(*consequences.expand(world.site, operation, saga.failed(now, first, 1, AWAY)))
    before = saga.react(world.site.operations[operation])
    world.restart()
    assert saga.react(world.site.operations[operation]) == before


def test_operations_that_failed_together_are_not_tried_again_together() -> None:
    waits = {saga.delay(4, AWAY, seed=f"{new_id()}/deploy-web/5") for _ in range(50)}
    assert len(waits) > 40
    assert all(2.0 <= wait <= 2.0 * 1.2 for wait in waits)
    assert saga.delay(10**9, None, seed="x") <= saga.MAX_DELAY_SECONDS * 1.2
