"""Pauses and hooks: whether a service was held without a break, whatever happened to the broker."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from schemas.brokers import ExecHook, Held, PauseService, ResumeService
from schemas.ids import new_id
from schemas.problems import Actor
from schemas.values import Hook
from tests.integration.broker_process import eventually
from tests.integration.process.apps import INSTANCE, Platform, call, spec
from tests.patience import PATIENCE_SECONDS

LONG_SECONDS = 300.0
"""A hold that nothing but a test ends."""


def pausing(seconds: float, *, id: str | None = None) -> PauseService:
    return PauseService(id=id or new_id(), instance=INSTANCE, service="web", deadline_seconds=seconds)


def resuming(pause: PauseService) -> ResumeService:
    return ResumeService(id=new_id(), instance=INSTANCE, service="web", pause=pause.id)


def hook(phase: str, *, http: str | None = None, deadline: float = LONG_SECONDS, operation: str = "save-1") -> ExecHook:
    return ExecHook(
        id=new_id(),
        operation=operation,
        instance=INSTANCE,
        service="web",
        phase="quiesce" if phase == "quiesce" else "thaw",
        hook=Hook(http=http or f"POST /{phase}", timeout_seconds=1.0),
        deadline_seconds=deadline,
    )


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def until_it_runs(pid: int) -> None:
    await eventually(lambda: state_of(pid) != "T", seconds=PATIENCE_SECONDS, what=f"{pid} goes on")


async def pid_of(platform: Platform) -> int:
    pid = (await platform.one()).pid
    assert pid is not None
    return pid


async def test_a_paused_service_stands_still_until_it_is_resumed(platform: Platform, app: Path) -> None:
    deployed = await platform.deploy(spec(app))
    child = await call(deployed.url, "/child", {})
    pid = await pid_of(platform)
    pause = pausing(LONG_SECONDS)
    assert (await platform.process.ask("pause", pause, Held)).held
    frozen_at = time.monotonic()
    assert [state_of(each) for each in (pid, child)] == ["T", "T"]
    assert (await platform.one()).paused
    assert (await platform.process.ask("pause", pause, Held)).held
    assert (await platform.process.refuses("pause", pausing(LONG_SECONDS), Held)).code == "busy"
    resumed_at = time.monotonic()
    answer = await platform.process.ask("resume", resuming(pause), Held)
    assert answer.held
    ticks = await call(deployed.url, "/ticks")
    assert not [tick for tick in ticks if frozen_at < tick < resumed_at]
    assert not (await platform.one()).paused
    assert (await platform.process.ask("resume", resuming(pause), Held)).held
    assert not (await platform.process.ask("resume", resuming(pausing(1)), Held)).held
    again = pausing(LONG_SECONDS)
    assert (await platform.process.ask("pause", again, Held)).held
    await platform.remove()


async def test_the_deadline_ends_a_pause_and_says_so(platform: Platform, app: Path) -> None:
    await platform.deploy(spec(app))
    pause = pausing(0.4)
    assert (await platform.process.ask("pause", pause, Held)).held
    await until_it_runs(await pid_of(platform))
    assert not (await platform.process.ask("resume", resuming(pause), Held)).held
    assert not (await platform.one()).paused


async def test_the_guard_ends_a_pause_while_the_broker_is_dead(platform: Platform, app: Path) -> None:
    await platform.deploy(spec(app))
    pid = await pid_of(platform)
    pause, asked_at = pausing(1.0), time.monotonic()
    assert (await platform.process.ask("pause", pause, Held)).held
    await platform.kill()
    assert state_of(pid) == "T" or time.monotonic() > asked_at + pause.deadline_seconds
    await until_it_runs(pid)
    await platform.start()
    assert await pid_of(platform) == pid
    assert not (await platform.process.ask("resume", resuming(pause), Held)).held


async def test_a_pause_outlives_the_broker_unbroken(platform: Platform, app: Path) -> None:
    await platform.deploy(spec(app))
    pid = await pid_of(platform)
    pause = pausing(LONG_SECONDS)
    assert (await platform.process.ask("pause", pause, Held)).held
    await platform.kill()
    await platform.start()
    assert state_of(pid) == "T"
    assert (await platform.one()).paused
    assert (await platform.process.ask("pause", pause, Held)).held
    assert (await platform.process.ask("resume", resuming(pause), Held)).held
    assert state_of(pid) != "T"


async def test_somebody_else_ending_the_freeze_is_noticed(platform: Platform, app: Path) -> None:
    await platform.deploy(spec(app))
    pause = pausing(LONG_SECONDS)
    assert (await platform.process.ask("pause", pause, Held)).held
    pid = await pid_of(platform)
    os.kill(pid, signal.SIGCONT)
    await until_it_runs(pid)
    assert not (await platform.process.ask("resume", resuming(pause), Held)).held


async def test_a_pause_of_nothing_is_a_problem_that_may_pass(platform: Platform, app: Path) -> None:
    assert (await platform.process.refuses("pause", pausing(1), Held)).code == "not_found"
    await platform.deploy(spec(app))
    await platform.scale(0)
    problem = await platform.process.refuses("pause", pausing(1), Held)
    assert (problem.code, problem.actor) == ("service_not_running", Actor.ENVIRONMENT)
    assert (await platform.process.refuses("pause", pausing(0), Held)).field == "deadline_seconds"


async def test_quiesce_and_thaw_call_the_service(platform: Platform, app: Path) -> None:
    deployed = await platform.deploy(spec(app))
    quiesce = hook("quiesce", deadline=20)
    assert (await platform.process.ask("exec_hook", quiesce, Held)).held
    assert (await platform.process.ask("exec_hook", quiesce, Held)).held
    assert await call(deployed.url, "/called") == [["/quiesce", {"deadline_seconds": 20}]]
    thaw = hook("thaw")
    assert (await platform.process.ask("exec_hook", thaw, Held)).held
    assert (await platform.process.ask("exec_hook", thaw, Held)).held
    assert (await call(deployed.url, "/called"))[1:] == [["/thaw", {}]]
    assert (await platform.process.ask("exec_hook", hook("thaw"), Held)).held, "another attempt of the same operation"
    assert not (await platform.process.ask("exec_hook", hook("thaw", operation="save-2"), Held)).held


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_thaw_after_the_deadline_says_that_the_hold_was_broken(
    platform: Platform, app: Path, restarted: bool
) -> None:
    await platform.deploy(spec(app))
    begun = time.monotonic()
    assert (await platform.process.ask("exec_hook", hook("quiesce", deadline=0.5), Held)).held
    if restarted:
        await platform.kill()
        await platform.start()
    await eventually(lambda: time.monotonic() > begun + 0.6, seconds=PATIENCE_SECONDS, what="the deadline")
    answer = await platform.process.ask("exec_hook", hook("thaw"), Held)
    assert not answer.held
    assert "deadline" in answer.message


@pytest.mark.parametrize("killed", [False, True])
async def test_the_deadline_thaws_a_service_that_nobody_thaws(platform: Platform, app: Path, killed: bool) -> None:
    deployed = await platform.deploy(spec(app))
    assert (await platform.process.ask("exec_hook", hook("quiesce", deadline=1.0), Held)).held
    if killed:
        await platform.kill()
        await platform.start()
    called: list[object] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while ["/thaw", {}] not in called:
        assert time.monotonic() < deadline, f"not thawed: {called}"
        called = await call(deployed.url, "/called")
    assert called == [["/quiesce", {"deadline_seconds": 1.0}], ["/thaw", {}]]
    assert not (await platform.process.ask("exec_hook", hook("thaw"), Held)).held


async def test_a_hold_outlives_a_kill_of_the_broker(platform: Platform, app: Path) -> None:
    await platform.deploy(spec(app))
    quiesce = hook("quiesce")
    assert (await platform.process.ask("exec_hook", quiesce, Held)).held
    await platform.kill()
    await platform.start()
    assert (await platform.process.ask("exec_hook", quiesce, Held)).held
    assert (await platform.process.ask("exec_hook", hook("thaw"), Held)).held


async def test_a_restart_of_the_service_breaks_the_hold(platform: Platform, app: Path) -> None:
    await platform.deploy(spec(app))
    pid = await pid_of(platform)
    assert (await platform.process.ask("exec_hook", hook("quiesce"), Held)).held
    os.kill(pid, signal.SIGKILL)
    await platform.until(lambda status: status.healthy and status.pid != pid, what="it is started again")
    answer = await platform.process.ask("exec_hook", hook("thaw"), Held)
    assert not answer.held
    assert "restarted" in answer.message


async def test_the_hold_of_one_operation_is_not_that_of_another(platform: Platform, app: Path) -> None:
    await platform.deploy(spec(app))
    assert (await platform.process.ask("exec_hook", hook("quiesce", operation="save-1"), Held)).held
    assert not (await platform.process.ask("exec_hook", hook("thaw", operation="save-2"), Held)).held
    assert not (await platform.process.ask("exec_hook", hook("thaw", operation="save-1"), Held)).held


async def test_hooks_that_fail_say_who_must_act(platform: Platform, app: Path) -> None:
    await platform.deploy(spec(app), secrets={"WORD": "writers"})
    refused = await platform.process.refuses("exec_hook", hook("quiesce", http="POST /refuse"), Held)
    assert (refused.code, refused.actor, refused.field) == ("hook_refused", Actor.BROKER, "hooks.quiesce")
    assert '409: "*** are busy"' in refused.message
    late = await platform.process.refuses("exec_hook", hook("quiesce", http="POST /slow"), Held)
    assert (late.code, late.actor) == ("hook_timeout", Actor.ENVIRONMENT)
    assert (await platform.process.refuses("exec_hook", hook("quiesce", http="quiesce"), Held)).code == "invalid"
    assert not (await platform.process.ask("exec_hook", hook("thaw"), Held)).held, "none of them was acknowledged"
    await platform.scale(0)
    stopped = await platform.process.refuses("exec_hook", hook("quiesce"), Held)
    assert (stopped.code, stopped.actor) == ("service_not_running", Actor.ENVIRONMENT)
    assert not (await platform.process.ask("exec_hook", hook("thaw"), Held)).held
    assert (await platform.process.refuses("exec_hook", hook("thaw", http="FETCH /x"), Held)).field == "hooks.thaw.http"
