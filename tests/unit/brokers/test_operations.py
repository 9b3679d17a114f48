"""The engine of a broker's operations: one effect per id, whatever is repeated, cancelled or restarted."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from brokers.sdk import operations
from brokers.sdk.errors import permanent_error
from brokers.sdk.operations import Key, OperationEngine
from brokers.sdk.outcomes import KEEP_SECONDS, OutcomeStore
from brokers.sdk.progress import Reporter
from schemas.brokers import BytesDone, Done, Held, Outcome, Provisioned
from schemas.envelope import convert
from schemas.problems import CalqueError, Problem, temporary

KEY = Key("op/step/1", "provision")
Opener = Callable[[], Awaitable[OperationEngine]]


class Broken(Exception):
    """An error of the technology behind the broker."""


def explain(error: BaseException) -> Problem | None:
    return temporary("unavailable", "the server is away") if isinstance(error, Broken) else None


@pytest.fixture
async def restart(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens the engine, again and again on the same state."""
    opened: list[OperationEngine] = []

    async def restart() -> OperationEngine:
        for engine in opened:
            await engine.close()
        engine = OperationEngine(OutcomeStore(tmp_path / "operations"), explain=explain)
        await engine.open()
        opened[:] = [engine]
        return engine

    yield restart
    for engine in opened:
        await engine.close()


