"""Logs, and secrets that must not be in them, nor anywhere else."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bus.connection import Bus, Message
from schemas.brokers import DataServiceHealth, Health, InfoRequest, LogLines, LogsRequest, PsbInfo
from schemas.envelope import decode, unwrap
from schemas.signals import LogLine
from schemas.subjects import log
from tests.integration.broker_process import eventually
from tests.integration.process.apps import INSTANCE, Platform, call, processes_of, spec
from tests.patience import PATIENCE_SECONDS

SECRET = "k0rrekt-horse-battery"


async def lines_of(platform: Platform, count: int = 100) -> tuple[str, ...]:
    request = LogsRequest(instance=INSTANCE, service="web", lines=count)
    return (await platform.process.ask("logs", request, LogLines)).lines


async def until_said(platform: Platform, line: str) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while line not in (lines := await lines_of(platform)):
        assert asyncio.get_running_loop().time() < deadline, lines
        await asyncio.sleep(0.02)


async def test_lines_are_kept_and_followed_without_secrets(platform: Platform, app: Path, bus: Bus) -> None:
    heard: list[LogLine] = []

    async def hear(message: Message) -> None:
        heard.append(unwrap(decode(message.payload), LogLine))

    subscription = await bus.subscribe(log(site="north", instance=INSTANCE, service="web"), hear)
    deployed = await platform.deploy(spec(app), secrets={"URI": f"postgresql://me:{SECRET}@db/ideas"})
    await call(deployed.url, "/say", "one")
    await call(deployed.url, "/say", f"two {SECRET} three")
    await until_said(platform, "two *** three")
    assert await lines_of(platform, 1) == ("two *** three",)
    await eventually(lambda: len(heard) >= 2, seconds=10, what="the lines are heard")
    assert [line.line for line in heard] == ["one", "two *** three"]
    assert {(line.instance, line.service) for line in heard} == {(INSTANCE, "web")}
    await subscription.stop()


async def test_a_service_writes_on_while_the_broker_is_dead(platform: Platform, app: Path) -> None:
    deployed = await platform.deploy(spec(app))
    await platform.kill()
    for number in range(50):
        await call(deployed.url, "/say", f"line {number}")
    await platform.start()
    assert await lines_of(platform, 50) == tuple(f"line {number}" for number in range(50))


async def test_secrets_are_in_no_file_argument_or_log(platform: Platform, app: Path) -> None:
    deployed = await platform.deploy(spec(app), secrets={"PASSWORD": SECRET})
    assert (await call(deployed.url, "/env"))["env"]["PASSWORD"] == SECRET
    for path in platform.process.directory.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    for pid in [*processes_of(platform.state), platform.process.pid]:
        assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    key = platform.state / "secrets.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (platform.state / "services").stat().st_mode & 0o077 == 0


async def test_the_broker_says_what_it_is(platform: Platform) -> None:
    info = await platform.process.ask("info", InfoRequest(), PsbInfo)
    assert (info.artifacts, info.spaces, info.can_pause) == (("process",), ("default",), True)
    assert (await platform.process.ask("health", DataServiceHealth(), Health)).healthy
    problem = await platform.process.refuses("logs", LogsRequest(instance="x", service="y"), LogLines)
    assert problem.code == "not_found"
