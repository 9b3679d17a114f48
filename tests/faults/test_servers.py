"""Postgres killed in the middle of a copy; NATS servers killed in the middle of operations."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.world import APP, World

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("faults")]


async def test_postgres_killed_in_a_copy_fails_the_save_and_names_the_part(world: World) -> None:
    name = world.fresh("image")
    mark = len(world.record.events)
    saving = asyncio.create_task(world.stack.cli("save", APP, "--name", name, "--wait"))
    save = await world.next_operation("save", after=mark)
    await world.receiving("north", save, "copy-rows")
    world.kill("north-postgres")
    assert not world.record.done(save, "copy-rows")
    ended = await saving
    assert ended.code == 1, ended.stderr
    (error,) = (line for line in ended.stderr.splitlines() if line.startswith("calque: "))
    assert error.startswith("calque: rows"), error
    assert "Traceback" not in ended.stderr
    assert await world.image_state(name) == ("failed", False)
    await world.judge()  # no part in the repository, no session that holds a moment

    again, started = await world.save()
    await world.must(started)
    assert await world.image_state(again) == ("saved", True)
    await world.judge()


async def test_nats_servers_of_hub_and_site_killed_in_a_save(world: World) -> None:
    name, started = await world.save()
    await world.receiving("north", started.command, "copy-rows")
    world.kill("hub-nats")
    world.kill("north-nats")
    view = await world.judge_save(name, started)
    assert view.state == "succeeded", view.problem


@pytest.mark.full
@pytest.mark.parametrize(
    ("killed", "step"), [("north", "fetch-rows"), ("south", "restore-rows"), ("hub", "deploy-web")]
)
async def test_nats_server_killed_in_a_run(world: World, killed: str, step: str) -> None:
    image = await world.saved()
    copy, started = await world.run(image)
    await world.record.step(started.command, step)
    world.kill(f"{killed}-nats")
    await world.must(started)
    assert await world.get(copy, "/digest") == await world.get(APP, "/digest")
    await world.judge()
