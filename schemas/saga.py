"""The state machine of an operation, shared by the sagas of sites and hub. Pure: no I/O, no clock, no randomness.

An operation is a plan of steps (:class:`schemas.operations.Step`) that is fixed when it is accepted. Its state is
the fold of its events (:func:`evolve`), what should be under way now follows from the state alone
(:func:`react`), and what a finished effect leads to is decided by the functions that return events. A runner that
crashed loads the events, asks :func:`react` again and goes on; effects are idempotent by their ids.

    accepted -> running -> succeeded
                   |-----> undoing -> failed | cancelled      (cleanup: done, or pending and repeated for ever)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from schemas.base import Fact
from schemas.events import (
    CancelRequested,
    Event,
    OperationAccepted,
    OperationCancelled,
    OperationCleanedUp,
    OperationFailed,
    OperationSucceeded,
    StepFailed,
    StepStarted,
    StepSucceeded,
    StepUndoFailed,
    StepUndone,
    UndoStarted,
)
from schemas.operations import Step, effect_id
from schemas.problems import Problem, temporary
from schemas.timers import spread
from schemas.values import Cleanup, OperationState, Requester

StepStatus = Literal["pending", "running", "waiting", "done", "failed", "undone"]

S = TypeVar("S", bound=msgspec.Struct)

UNDO_ATTEMPTS_BEFORE_END = 5
MAX_DELAY_SECONDS = 30.0


class StepState(Fact, frozen=True, kw_only=True):
    """A step and how far it is. ``waiting`` means that a failed attempt will be followed by another."""

    step: Step
    status: StepStatus = "pending"
    attempt: int = 0
    result: dict[str, Any] = {}
    problem: Problem | None = None
    undo_attempt: int = 0

    @property
    def touched(self) -> bool:
        """Whether anything of it may exist that has to be undone."""
        return self.status in ("running", "waiting", "done", "failed")


class Operation(Fact, frozen=True, kw_only=True):
    """The state of one operation."""

    id: str
    accepted: OperationAccepted
    steps: dict[str, StepState]
    phase: Literal["running", "undoing", "ended"] = "running"
    outcome: Literal["succeeded", "failed", "cancelled"] | None = None
    problem: Problem | None = None
    cancelled: bool = False
    cleanup: Cleanup = "none"
    result: dict[str, Any] = {}

    @property
    def state(self) -> OperationState:
        """The state in the words of the design."""
        if self.outcome is not None:
            return self.outcome
        return "running" if any(step.status != "pending" for step in self.steps.values()) else "accepted"

    @property
    def live(self) -> bool:
        """Whether a runner still has something to do for it."""
        return self.outcome is None or self.cleanup in ("pending", "stuck")

    def results(self) -> dict[str, dict[str, Any]]:
        """The results of the steps that are done."""
        return {name: state.result for name, state in self.steps.items() if state.status == "done"}


class Do(NamedTuple):
    """Perform ``step`` now; its id is ``effect_id(operation, step, attempt)``."""

    step: Step
    attempt: int


class Retry(NamedTuple):
    """Start another attempt after ``delay_seconds``: append :func:`retried`, then it is a :class:`Do`."""

    step: Step
    attempt: int
    delay_seconds: float


class Undo(NamedTuple):
    """Take ``step`` back after ``delay_seconds``. First make sure that no effect of it is under way any more."""

    step: Step
    attempt: int
    delay_seconds: float


Effect = Do | Retry | Undo


def evolve(operation: Operation | None, id: str, event: Event) -> Operation | None:
    """The state after ``event``. Events of other kinds, and events before the acceptance, change nothing."""
    if isinstance(event, OperationAccepted):
        return Operation(id=id, accepted=event, steps={step.id: StepState(step=step) for step in event.steps})
    if operation is None:
        return None
    match event:
        case StepStarted(step=name, attempt=attempt):
            return _with(operation, name, status="running", attempt=attempt, problem=None)
        case StepSucceeded(step=name, attempt=attempt, result=result):
            return _with(operation, name, status="done", attempt=attempt, result=result, problem=None)
        case StepFailed(step=name, attempt=attempt, problem=problem, final=final):
            return _with(operation, name, status="failed" if final else "waiting", attempt=attempt, problem=problem)
        case UndoStarted(problem=problem, cancelled=cancelled):
            return _replace(operation, phase="undoing", problem=problem, cancelled=cancelled, cleanup="pending")
        case StepUndone(step=name):
            return _with(operation, name, status="undone")
        case StepUndoFailed(step=name, attempt=attempt, problem=problem):
            return _with(operation, name, undo_attempt=attempt, problem=problem)
        case OperationSucceeded(result=result):
            return _replace(operation, phase="ended", outcome="succeeded", result=result, cleanup="none")
        case OperationFailed(problem=problem, cleanup=cleanup):
            return _replace(operation, phase="ended", outcome="failed", problem=problem, cleanup=cleanup)
        case OperationCancelled(cleanup=cleanup):
            return _replace(operation, phase="ended", outcome="cancelled", cleanup=cleanup)
        case OperationCleanedUp():
            return _replace(operation, cleanup="done")
    return operation


def fold(id: str, events: Iterable[Event]) -> Operation | None:
    """The state after all ``events``."""
    operation: Operation | None = None
    for event in events:
        operation = evolve(operation, id, event)
    return operation


def react(operation: Operation) -> list[Effect]:
    """What should be under way now. Asked again in the same state it answers the same."""
    if operation.outcome is None and operation.phase == "running":
        effects: list[Effect] = []
        for state in operation.steps.values():
            if state.status == "running":
                effects.append(Do(state.step, state.attempt))
            elif state.status == "waiting":
                seed = effect_id(operation.id, state.step.id, state.attempt + 1)
                wait = delay(state.attempt, state.problem, seed=seed)
                effects.append(Retry(state.step, state.attempt + 1, wait))
        return effects
    if not operation.live:
        return []
    return [
        Undo(state.step, state.undo_attempt + 1, _undo_delay(operation, state))
        for state in _to_undo(operation)
        if _undoable(operation, state.step)
    ]


def delay(attempt: int, problem: Problem | None, *, seed: str) -> float:
    """Seconds to wait after ``attempt`` failed: doubling from a quarter, at least what the problem asks for, spread by
    the ``seed`` (the id of the attempt to come)."""
    grown = min(0.25 * 2.0 ** min(max(attempt - 1, 0), 10), MAX_DELAY_SECONDS)
    wanted = problem.retry_after_seconds if problem and problem.retry_after_seconds else 0.0
    return spread(max(grown, min(wanted, MAX_DELAY_SECONDS)), seed=seed)


def _undo_delay(operation: Operation, state: StepState) -> float:
    if not state.undo_attempt:
        return 0.0
    seed = effect_id(operation.id, f"undo-{state.step.id}", state.undo_attempt + 1)
    return delay(state.undo_attempt, state.problem, seed=seed)


# What a decision leads to. Each returns the events to append; an empty list means that it came too late.


def accept(accepted: OperationAccepted) -> list[Event]:
    """The events that begin an operation."""
    operation = evolve(None, "", accepted)
    assert operation is not None
    return [accepted, *_onward(operation)]


def succeeded(operation: Operation, step: str, attempt: int, result: dict[str, Any]) -> list[Event]:
    """An effect did its work."""
    if not _current(operation, step, attempt):
        return []
    event = StepSucceeded(step=step, attempt=attempt, result=result)
    after = evolve(operation, operation.id, event)
    assert after is not None
    return [event, *_onward(after)]


def failed(operation: Operation, step: str, attempt: int, problem: Problem) -> list[Event]:
    """An attempt failed: another one follows when the problem is temporary and attempts are left."""
    if not _current(operation, step, attempt):
        return []
    final = not problem.temporary or attempt >= operation.steps[step].step.attempts
    event = StepFailed(step=step, attempt=attempt, problem=problem, final=final)
    if not final:
        return [event]
    after = evolve(operation, operation.id, event)
    assert after is not None
    return [event, *give_up(after, problem)]


def retried(operation: Operation, step: str, attempt: int) -> list[Event]:
    """The wait before ``attempt`` is over."""
    state = operation.steps.get(step)
    if operation.phase != "running" or state is None or state.status != "waiting" or state.attempt + 1 != attempt:
        return []
    return [StepStarted(step=step, attempt=attempt)]


def give_up(operation: Operation, problem: Problem) -> list[Event]:
    """The operation can't succeed (a step failed for good, its deadline passed): go back."""
    if operation.phase != "running" or operation.outcome is not None:
        return []
    return _settled(operation, UndoStarted(problem=problem))


