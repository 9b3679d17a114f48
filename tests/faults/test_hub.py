"""The hub killed in the middle: sites go on, and whoever waits for an operation sees its end."""

from __future__ import annotations

import asyncio

import pytest

from schemas.events import OperationAccepted
from tests.faults.world import APP, World

pytestmark = [pytest.mark.full, pytest.mark.stack, pytest.mark.xdist_group("faults")]


async def test_hub_killed_in_a_save_and_in_a_run_while_the_command_line_waits(world: World) -> None:
    image, copy = world.fresh("image"), world.fresh("copy")
    mark = len(world.record.events)
    saving = asyncio.create_task(world.stack.cli("save", APP, "--name", image, "--wait"))
    save = await world.next_operation("save", after=mark)
    await world.receiving("north", save, "copy-rows")
    await world.kill_and_await("hub")
    saved = await saving
    assert saved.code == 0, saved.stderr

    mark = len(world.record.events)
    running = asyncio.create_task(world.stack.cli("run", image, "--site", "south", "--name", copy, "--wait"))
    run = await world.next_operation("run", after=mark)
    await world.receiving("south", run, "fetch-rows")
    await world.kill_and_await("hub")
    await world.record.step(run, "restore-rows")
    await world.kill_and_await("hub")
    await world.record.step(run, "deploy-web")
    world.kill("hub")
    ran = await running
    assert ran.code == 0, ran.stderr

    assert [app.name for app in await world.client.apps(site="south")] == [copy]
    accepted = [each.id for each in world.record.events[mark:] if isinstance(each.event, OperationAccepted)]
    assert sorted(accepted) == [run, f"{run}/run-south/1", f"{run}/transfer-south/1"]
    assert await world.get(copy, "/digest") == await world.get(APP, "/digest")
    await world.judge()


@pytest.mark.full
async def test_hub_killed_while_the_sdk_waits_for_a_delete(world: World) -> None:
    image = await world.saved()
    started = await world.client.delete_image(image)
    world.kill("hub")
    await world.must(started)
    await world.judge()
