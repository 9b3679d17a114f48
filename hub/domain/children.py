"""How an operation of the hub goes on from what its child operations at the sites did. Pure.

The hub does nothing itself: each step is one command to a site, whose id is that of the step's attempt, and the
step ends as that command's operation does. What to send and what has ended both follow from the stored state, so
they can be asked again and again, by any hub.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import msgspec

from hub.domain.images import FORGET, RUN, TRANSFER, DeleteRequest, RunRequest, TransferRequest
from schemas import saga
from schemas.commands import (
    SiteCancelOperation,
    SiteCommand,
    SiteDeleteInstance,
    SiteForgetImage,
    SiteRunImage,
    SiteTransferImage,
)
from schemas.events import Event
from schemas.operations import Step, effect_id
from schemas.problems import Actor, Problem, permanent
from schemas.saga import Do, Operation, Retry, StepState, Undo
from schemas.timers import left

FORGET_AGAIN_SECONDS = 30.0
TURN_SECONDS = 2.0
UNDO_SECONDS = 600.0
"""An operation that goes back for longer has ended, with its clean-up pending."""


class Child(NamedTuple):
    """How a command to a site ended, or that it is under way."""

    state: Literal["running", "succeeded", "failed", "cancelled", "rejected"]
    problem: Problem | None = None

    @property
    def ended(self) -> bool:
        return self.state != "running"


class Outgoing(NamedTuple):
    """A command to be sent to a site; the same one may be sent again, its ``id`` makes that one effect."""

    id: str
    site: str
    aggregate_id: str
    command: SiteCommand


class Clockwork(NamedTuple):
    """Times in seconds of one clock: now, when the operation was accepted, when each step last changed, and since when
    the operation goes back, if it does."""

    now: float
    accepted: float
    changed: Mapping[str, float]
    undoing: float | None = None

    def is_over(self, seconds: float, *, since: float | None) -> bool:
        """Whether ``seconds`` have passed since then, by a clock that may have been set."""
        return since is not None and left(seconds, since=since, now=self.now) <= 0

    def since(self, step: str) -> float:
        """When ``step`` last changed."""
        return self.changed.get(step, self.accepted)


Lookup = Callable[[str, str], Child | None]
"""``(site, id of a command)`` -> what the site made of it, ``None`` while nothing is known."""


def operation_of(id: str) -> str | None:
    """The operation that the effect ``id`` belongs to; ``None`` when it is not the id of an effect."""
    match id.split("/"):
        case [operation, _, attempt] if operation and attempt.isdigit():
            return operation
    return None


def advance(operation: Operation, child: Lookup, *, clock: Clockwork) -> list[Event]:
    """The next events of the operation, if anything has happened; ask again after they are stored."""
    if operation.phase == "running" and operation.outcome is None:
        limit = operation.accepted.deadline_seconds
        if clock.is_over(limit, since=clock.accepted):
            return saga.give_up(operation, saga.deadline_passed(limit))
    if clock.is_over(UNDO_SECONDS, since=clock.undoing) and (ended := saga.leave(operation)):
        return ended  # a site is away: whoever waits learns how it ended, and cleaning up goes on
    for effect in saga.react(operation):
        name = effect.step.id
        match effect:
            case Do(attempt=attempt):
                events = _done(operation, effect.step, attempt, child)
            case Retry(attempt=attempt, delay_seconds=delay):
                due = clock.is_over(delay, since=clock.since(name))
                events = saga.retried(operation, name, attempt) if due else []
            case Undo(attempt=attempt):
                events = _undone(operation, operation.steps[name], attempt, child)
        if events:
            return events
    return []


def outgoing(operation: Operation, child: Lookup, *, clock: Clockwork) -> list[Outgoing]:
    """The commands that should be at their sites now, of those that no site has taken up yet."""
    wanted: list[Outgoing] = []
    for effect in saga.react(operation):
        match effect:
            case Do(step=step, attempt=attempt):
                wanted.append(_command(operation, step, attempt))
            case Undo(step=step, attempt=attempt, delay_seconds=delay):
                if clock.is_over(delay, since=clock.since(step.id)):
                    wanted += _take_back(operation, operation.steps[step.id], attempt, child)
            case Retry():
                pass
    if operation.phase != "running":
        # A step without an undo leaves what it made, but it must not go on when the operation goes back.
        for state in operation.steps.values():
            if state.status == "running" and state.step.undo is None:
                wanted += _cancel(operation, state, 1, child)
    return [each for each in wanted if child(each.site, each.id) is None]


def _done(operation: Operation, step: Step, attempt: int, child: Lookup) -> list[Event]:
    id = effect_id(operation.id, step.id, attempt)
    found = child(step.part, id)
    if found is None or not found.ended:
        return []
    if found.state == "succeeded" or (step.action == FORGET and _says_not_found(found)):
        return saga.succeeded(operation, step.id, attempt, {"site": step.part, "operation": id})
    problem = found.problem or permanent(
        "child_cancelled", f"operation {id} at site {step.part} was cancelled", field=step.id
    )
    if step.action == FORGET:
        problem = _deferred(problem, FORGET_AGAIN_SECONDS)
    elif step.action == TRANSFER and found.state == "rejected" and problem.code == "conflict":
        problem = _deferred(problem, TURN_SECONDS)
    elif problem.temporary:
        # The site has made its own attempts; another one from here would only repeat them.
        problem = msgspec.structs.replace(problem, actor=Actor.BROKER, retry_after_seconds=None)
    return saga.failed(operation, step.id, attempt, problem)


def _deferred(problem: Problem, seconds: float) -> Problem:
    """Put off, not given up: whatever the site said, it is asked again later."""
    return msgspec.structs.replace(
        problem, actor=Actor.ENVIRONMENT, retry_after_seconds=problem.retry_after_seconds or seconds
    )


def _undone(operation: Operation, state: StepState, attempt: int, child: Lookup) -> list[Event]:
    site, name = state.step.part, state.step.id
    found = child(site, effect_id(operation.id, name, state.attempt))
    if found is None or found.state == "running":
        cancelled = child(site, effect_id(operation.id, f"cancel-{name}", attempt))
        # The command may never have been sent. A site that has cancelled what it does not know never begins it.
        never = cancelled is not None and (cancelled.state == "succeeded" or _says_not_found(cancelled))
        return saga.undone(operation, name) if found is None and never else []
    if found.state != "succeeded":
        return saga.undone(operation, name)
    removed = child(site, effect_id(operation.id, f"remove-{name}", attempt))
    if removed is None or not removed.ended:
        return []
    if removed.state == "succeeded" or _says_not_found(removed):
        return saga.undone(operation, name)
    problem = removed.problem or permanent("child_cancelled", f"removing at site {site} was cancelled", field=name)
    return saga.undo_failed(operation, name, attempt, problem)


def _says_not_found(child: Child) -> bool:
    return child.state == "rejected" and child.problem is not None and child.problem.code == "not_found"


def _take_back(operation: Operation, state: StepState, attempt: int, child: Lookup) -> list[Outgoing]:
    found = child(state.step.part, effect_id(operation.id, state.step.id, state.attempt))
    if found is None or found.state == "running":
        return _cancel(operation, state, attempt, child)
    if found.state == "succeeded" and state.step.action == RUN:
        request = msgspec.convert(operation.accepted.request, RunRequest)
        return [
            Outgoing(
                effect_id(operation.id, f"remove-{state.step.id}", attempt),
                state.step.part,
                request.instance,
                SiteDeleteInstance(by=operation.accepted.by, parent=operation.id),
            )
        ]
    return []


def _cancel(operation: Operation, state: StepState, attempt: int, child: Lookup) -> list[Outgoing]:
    target = effect_id(operation.id, state.step.id, state.attempt)
    found = child(state.step.part, target)
    if found is not None and found.ended:
        return []
    return [
        Outgoing(
            effect_id(operation.id, f"cancel-{state.step.id}", attempt),
            state.step.part,
            target,
            SiteCancelOperation(by=operation.accepted.by, parent=operation.id),
        )
    ]


def _command(operation: Operation, step: Step, attempt: int) -> Outgoing:
    id, by = effect_id(operation.id, step.id, attempt), operation.accepted.by
    if step.action == FORGET:
        deletion = msgspec.convert(operation.accepted.request, DeleteRequest)
        forget = SiteForgetImage(by=by, parent=operation.id, content=deletion.content)
        return Outgoing(id, step.part, deletion.image, forget)
    if step.action == TRANSFER:
        wanted = msgspec.convert(operation.accepted.request, TransferRequest)
        transfer = SiteTransferImage(
            by=by,
            parent=operation.id,
            content=wanted.content,
            source=wanted.source,
            repository=wanted.repository,
            bytes_per_second=wanted.bytes_per_second,
        )
        return Outgoing(id, step.part, wanted.image, transfer)
    request = msgspec.convert(operation.accepted.request, RunRequest)
    run = SiteRunImage(
        by=by,
        parent=operation.id,
        name=request.name,
        content=request.content,
        environment=request.environment,
        plans=request.plans,
        expected_plan=request.expected_plan,
        environment_name=request.environment_name,
        without=request.without,
        including=request.including,
        artifacts=request.artifacts,
    )
    return Outgoing(id, step.part, request.instance, run)