def cancel(operation: Operation, by: Requester) -> list[Event]:
    """Somebody wants it cancelled. Nothing happens to one that has ended or already goes back."""
    if operation.phase != "running" or operation.outcome is not None:
        return []
    return [CancelRequested(by=by), *_settled(operation, UndoStarted(cancelled=True))]


def undone(operation: Operation, step: str) -> list[Event]:
    """What ``step`` had made is gone."""
    state = operation.steps.get(step)
    if state is None or not state.touched or operation.phase == "running" or not operation.live:
        return []
    return _settled(operation, StepUndone(step=step))


def undo_failed(operation: Operation, step: str, attempt: int, problem: Problem) -> list[Event]:
    """Undoing failed and is repeated. After some attempts the operation ends, with its clean-up pending."""
    state = operation.steps.get(step)
    if state is None or not state.touched or operation.phase == "running" or attempt != state.undo_attempt + 1:
        return []
    events: list[Event] = [StepUndoFailed(step=step, attempt=attempt, problem=problem)]
    if operation.outcome is None and attempt >= UNDO_ATTEMPTS_BEFORE_END:
        events.append(_ending(operation, "pending"))
    return events


def leave(operation: Operation) -> list[Event]:
    """It goes back for too long: it ends, with its clean-up pending, which goes on."""
    if operation.phase != "undoing" or operation.outcome is not None:
        return []
    return [_ending(operation, "pending")]


