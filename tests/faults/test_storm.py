"""Several parts at once, and parts at random: whatever dies, the history holds and images are consistent."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest

from hub.client.errors import ClientError
from tests.faults.world import APP, World

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("faults")]

ROUNDS = 3
LONGEST_CALM_SECONDS = 3.0
AGAIN_SECONDS = 90.0
STORM_SECONDS = 240.0


@pytest.mark.full
async def test_agents_and_brokers_of_both_sites_killed_in_a_run(world: World) -> None:
    image = await world.saved()
    copy, started = await world.run(image)
    await world.receiving("south", started.command, "fetch-rows")
    killed = ("south-agent", "south-crb-filesystem", "north-agent", "north-crb-filesystem")
    await asyncio.gather(*(world.kill_and_await(part) for part in killed))
    await world.record.step(started.command, "restore-rows")
    await asyncio.gather(*(world.kill_and_await(f"south-{part}") for part in ("agent", "dsb-postgres", "dsb-s3")))
    await world.record.step(started.command, "deploy-web")
    world.kill("south-psb-process")
    world.kill("south-agent")
    view = await world.end(started)
    assert view.state == "succeeded", view.problem
    assert await world.get(copy, "/digest") == await world.get(APP, "/digest")
    await world.judge()


@asynccontextmanager
async def writing(world: World, writer: str) -> AsyncIterator[None]:
    """A writer that goes on whatever happens: a row and its object, then the next, once both are acknowledged."""

    async def write() -> None:
        seq = 1
        while True:
            with suppress(ClientError, aiohttp.ClientError, TimeoutError, AssertionError):
                await world.put(APP, writer=writer, seq=seq)
                seq += 1
            await asyncio.sleep(0.02)

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def storm(world: World, dice: random.Random) -> AsyncIterator[None]:
    """Kills a random part every now and then: agents, brokers, hub, servers. A test that fails shows which and when."""

    began = time.monotonic()

    async def kill() -> None:
        while True:
            await asyncio.sleep(dice.uniform(0.2, LONGEST_CALM_SECONDS))
            part = dice.choice(sorted(world.stack.parts()))
            with suppress(ProcessLookupError, TypeError):  # it is down already
                world.kill(part)
                print(f"{time.monotonic() - began:.2f} s: {part} killed")

    task = asyncio.create_task(kill())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def persist(world: World, seconds: float = AGAIN_SECONDS) -> str | None:
    """Save and run in bad weather; the name of the copy when both came to a good end."""
    with suppress(ClientError, TimeoutError):
        async with asyncio.timeout(seconds):
            image, started = await world.save()
            if (await world.end(started)).state != "succeeded":
                return None
            copy, started = await world.run(image)
            if (await world.end(started)).state == "succeeded":
                return copy
    return None


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_storm(world: World, seed: int) -> None:
    dice = random.Random(seed)
    copies: list[str | None] = []
    writer = f"storm-{seed}"
    async with writing(world, writer):
        async with storm(world, dice):
            for _ in range(ROUNDS):
                copies.append(await persist(world))
        await world.whole()
        await world.ended(seconds=STORM_SECONDS)
        await world.judge()
        copies.append(await persist(world))
        assert copies[-1] is not None, "a save and a run after the storm"
    source = await world.get(APP, "/digest")
    for copy in filter(None, copies):
        assert await world.get(copy, "/digest") == source
        gapless(await world.get(copy, "/entries"), writer=writer)
    await world.judge()


def gapless(found: dict[str, Any], *, writer: str) -> None:
    """The copy holds a prefix of what was written, without a gap: all of it as rows and as objects. Only the last
    write may be there by half: it had failed, and was not repeated yet."""
    rows = [seq for one, seq in found["rows"] if one == writer]
    objects = {key for key in found["objects"] if key.startswith(f"entries/{writer}/")}
    assert rows == list(range(1, len(rows) + 1))
    every = [f"entries/{writer}/{seq}" for seq in rows]
    assert objects in (set(every), set(every[:-1])), f"{len(rows)} rows, {len(objects)} objects"
