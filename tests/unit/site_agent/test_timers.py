"""Deadlines and waits of operations end at moments that follow from what is stored, in whatever process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from schemas import commands as cmd
from schemas import saga, timers
from schemas.operations import Step
from schemas.problems import CalqueError, temporary
from site_agent.application import runner as runners
from site_agent.application.runner import Runner
from site_agent.domain import plans
from tests.patience import patience
from tests.unit.site_agent.test_journal import DEPLOY, Parts
from tests.unit.site_agent.world import BY, good


class Hands:
    """Does what brokers would; what a test says hangs, or fails first."""

    def __init__(self, *, hangs: str = "", away: str = "", stuck: str = "") -> None:
        self.hangs = hangs
        self.stuck = stuck
        self.away = away
        self.attempts: list[tuple[str, int]] = []

    async def perform(self, operation: saga.Operation, step: Step, attempt: int) -> dict[str, Any]:
        """Of a step."""
        self.attempts.append((step.id, attempt))
        if step.id == self.hangs:
            await asyncio.Event().wait()
        if step.id == self.away:
            raise CalqueError(temporary("away", "it is away", retry_after_seconds=20.0))
        result = good(step.action, step.part)
        assert isinstance(result, dict)
        return result

    async def undo(self, operation: saga.Operation, step: Step, attempt: int) -> None:
        """Done at once, but for what is stuck."""
        if step.id == self.stuck:
            await asyncio.Event().wait()

    async def stop_attempts(self, operation: saga.Operation, step: Step) -> None:
        """Nothing is left."""


async def until(holds: Callable[[], bool], *, seconds: float = 5.0) -> None:
    async with asyncio.timeout(patience(seconds)):
        while True:
            if holds():
                return
            await asyncio.sleep(0.005)


async def restarted(parts: Parts, hands: Hands, *, later: float) -> Runner:
    """A new agent, so many seconds later."""
    parts.store.now += timedelta(seconds=later)
    parts.restart()
    await parts.journal.load()
    runner = Runner(parts.journal, hands, clock=lambda: parts.store.now)
    runner.resume()
    return runner


async def begun(parts: Parts, **more: Any) -> str:
    answer = await parts.send(msgspec.structs.replace(DEPLOY, **more), "i1", id="c1")
    assert answer.state == "accepted", answer
    return "c1"


FIRST = plans.step_id(plans.PROVISION, "db")


async def test_a_restart_neither_loses_nor_restarts_the_deadline_of_an_operation() -> None:
    parts = await Parts().begin()
    id = await begun(parts, deadline_seconds=100.0)
    runner = await restarted(parts, Hands(hangs=FIRST), later=60)
    assert parts.journal.site.operations[id].phase == "running"
    await runner.stop()
    runner = await restarted(parts, Hands(hangs=FIRST), later=41)
    await until(lambda: parts.journal.site.operations[id].outcome == "failed")
    problem = parts.journal.site.operations[id].problem
    assert problem is not None
    assert problem.code == "deadline"
    await runner.stop()


async def test_a_restart_does_not_restart_the_time_of_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "LAST_LOOK_SECONDS", 0.02)
    parts = await Parts().begin()
    id = await begun(parts)
    hands = Hands(hangs=FIRST)
    runner = await restarted(parts, hands, later=60)  # of 120
    await until(lambda: (FIRST, 1) in hands.attempts)
    await runner.stop()
    hands = Hands(hangs=FIRST)
    runner = await restarted(parts, hands, later=61)
    await until(lambda: parts.journal.site.operations[id].steps[FIRST].status == "waiting")
    state = parts.journal.site.operations[id].steps[FIRST]
    assert (state.attempt, state.problem and state.problem.code) == (1, "timeout")
    await runner.stop()


async def test_what_was_finished_while_the_agent_was_away_is_taken_though_its_time_is_over() -> None:
    parts = await Parts().begin()
    id = await begun(parts)
    runner = await restarted(parts, Hands(), later=3000)
    await until(lambda: parts.journal.site.operations[id].outcome == "succeeded")
    await runner.stop()


async def test_a_wait_before_a_retry_goes_on_where_it_was() -> None:
    parts = await Parts().begin()
    id = await begun(parts)
    hands = Hands(away=FIRST)
    runner = await restarted(parts, hands, later=0)
    await until(lambda: parts.journal.site.operations[id].steps[FIRST].status == "waiting")
    await runner.stop()
    hands = Hands(away=FIRST)
    runner = await restarted(parts, hands, later=10)  # of 20 to 24
    other = plans.step_id(plans.PROVISION, "files")
    await until(lambda: parts.journal.site.operations[id].steps[other].status == "done")
    assert (FIRST, 2) not in hands.attempts
    await runner.stop()
    hands = Hands()
    runner = await restarted(parts, hands, later=15)
    await until(lambda: (FIRST, 2) in hands.attempts)
    await runner.stop()


async def test_a_restart_does_not_restart_the_time_of_an_attempt_at_undoing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "LAST_LOOK_SECONDS", 0.02)
    parts = await Parts().begin()
    id = await begun(parts, deadline_seconds=100.0)
    other = plans.step_id(plans.PROVISION, "files")
    runner = await restarted(parts, Hands(hangs=other), later=0)
    await until(lambda: parts.journal.site.operations[id].steps[FIRST].status == "done")
    await runner.stop()
    runner = await restarted(parts, Hands(stuck=FIRST), later=101)  # its deadline passes, and it goes back
    await until(lambda: parts.journal.site.operations[id].phase == "undoing")
    await runner.stop()
    runner = await restarted(parts, Hands(stuck=FIRST), later=runners.UNDO_SECONDS / 2)
    assert parts.journal.site.operations[id].steps[FIRST].undo_attempt == 0
    await runner.stop()
    runner = await restarted(parts, Hands(stuck=FIRST), later=runners.UNDO_SECONDS / 2 + 1)
    await until(lambda: parts.journal.site.operations[id].steps[FIRST].undo_attempt == 1)
    await runner.stop()
    runner = await restarted(parts, Hands(stuck=FIRST), later=runners.UNDO_SECONDS + 100)
    await until(lambda: parts.journal.site.operations[id].steps[FIRST].undo_attempt == 2)
    await runner.stop()


async def test_the_times_of_an_operation_that_is_over_are_forgotten() -> None:
    parts = await Parts().begin()
    id = await begun(parts)
    runner = await restarted(parts, Hands(), later=1)
    await until(lambda: parts.journal.site.operations[id].outcome == "succeeded")
    await runner.stop()
    assert parts.journal.site.changed_at == {}


def test_a_clock_that_was_set_back_makes_nothing_wait_longer_than_its_whole_length() -> None:
    assert timers.left(30.0, since=1000.0, now=400.0) == 30.0
    assert timers.left(30.0, since=1000.0, now=1010.0) == 20.0
    assert timers.left(30.0, since=1000.0, now=10_000.0) == 0.0


@pytest.mark.parametrize("seconds", [0.0, -1.0, 40 * 86400.0])
async def test_a_deadline_that_is_none_is_refused(seconds: float) -> None:
    parts = await Parts().begin()
    answer = await parts.send(cmd.SiteStopInstance(by=BY, deadline_seconds=seconds), "i1", id="c9")
    assert answer.problem is not None
    assert (answer.state, answer.problem.field) == ("rejected", "deadline_seconds")