def deadline_passed(seconds: float) -> Problem:
    """The problem of an operation that took longer than its deadline."""
    return temporary("deadline", f"the operation did not end within {seconds:.0f} s")


def _current(operation: Operation, step: str, attempt: int) -> bool:
    state = operation.steps.get(step)
    return operation.phase == "running" and state is not None and state.status == "running" and state.attempt == attempt


def _onward(operation: Operation) -> list[Event]:
    """Start all steps whose needs are done, or end the operation when nothing is left."""
    states = operation.steps
    if all(state.status == "done" for state in states.values()):
        return [OperationSucceeded()]
    return [
        StepStarted(step=state.step.id, attempt=1)
        for state in states.values()
        if state.status == "pending" and all(states[need].status == "done" for need in state.step.needs)
    ]


def _settled(operation: Operation, event: Event) -> list[Event]:
    """``event`` and, when nothing is left to undo after it, the end of the operation."""
    after = evolve(operation, operation.id, event)
    assert after is not None
    if _to_undo(after):
        return [event]
    if after.outcome is not None:
        return [event, OperationCleanedUp()]
    made = any(state.status == "undone" for state in after.steps.values())
    return [event, _ending(after, "done" if made else "none")]


def _ending(operation: Operation, cleanup: Cleanup) -> Event:
    if operation.cancelled:
        return OperationCancelled(cleanup=cleanup)
    assert operation.problem is not None
    return OperationFailed(problem=operation.problem, cleanup=cleanup)


def _to_undo(operation: Operation) -> Sequence[StepState]:
    return [state for state in operation.steps.values() if state.touched and state.step.undo is not None]


def _undoable(operation: Operation, step: Step) -> bool:
    """Whether everything that was built on ``step`` is undone already."""
    remaining = {state.step.id for state in _to_undo(operation)}
    dependants = [state.step for state in operation.steps.values() if step.id in state.step.needs]
    seen: set[str] = set()
    while dependants:
        dependant = dependants.pop()
        if dependant.id in remaining:
            return False
        if dependant.id not in seen:
            seen.add(dependant.id)
            dependants += [state.step for state in operation.steps.values() if dependant.id in state.step.needs]
    return True


def _with(operation: Operation, name: str, **changes: Any) -> Operation:
    state = operation.steps.get(name)
    if state is None:
        return operation
    steps = dict(operation.steps)
    steps[name] = _replace(state, **changes)
    return _replace(operation, steps=steps)


def _replace(value: S, **changes: Any) -> S:
    return msgspec.structs.replace(value, **changes)
