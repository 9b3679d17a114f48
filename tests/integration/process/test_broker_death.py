"""The broker stopped, killed and started again, and services that end by themselves."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Literal

import pytest

from bus.connection import Bus, BusSettings
from schemas.values import Artifact
from tests.integration.broker_process import BrokerProcess, eventually
from tests.integration.bus.conftest import Server
from tests.integration.process.apps import INSTANCE, Platform, call, deploy_request, is_running, processes_of, spec


async def gone(pid: int | None) -> None:
    await eventually(lambda: not is_running(pid), seconds=10, what=f"the end of {pid}")


def catches_sigterm(process: BrokerProcess) -> bool:
    """Whether the process is there and has a handler for SIGTERM."""
    try:
        pid = process.pid
    except AssertionError:  # not made yet
        return False
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


async def test_services_are_adopted_after_a_kill_and_watched_to_their_end(platform: Platform, app: Path) -> None:
    deployed = await platform.deploy(spec(app), secrets={"TOKEN": "hush-hush"})
    before = await platform.one()
    await platform.kill()
    assert (await call(deployed.url, "/env"))["pid"] == before.pid
    await platform.start()
    after = await platform.until(lambda status: status.healthy, what="it is seen to be well")
    assert (after.pid, after.restarts, after.url) == (before.pid, 0, before.url)
    assert len(processes_of(platform.state)) == 1
    await platform.deploy(spec(app), secrets={"TOKEN": "hush-hush"})
    assert (await platform.one()).pid == before.pid
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    again = await platform.until(lambda status: status.healthy and status.pid != before.pid, what="it is restarted")
    assert (again.restarts, again.url) == (1, before.url)
    assert (await call(deployed.url, "/env"))["env"]["TOKEN"] == "hush-hush"


async def test_a_service_that_died_with_the_broker_is_started_again(platform: Platform, app: Path) -> None:
    deployed = await platform.deploy(spec(app))
    before = await platform.one()
    child = await call(deployed.url, "/child", {})
    await platform.kill()
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    await gone(before.pid)
    assert is_running(child)
    await platform.start()
    after = await platform.until(lambda status: status.healthy, what="it is started again")
    assert (after.restarts, after.url) == (1, before.url)
    assert not is_running(child), "what the dead one left behind is gone"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.full
async def test_a_stop_of_the_broker_stops_services_and_its_start_starts_them(
    platform: Platform, app: Path, number: signal.Signals
) -> None:
    deployed = await platform.deploy(spec(app, restart="never"))
    await platform.deploy(spec(app, stop_grace_seconds=120, restart="never"), service="deaf", environment={"DEAF": "1"})
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await platform.stop(number=number) == 0
    assert loop.time() - begun < 120, "it waits for the grace of a broker, not for that of a service"
    assert processes_of(platform.state) == []
    await platform.start()
    status = await platform.until(lambda status: status.healthy, what="it runs again")
    assert (status.url, status.restarts) == (deployed.url, 0)
    deaf = await platform.until(lambda status: status.healthy, what="the other too", service="deaf")
    assert deaf.pid is not None
    os.kill(deaf.pid, signal.SIGKILL)
    await platform.until(lambda status: status.state == "failed", what="its end is seen", service="deaf")


async def test_the_broker_killed_in_the_middle_of_a_deploy(platform: Platform, app: Path) -> None:
    request = deploy_request(spec(app))
    await platform.process.begin("deploy", request)
    await platform.kill()
    await platform.start()
    await platform.process.begin("deploy", request)
    assert (await platform.process.ended(request.id)).state == "succeeded"
    assert len(processes_of(platform.state)) == 1


@pytest.mark.full
async def test_the_broker_killed_again_and_again_starts_nothing_twice(platform: Platform, app: Path) -> None:
    request = deploy_request(spec(app))
    for _ in range(4):
        await platform.process.begin("deploy", request)
        await eventually(lambda: bool(processes_of(platform.state)), seconds=10, what="a process")
        await platform.kill()
        assert len(processes_of(platform.state)) == 1
        await platform.start()
    await platform.process.begin("deploy", request)
    assert (await platform.process.ended(request.id)).state == "succeeded"
    assert len(processes_of(platform.state)) == 1


@pytest.mark.parametrize(
    ("policy", "code", "restarts"),
    [("always", 0, True), ("on-failure", 0, False), ("on-failure", 5, True), ("never", 5, False)],
)
@pytest.mark.full
async def test_restart_policy(
    platform: Platform, app: Path, policy: Literal["always", "on-failure", "never"], code: int, restarts: bool
) -> None:
    deployed = await platform.deploy(spec(app, restart=policy))
    pid = (await platform.one()).pid
    # the answer may be lost with the process
    with suppress(OSError, HTTPException):
        await call(deployed.url, "/exit", code)
    await gone(pid)
    if restarts:
        await platform.until(lambda status: status.healthy and status.restarts == 1, what="it is started again")
        return
    status = await platform.until(lambda status: status.pid is None, what="its end is seen")
    assert status.state == ("stopped" if code == 0 else "failed")
    if code:
        assert "code 5" in status.message
    await platform.stop()
    await platform.start()
    assert processes_of(platform.state) == []


@pytest.mark.full
async def test_a_crash_loop_is_slowed_down_and_told(platform: Platform, app: Path) -> None:
    await platform.deploy(spec(app, restart="always"))
    broken = platform.state / "services" / INSTANCE / "web" / "artifact" / "app.py"
    pid = (await platform.one()).pid
    assert pid is not None
    broken.write_text("raise SystemExit(7)")
    os.kill(pid, signal.SIGTERM)
    status = await platform.until(lambda status: status.restarts >= 3 and status.pid is None, what="it crashes on")
    assert not status.healthy
    assert "code 7" in status.message
    assert "times in a row" in status.message


async def test_a_taken_port_is_named(platform: Platform, app: Path) -> None:
    deployed = await platform.deploy(spec(app))
    assert deployed.port is not None
    await platform.stop()
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", deployed.port)
    try:
        await platform.start()
        status = await platform.until(lambda status: "is taken" in status.message, what="the cause is told")
        assert not status.healthy
        moved = await platform.deploy(spec(app), environment={"NEW": "1"})
        assert moved.port != deployed.port
    finally:
        server.close()
        await server.wait_closed()


async def test_nothing_of_the_session_outlives_the_main_process(platform: Platform, app: Path) -> None:
    deployed = await platform.deploy(spec(app, restart="never"))
    shy = await call(deployed.url, "/shy", {})
    pid = (await platform.one()).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await gone(shy)


@pytest.mark.full
async def test_a_worker_too_is_adopted(platform: Platform, app: Path) -> None:
    artifact = Artifact(directory=str(app), command=("python", "worker.py"))
    await platform.deploy(spec(app, artifact=artifact, port=None, health=None))
    pid = (await platform.one()).pid
    await platform.kill()
    await platform.start()
    assert (await platform.until(lambda status: status.healthy, what="it is well")).pid == pid


@pytest.mark.full
async def test_a_stop_without_the_bus_stops_the_services_too(app: Path, tmp_path: Path) -> None:
    server = Server(tmp_path)
    await server.start()
    bus = await Bus.connect(BusSettings(servers=[server.url], name="test"))
    platform = Platform(
        BrokerProcess(
            "brokers.process", bus=bus, nats_url=server.url, kind="psb", name="process", directory=tmp_path / "broker"
        )
    )
    try:
        await platform.start()
        await platform.deploy(spec(app))
        server.kill()
        assert len(processes_of(platform.state)) == 1
        await platform.kill()
        assert len(processes_of(platform.state)) == 1
        starting = asyncio.create_task(platform.process.start())
        await eventually(lambda: catches_sigterm(platform.process), seconds=10, what="its handlers")
        os.kill(platform.process.pid, signal.SIGTERM)
        with suppress(AssertionError):  # it never gets ready
            await starting
        await eventually(lambda: not processes_of(platform.state), seconds=40, what="the end of its services")
    finally:
        await bus.close()
        server.kill()
