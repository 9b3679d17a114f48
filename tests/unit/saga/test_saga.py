"""The operation's state machine under every order of successes, failures, repeats and cancels."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import events as ev
from schemas import saga
from schemas.operations import Step
from schemas.problems import Problem, permanent, temporary
from schemas.values import Requester

BY = Requester(principal="admin")
BROKEN = permanent("broken", "it is broken")
AWAY = temporary("away", "it is away")


def accepted(*steps: Step) -> ev.OperationAccepted:
    return ev.OperationAccepted(kind="test", target="t", name="n", by=BY, steps=steps)


def step(id: str, *needs: str, undo: str | None = "undo", attempts: int = 2) -> Step:
    return Step(id=id, action="do", part=id, needs=needs, undo=undo, attempts=attempts)


def play(operation: saga.Operation | None, events: list[ev.Event]) -> saga.Operation:
    for event in events:
        operation = saga.evolve(operation, "op", event)
    assert operation is not None
    return operation


def begin(*steps: Step) -> saga.Operation:
    return play(None, saga.accept(accepted(*steps)))


def test_steps_start_when_all_their_needs_are_done() -> None:
    operation = begin(step("a"), step("b", "a"), step("c", "a", "b"))
    assert [effect.step.id for effect in saga.react(operation)] == ["a"]
    operation = play(operation, saga.succeeded(operation, "a", 1, {"x": 1}))
    assert [effect.step.id for effect in saga.react(operation)] == ["b"]
    assert operation.results() == {"a": {"x": 1}}


def test_an_operation_without_steps_succeeds_at_once() -> None:
    assert begin().state == "succeeded"


def test_a_temporary_problem_is_tried_again_and_the_last_attempt_is_final() -> None:
    operation = begin(step("a", attempts=2))
    operation = play(operation, saga.failed(operation, "a", 1, AWAY))
    [retry] = saga.react(operation)
    assert isinstance(retry, saga.Retry)
    assert retry.attempt == 2
    operation = play(operation, saga.retried(operation, "a", 2))
    operation = play(operation, saga.failed(operation, "a", 2, AWAY))
    assert operation.phase == "undoing"
    assert operation.problem == AWAY


def test_what_was_done_is_undone_in_reverse_order_and_the_cause_is_kept() -> None:
    operation = begin(step("a"), step("b", "a"), step("c", "b"))
    for name in ("a", "b"):
        operation = play(operation, saga.succeeded(operation, name, 1, {}))
    operation = play(operation, saga.failed(operation, "c", 1, BROKEN))
    order = []
    while operation.outcome is None:
        [effect] = saga.react(operation)
        assert isinstance(effect, saga.Undo)
        order.append(effect.step.id)
        operation = play(operation, saga.undone(operation, effect.step.id))
    assert order == ["c", "b", "a"]
    assert (operation.state, operation.cleanup, operation.problem) == ("failed", "done", BROKEN)


def test_a_failure_that_left_nothing_to_undo_ends_at_once() -> None:
    operation = begin(step("a", undo=None))
    operation = play(operation, saga.failed(operation, "a", 1, BROKEN))
    assert (operation.state, operation.cleanup) == ("failed", "none")


def test_clean_up_that_does_not_work_ends_the_operation_as_pending_and_goes_on() -> None:
    operation = begin(step("a"))
    operation = play(operation, saga.failed(operation, "a", 1, BROKEN))
    for attempt in range(1, saga.UNDO_ATTEMPTS_BEFORE_END + 1):
        operation = play(operation, saga.undo_failed(operation, "a", attempt, AWAY))
    assert (operation.state, operation.cleanup, operation.live) == ("failed", "pending", True)
    [effect] = saga.react(operation)
    assert isinstance(effect, saga.Undo)
    operation = play(operation, saga.undone(operation, "a"))
    assert (operation.state, operation.cleanup, operation.live) == ("failed", "done", False)


def test_cancel_undoes_and_a_late_success_changes_nothing() -> None:
    operation = begin(step("a"), step("b", "a"))
    operation = play(operation, saga.succeeded(operation, "a", 1, {}))
    operation = play(operation, saga.cancel(operation, BY))
    assert saga.succeeded(operation, "b", 1, {}) == []
    assert saga.cancel(operation, BY) == []
    operation = play(operation, saga.undone(operation, "b"))
    operation = play(operation, saga.undone(operation, "a"))
    assert (operation.state, operation.cleanup) == ("cancelled", "done")


def test_a_deadline_goes_back_too() -> None:
    operation = begin(step("a"))
    operation = play(operation, saga.give_up(operation, saga.deadline_passed(5)))
    operation = play(operation, saga.undone(operation, "a"))
    assert operation.state == "failed"
    assert operation.problem is not None
    assert operation.problem.code == "deadline"


@pytest.mark.parametrize("attempt", [0, 2, 7])
def test_results_of_another_attempt_are_ignored(attempt: int) -> None:
    operation = begin(step("a"))
    assert saga.succeeded(operation, "a", attempt, {}) == []
    assert saga.failed(operation, "a", attempt, BROKEN) == []


@st.composite
def plans(draw: st.DrawFn) -> tuple[Step, ...]:
    steps: list[Step] = []
    for number in range(draw(st.integers(1, 6))):
        needs = draw(st.sets(st.sampled_from([one.id for one in steps]), max_size=3)) if steps else set()
        undo = "undo" if draw(st.booleans()) else None
        steps.append(step(f"s{number}", *sorted(needs), undo=undo, attempts=draw(st.integers(1, 3))))
    return tuple(steps)


@settings(max_examples=150, deadline=None)
@given(plan=plans(), seed=st.integers(0, 2**32))
def test_every_operation_ends_and_never_contradicts_its_steps(plan: tuple[Step, ...], seed: int) -> None:
    """Effects fail, succeed, are repeated, and the runner forgets everything but the events at any moment."""
    chance = random.Random(seed)
    history: list[ev.Event] = saga.accept(accepted(*plan))
    made: set[str] = set()

    for _ in range(2000):
        operation = saga.fold("op", history)  # a crash: only the events are left
        assert operation is not None
        effects = saga.react(operation)
        assert saga.react(operation) == effects
        if not operation.live:
            break
        assert effects, "a live operation must have something under way"
        if chance.random() < 0.03:
            history += saga.cancel(operation, BY)
            continue
        effect = chance.choice(effects)
        history += _result(operation, effect, made, chance)
    else:
        pytest.fail("the operation did not end")

    operation = saga.fold("op", history)
    assert operation is not None
    if operation.state == "succeeded":
        assert made == {one.id for one in plan}
        assert all(state.status == "done" for state in operation.steps.values())
    else:
        undoable = {one.id for one in plan if one.undo}
        assert not made & undoable, "something that can be undone was left behind"
        assert operation.cleanup in ("done", "none")


def _result(operation: saga.Operation, effect: saga.Effect, made: set[str], chance: random.Random) -> list[ev.Event]:
    name = effect.step.id
    luck = chance.random()
    match effect:
        case saga.Retry(attempt=attempt):
            return saga.retried(operation, name, attempt)
        case saga.Undo(attempt=attempt):
            users = [one.id for one in operation.accepted.steps if name in one.needs and one.undo]
            assert not made & set(users), "undone before what was built on it"
            if luck < 0.5:
                return saga.undo_failed(operation, name, attempt, AWAY)
            made.discard(name)
            return saga.undone(operation, name)
    assert all(operation.steps[need].status == "done" for need in effect.step.needs)
    made.add(name)  # it may have done its work even when it fails
    if luck < 0.15:
        return []  # the result is lost: the runner asks again
    problem: Problem | None = AWAY if luck < 0.35 else BROKEN if luck < 0.45 else None
    if problem is not None:
        return saga.failed(operation, name, effect.attempt, problem)
    return saga.succeeded(operation, name, effect.attempt, {})
