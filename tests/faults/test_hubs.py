"""Two hubs on a cluster of three servers: any of them killed, in the middle of what hubs do.

What is proved of one hub and one server elsewhere is not proved again here: that another one carries on in time, and
that neither a hub nor the leader of a stream takes anything with it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from bus.connection import Bus, BusSettings
from bus.events import Recorded
from bus.jetstream import JetStream
from hub.client.client import Client
from hub.client.context import load_context
from hub.client.errors import HubUnreachableError
from schemas import events as ev
from schemas.ids import new_id
from schemas.subjects import HUB
from tests.e2e.stack import until
from tests.faults.world import APP, World
from tests.faults.worlds import running_world

pytestmark = [pytest.mark.full, pytest.mark.stack, pytest.mark.xdist_group("hubs")]

HUBS = ("hub", "hub-2")
TAKEOVER_SECONDS = 60.0
ENDS = ev.OperationSucceeded | ev.OperationFailed | ev.OperationCancelled


@pytest.fixture(scope="module")
async def clustered(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Two hubs, three servers, the application at north."""
    options = ("--hubs", "2", "--cluster", "3")
    async with running_world(tmp_path_factory.mktemp("hubs") / "home", options=options) as world:
        yield world


@pytest.fixture
async def world(clustered: World) -> AsyncIterator[World]:
    """The stack, whole at the beginning of a test and cleared after it."""
    await clustered.whole()
    yield clustered
    await clustered.whole()
    await clustered.clear()


async def leader(world: World, stream: str) -> str:
    """The part that leads a stream of the hub."""
    home = world.stack.home
    seed = str(home / "keys" / "hub" / "hub.nk")
    servers = list(load_context(home).servers)
    bus = await Bus.connect(BusSettings(servers=servers, nkey_seed_file=seed, name="test", inbox_prefix="_TEST"))
    try:
        name = str((await JetStream(bus).call(f"STREAM.INFO.{stream}"))["cluster"]["leader"])
    finally:
        await bus.close()
    return name.replace(HUB, "hub-nats", 1).replace("_", "-")


def ended(operation: str) -> Callable[[Recorded], bool]:
    return lambda each: each.id == operation and isinstance(each.event, ENDS)


def began(operation: str, step: str) -> Callable[[Recorded], bool]:
    return lambda each: each.id == operation and isinstance(each.event, ev.StepStarted) and each.event.step == step


async def test_another_hub_carries_on_a_run_at_another_site(world: World) -> None:
    """One stands still, with whatever it was handed, while the transfer ends; it is killed, and the other goes on."""
    for dead, alive in (HUBS, HUBS[::-1]):
        _, run = await world.run(await world.saved())
        child = f"{run.command}/transfer-south/1"
        await world.receiving("south", child, "fetch-rows")
        with world.frozen(dead):
            await world.record.wait(ended(child), what="the transfer")
            world.kill(dead)
            killed = time.monotonic()
            step = began(run.command, "run-south")
            await world.record.wait(step, what="the next step", seconds=TAKEOVER_SECONDS)
        print(f"{alive} went on {time.monotonic() - killed:.2f} s after {dead} was killed")
        await world.must(run)
        await world.whole()
    await world.judge()


async def test_a_hub_killed_in_a_deletion_is_followed_by_the_other(world: World) -> None:
    image = await world.saved()
    deletion = await world.client.delete_image(image)
    killed = time.monotonic()
    world.kill("hub")
    await world.record.success(deletion.command, seconds=TAKEOVER_SECONDS + 5)
    print(f"deleted {time.monotonic() - killed:.2f} s after the kill")
    await world.judge()


@pytest.mark.parametrize("stream", ["EVENTS", "EVT_hub", "CMD", "IN_south"])
async def test_the_leader_of_a_stream_is_killed_in_the_middle_of_a_run(world: World, stream: str) -> None:
    image = await world.saved()
    name, run = await world.run(image)
    await world.receiving("south", f"{run.command}/transfer-south/1", "fetch-rows")
    part = await leader(world, stream)
    killed = time.monotonic()
    world.kill(part)
    await world.must(run)
    print(f"{stream}: {part} killed, the run ended {time.monotonic() - killed:.1f} s later")
    assert await world.get(name, "/digest") == await world.get(APP, "/digest")
    again = await world.run(image)
    await world.must(again[1])
    await world.judge()


async def test_commands_of_several_clients_while_hubs_are_killed_have_one_effect_and_one_answer(world: World) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    image = (await world.client.images(name=await world.saved()))[0].id
    first = len(world.record.events)
    sent: set[str] = set()
    stop = asyncio.Event()

    async def send(client: Client) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            id = new_id()
            sent.add(id)
            # A client that had no answer in time asks again with the same id: that is what ids are for.
            while True:
                try:
                    await client.edit_image(image, comment=f"{number}", command=id)
                except HubUnreachableError:
                    continue
                break

    async def kill() -> None:
        for _ in range(4):
            await asyncio.sleep(dice.uniform(1, 3))
            victim = dice.choice(HUBS)
            if world.stack.parts()[victim]["phase"] == "ready":
                world.kill(victim)
        await world.whole()
        stop.set()

    clients = [await world.stack.client() for _ in range(4)]
    try:
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            group.create_task(kill())
            for client in clients:
                group.create_task(send(client))
    finally:
        await asyncio.gather(*(client.close() for client in clients))

    async def all_recorded() -> bool:
        return effects(world, first).keys() >= sent

    await until(all_recorded, seconds=20, what="the effect of every command")
    assert set(effects(world, first).values()) == {1}
    print(f"{len(sent)} commands")
    await world.judge()


def effects(world: World, first: int) -> Counter[str]:
    """How many changes each command has made to the catalog."""
    return Counter(
        each.envelope.causationid or ""
        for each in world.record.events[first:]
        if each.writer == HUB and each.aggregate == "catalog"
    )