class Work:
    """Work that counts its runs, waits until it is let go, and says when it was cut off."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.runs = 0
        self.cleaned = 0
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self._error = error

    async def __call__(self, reporter: Reporter) -> Provisioned:
        self.runs += 1
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cleaned += 1
            raise
        if self._error:
            raise self._error
        reporter.report(done=5, total=5)
        return Provisioned(resource={"database": "d"})


async def ended(engine: OperationEngine, id: str) -> Outcome:
    deadline = asyncio.get_running_loop().time() + 60
    while (outcome := engine.status(id)).state == "running":
        assert asyncio.get_running_loop().time() < deadline, f"{id} still runs"
        await asyncio.sleep(0.001)
    return outcome


async def test_the_same_request_joins_the_work_and_then_gets_its_outcome_for_ever(restart: Opener) -> None:
    engine, work = await restart(), Work()
    for _ in range(3):
        assert (await engine.start(KEY, work)).state == "running"
    work.go_on.set()
    outcome = await ended(engine, KEY.id)
    assert (outcome.state, work.runs) == ("succeeded", 1)
    assert convert(outcome.result, Provisioned).resource == {"database": "d"}
    assert await engine.start(KEY, work) == outcome
    engine = await restart()
    assert engine.status(KEY.id) == outcome
    assert await engine.start(KEY, work) == outcome
    assert work.runs == 1


async def test_work_that_a_restart_interrupted_is_unknown_and_begins_anew(restart: Opener) -> None:
    engine, work = await restart(), Work()
    await engine.start(KEY, work)
    await work.begun.wait()
    engine = await restart()
    assert work.cleaned == 1
    with pytest.raises(CalqueError) as unknown:
        engine.status(KEY.id)
    assert unknown.value.problem.code == "not_found"
    work.go_on.set()
    await engine.start(KEY, work)
    assert (await ended(engine, KEY.id)).state == "succeeded"
    assert work.runs == 2


@pytest.mark.parametrize(
    ("error", "code", "passes"),
    [
        (Broken("secret words"), "unavailable", True),
        (permanent_error("full", "the disk is full"), "full", False),
        (TimeoutError(), "timeout", True),
        (ConnectionResetError(), "unavailable", True),
        (KeyError("secret words"), "internal", False),
    ],
)
async def test_a_failure_says_who_must_act_and_no_details_of_its_own(
    restart: Opener, error: Exception, code: str, passes: bool
) -> None:
    engine, work = await restart(), Work(error=error)
    work.go_on.set()
    await engine.start(KEY, work)
    problem = (await ended(engine, KEY.id)).problem
    assert problem is not None
    assert (problem.code, problem.temporary) == (code, passes)
    assert "secret words" not in problem.sentence()
    assert (await engine.start(KEY, work)).problem == problem
    assert work.runs == 1


async def test_cancel_waits_for_the_clean_up_and_is_remembered(restart: Opener) -> None:
    engine, work = await restart(), Work()
    await engine.start(KEY, work)
    await work.begun.wait()
    first, second = await asyncio.gather(engine.cancel(KEY.id), engine.cancel(KEY.id))
    assert first.state == second.state == "cancelled"
    assert work.cleaned == 1
    engine = await restart()
    assert (await engine.start(KEY, work)).state == "cancelled"
    assert (await engine.cancel(KEY.id)).state == "cancelled"
    assert work.runs == 1


async def test_cancel_before_the_request_stops_it_from_ever_beginning(restart: Opener) -> None:
    engine, work = await restart(), Work()
    assert (await engine.cancel(KEY.id)).state == "cancelled"
    engine = await restart()
    assert (await engine.start(KEY, work)).state == "cancelled"
    with pytest.raises(CalqueError) as refused:
        await engine.once(KEY, lambda: _done([]))
    assert refused.value.problem.code == "cancelled"
    assert work.runs == 0


async def test_cancel_leaves_what_has_finished_as_it_is(restart: Opener) -> None:
    engine, work = await restart(), Work()
    work.go_on.set()
    await engine.start(KEY, work)
    outcome = await ended(engine, KEY.id)
    assert await engine.cancel(KEY.id) == outcome


async def test_cancel_while_waiting_for_another_operation(restart: Opener) -> None:
    engine, first, second = await restart(), Work(), Work()
    await engine.start(KEY, first, resource="service/1")
    await first.begun.wait()
    await engine.start(Key("other", "deprovision"), second, resource="service/1")
    assert (await engine.cancel("other")).state == "cancelled"
    assert second.runs == 0
    first.go_on.set()
    assert (await ended(engine, KEY.id)).state == "succeeded"


async def test_a_cancel_whose_clean_up_takes_long_says_so_and_the_status_tells_the_end(
    restart: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "CANCEL_ANSWER_SECONDS", 0.05)
    engine, clean, begun = await restart(), asyncio.Event(), asyncio.Event()

    async def work(_: Reporter) -> Provisioned:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await clean.wait()
        raise AssertionError("it was cancelled")

    await engine.start(KEY, work)
    await begun.wait()
    assert (await engine.cancel(KEY.id)).state == "running"
    assert (await engine.cancel(KEY.id)).state == "running"
    clean.set()
    assert (await ended(engine, KEY.id)).state == "cancelled"


async def test_a_cancellation_that_got_lost_is_repeated(restart: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "CANCEL_ANSWER_SECONDS", 0.02)
    monkeypatch.setattr(operations, "CANCEL_AGAIN_SECONDS", 0.1)
    engine, begun, lost = await restart(), asyncio.Event(), 0

    async def work(_: Reporter) -> Provisioned:
        nonlocal lost
        begun.set()
        while lost < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:  # as the code of others may do it
                lost += 1
        await asyncio.Event().wait()
        raise AssertionError("it was cancelled")

    await engine.start(KEY, work)
    await begun.wait()
    assert (await engine.cancel(KEY.id)).state == "running"
    assert (await ended(engine, KEY.id)).state == "cancelled"
    assert lost == 2


async def test_operations_on_one_resource_run_one_after_another(restart: Opener) -> None:
    engine, first, second, elsewhere = await restart(), Work(), Work(), Work()
    await engine.start(Key("1", "provision"), first, resource="service/1")
    await first.begun.wait()
    await engine.start(Key("2", "provision"), second, resource="service/1")
    await engine.start(Key("3", "provision"), elsewhere, resource="service/2")
    await elsewhere.begun.wait()
    assert not second.begun.is_set()
    first.go_on.set()
    await second.begun.wait()
    assert (await ended(engine, "1")).state == "succeeded"
    for work in (second, elsewhere):
        work.go_on.set()
    await ended(engine, "2")


async def test_an_id_belongs_to_one_kind_of_operation(restart: Opener) -> None:
    engine, work = await restart(), Work()
    await engine.start(KEY, work)
    for _ in range(2):
        with pytest.raises(CalqueError) as refused:
            await engine.start(Key(KEY.id, "deprovision"), work)
        assert (refused.value.problem.code, refused.value.problem.field) == ("conflict", "id")
        work.go_on.set()
        await ended(engine, KEY.id)


async def _done(runs: list[int]) -> Done:
    runs.append(1)
    await asyncio.sleep(0.01)
    return Done()


async def test_concurrent_duplicates_of_a_short_change_share_one_run(restart: Opener) -> None:
    engine, runs = await restart(), list[int]()
    answers = await asyncio.gather(*(engine.once(Key("s", "bind"), lambda: _done(runs)) for _ in range(5)))
    assert answers == [Done()] * 5
    assert len(runs) == 1
    await engine.once(Key("s", "bind"), lambda: _done(runs))
    assert len(runs) == 2


async def test_a_remembered_short_change_runs_once_for_ever(restart: Opener) -> None:
    engine, runs = await restart(), list[int]()

    async def held() -> Held:
        await _done(runs)
        return Held(held=True)

    for _ in range(3):
        assert (await engine.once(Key("h", "exec_hook"), held, remember=Held)).held
        engine = await restart()
    assert len(runs) == 1


async def test_a_requester_that_goes_away_does_not_end_the_change_for_others(restart: Opener) -> None:
    engine, runs = await restart(), list[int]()
    leaving = asyncio.create_task(engine.once(Key("s", "bind"), lambda: _done(runs)))
    staying = asyncio.create_task(engine.once(Key("s", "bind"), lambda: _done(runs)))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == Done()
    assert len(runs) == 1


async def test_progress_is_told_a_few_times_a_second_and_at_the_end() -> None:
    now, told = [0.0], list[BytesDone]()
    reporter = Reporter(tell=told.append, clock=lambda: now[0])
    for done in range(1000):
        now[0] += 0.001
        reporter.report(done=done, total=1000)
    reporter.flush()
    reporter.flush()
    assert 4 <= len(told) <= 6
    assert told[-1].done == 999


async def test_outcomes_older_than_commands_live_are_forgotten(tmp_path: Path, restart: Opener) -> None:
    engine = await restart()
    await engine.cancel("old")
    await engine.cancel("new")
    old, new = OutcomeStore(tmp_path / "operations"), 0
    for file in (tmp_path / "operations").iterdir():
        if b'"old"' in file.read_bytes():
            past = time.time() - KEEP_SECONDS - 60
            os.utime(file, (past, past))
        else:
            new += 1
    assert (old.prune(), new) == (1, 1)
    assert engine.status("new").state == "cancelled"
    with pytest.raises(CalqueError):
        engine.status("old")
