"""Streams of a real stack that are nearly full: nothing new begins and says why, what runs ends, and it goes on by
itself when there is room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from bus.connection import Bus
from bus.jetstream import JetStream
from bus.room import fill_of
from schemas.ids import new_id
from tests.e2e.stack import Ended, Stack, running_stack, until
from tests.fuzz.attacker import Attacker, attacker

pytestmark = [pytest.mark.stack, pytest.mark.full, pytest.mark.xdist_group("fuzz")]

SITE = "north"
JUNK = 100
JUNK_BYTES = 60 << 10


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("full") / "home", sites=(SITE,)) as started:
        await started.must("template", "apply", "calque.yaml")
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def foe(stack: Stack) -> AsyncIterator[Attacker]:
    async with attacker(stack.home, site=SITE) as connected:
        yield connected


@asynccontextmanager
async def nearly_full(bus: Bus, stream: str, *, writer: str) -> AsyncIterator[None]:
    """Half of the headroom is left, and the rest is there: enough for what runs to end."""
    js = JetStream(bus)
    for _ in range(JUNK):
        await js.publish(f"calque.evt.{writer}.copy.junk.{new_id()}", b"x" * JUNK_BYTES, headers={})
    config = (await js.call(f"STREAM.INFO.{stream}"))["config"]
    used = (await fill_of(js, stream)).used
    await js.call(f"STREAM.UPDATE.{stream}", {**config, "max_bytes": used * 16 // 15})
    try:
        yield
    finally:
        await js.call(f"STREAM.UPDATE.{stream}", config)


async def collect(stack: Stack) -> Ended:
    """A small operation of the site, by way of the hub."""
    return await stack.cli("repository", "collect", f"{SITE}/filesystem")


async def refused(stack: Stack, stream: str) -> None:
    ended: Ended | None = None

    async def so() -> bool:
        nonlocal ended
        ended = await collect(stack)
        return ended.code != 0

    await until(so, seconds=60, what=f"new things are refused while {stream} is nearly full")
    assert ended is not None
    assert f"stream {stream} at" in ended.stderr
    assert f"raise max_bytes of {stream}" in ended.stderr

    async def told() -> bool:  # who refuses may know before the hub has heard of it
        doctor = await stack.cli("doctor", "-o", "json")
        found = [each for each in doctor.json["findings"] if each["check"] == "room"]
        return [each["subject"].partition(" ")[0] for each in found] == [stream]

    await until(told, seconds=60, what=f"doctor speaks of {stream}")


async def goes_on(stack: Stack) -> None:
    async def so() -> bool:
        return (await collect(stack)).code == 0

    await until(so, seconds=60, what="new things are begun again")


async def test_a_nearly_full_outbox_lets_what_runs_end(stack: Stack, foe: Attacker) -> None:
    started = await stack.must("deploy", "hackathon", "--site", SITE, "--name", "early", "--no-wait", "-o", "json")
    operation = started.json["operation"]
    async with nearly_full(foe.bus("agent"), f"EVT_{SITE}", writer=SITE):
        await refused(stack, f"EVT_{SITE}")
        await stack.must("operation", "wait", operation)
    await goes_on(stack)


async def test_a_nearly_full_stream_of_the_hub_refuses_and_goes_on(stack: Stack, foe: Attacker) -> None:
    async with nearly_full(foe.bus("hub"), "EVT_hub", writer="hub"):
        await refused(stack, "EVT_hub")
    await goes_on(stack)
