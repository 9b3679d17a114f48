"""Pauses that the cluster keeps, and hooks whose deadline any broker keeps."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from brokers.kubernetes.hooks import noted_quiesce
from schemas.brokers import ExecHook, PauseService, RemoveService, ResumeService, RunHook
from schemas.ids import new_id
from schemas.problems import CalqueError
from schemas.values import Hook
from tests.integration.kubernetes.conftest import INSTANCE, Platform, request_for
from tests.integration.kubernetes.simulated.api import Fault, SimulatedCluster

SPACE = "calque-default"


def pause_for(seconds: float) -> PauseService:
    return PauseService(id=new_id(), instance=INSTANCE, service="web", deadline_seconds=seconds)


def resume_of(pause: PauseService) -> ResumeService:
    return ResumeService(id=new_id(), instance=INSTANCE, service="web", pause=pause.id)


def hook(phase: Any, *, operation: str, seconds: float = 30.0) -> ExecHook:
    return ExecHook(
        id=new_id(),
        operation=operation,
        instance=INSTANCE,
        service="web",
        phase=phase,
        hook=Hook(http=f"POST /{phase}"),
        deadline_seconds=seconds,
    )


async def called(url: str) -> list[str]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/about") as answer:
        return [path for path, _ in (await answer.json())["called"]]


def scheduled(platform: Platform) -> list[str]:
    return [
        pod["metadata"]["name"]
        for pod in platform.of("pods")
        if pod["spec"].get("nodeName") and "calque/object" in pod["metadata"]["labels"]
    ]


async def test_a_pause_ends_at_its_deadline_with_no_broker_there(
    simulated: SimulatedCluster, platform: Platform
) -> None:
    await platform.deploy(request_for())
    pause = pause_for(1.0)
    assert (await platform.holds.pause(pause)).held
    assert scheduled(platform) == []
    await platform.stop()
    await platform.until(lambda: bool(scheduled(platform)))
    second = Platform(simulated, platform.settings.state_dir.parent)
    await second.start()
    assert not (await second.holds.resume(resume_of(pause))).held
    await second.until(lambda: bool(second.inventory.deployments()) and second.status().healthy)
    await second.stop()


@pytest.mark.full
async def test_another_broker_resumes_what_the_first_one_paused(
    simulated: SimulatedCluster, platform: Platform
) -> None:
    await platform.deploy(request_for())
    pause = pause_for(30)
    assert (await platform.holds.pause(pause)).held
    await platform.stop()
    second = Platform(simulated, platform.settings.state_dir.parent)
    await second.start()
    assert (await second.holds.pause(pause)).held
    resume = resume_of(pause)
    assert (await second.holds.resume(resume)).held
    assert (await second.holds.resume(resume)).held
    assert second.of("jobs") == []
    await second.until(lambda: bool(second.inventory.deployments()) and second.status().healthy)
    await second.stop()


@pytest.mark.full
@pytest.mark.parametrize("what", ["jobs", "pods"])
async def test_a_hold_that_somebody_broke_was_not_held(
    simulated: SimulatedCluster, platform: Platform, what: str
) -> None:
    await platform.deploy(request_for())
    pause = pause_for(30)
    assert (await platform.holds.pause(pause)).held
    holding = [each for each in platform.of(what) if "calque/object" not in each["metadata"]["labels"]]
    assert len(holding) == 1
    simulated.store.drop(what, SPACE, holding[0]["metadata"]["name"])
    await platform.until(lambda: bool(scheduled(platform)))
    assert not (await platform.holds.resume(resume_of(pause))).held


async def test_a_pause_that_can_not_be_kept_lets_go(simulated: SimulatedCluster, platform: Platform) -> None:
    await platform.deploy(request_for())
    simulated.faults.append(Fault("DELETE", "/pods/web-", status=403, times=100))
    with pytest.raises(Exception, match="injected"):
        await platform.holds.pause(pause_for(30))
    assert platform.of("jobs") == []
    await platform.until(lambda: platform.status().healthy)


@pytest.mark.full
async def test_a_second_pause_waits_for_the_first(platform: Platform) -> None:
    await platform.deploy(request_for())
    await platform.holds.pause(pause_for(30))
    with pytest.raises(CalqueError) as refused:
        await platform.holds.pause(pause_for(30))
    assert refused.value.problem.code == "busy"
    assert refused.value.problem.temporary


async def test_removing_a_paused_service_removes_what_holds_it(platform: Platform) -> None:
    await platform.deploy(request_for())
    await platform.holds.pause(pause_for(30))
    await platform.platform.remove(RemoveService(id=new_id(), instance=INSTANCE, service="web"))
    await platform.until(lambda: not platform.of("jobs") and not platform.of("pods"))


async def test_a_quiesce_is_thawed_at_its_deadline_by_the_next_broker(
    simulated: SimulatedCluster, platform: Platform
) -> None:
    url = (await platform.deploy(request_for())).url
    assert url is not None
    operation = new_id()
    began = time.time()
    assert (await platform.hooks.call(hook("quiesce", operation=operation, seconds=1.0))).held
    await platform.stop()
    second = Platform(simulated, platform.settings.state_dir.parent)
    await second.start()
    while await called(url) != ["/quiesce", "/thaw"]:
        assert time.time() < began + 10
        await asyncio.sleep(0.05)
    assert time.time() - began >= 1.0
    await second.until(lambda: noted_quiesce(second.of("deployments")[0]).held is not None)  # type: ignore[union-attr]
    thawed = await second.hooks.call(hook("thaw", operation=operation))
    assert (thawed.held, thawed.message) == (False, "the deadline of the quiesce passed")
    await second.stop()


@pytest.mark.full
async def test_a_pod_that_was_restarted_since_it_quiesced_was_not_held(platform: Platform) -> None:
    url = (await platform.deploy(request_for())).url
    assert url is not None
    operation = new_id()
    assert (await platform.hooks.call(hook("quiesce", operation=operation))).held
    async with aiohttp.ClientSession() as session, session.post(f"{url}/exit"):
        await platform.until(lambda: platform.status().restarts == 1)
    await platform.until(lambda: platform.status().healthy)
    thawed = await platform.hooks.call(hook("thaw", operation=operation))
    assert (thawed.held, "restarted" in thawed.message) == (False, True)


async def test_a_hook_that_the_proxy_can_not_deliver_is_temporary(
    simulated: SimulatedCluster, platform: Platform
) -> None:
    await platform.deploy(request_for())
    simulated.faults.append(Fault("POST", "/proxy/", status=503))
    with pytest.raises(CalqueError) as refused:
        await platform.hooks.call(hook("quiesce", operation=new_id()))
    assert (refused.value.problem.code, refused.value.problem.temporary) == ("hook_unreachable", True)


async def test_other_hooks_are_told_their_phase(platform: Platform) -> None:
    url = (await platform.deploy(request_for())).url
    assert url is not None
    asked = RunHook(id=new_id(), instance=INSTANCE, service="web", phase="before_copy", hook=Hook(http="POST /flush"))
    await platform.hooks.run(asked)
    async with aiohttp.ClientSession() as session, session.get(f"{url}/about") as answer:
        assert (await answer.json())["called"] == [["/flush", {"phase": "before_copy"}]]


@pytest.mark.full
async def test_hooks_straight_to_the_pods(simulated: SimulatedCluster, platform: Platform) -> None:
    url = (await platform.deploy(request_for())).url
    assert url is not None
    direct = Platform(simulated, platform.settings.state_dir.parent, calls="direct")
    await direct.start()
    assert (await direct.hooks.call(hook("quiesce", operation="an-operation"))).held
    assert await called(url) == ["/quiesce"]
    assert not [seen for seen in simulated.seen if "/proxy/" in seen.path]
    await direct.stop()
