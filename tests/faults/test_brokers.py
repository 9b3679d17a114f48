"""Brokers killed in the middle of a save, a transfer, a restore: the work is taken up again, or fails whole."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.world import APP, HOLD_SECONDS, World

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("faults")]


async def test_postgres_broker_killed_while_it_copies_loses_the_moment_and_the_save(world: World) -> None:
    name, started = await world.save()
    await world.receiving("north", started.command, "copy-rows")
    await world.kill_and_await("north-dsb-postgres")
    assert not world.record.done(started.command, "copy-rows")
    view = await world.judge_save(name, started)
    # The exported snapshot died with its session: the part is never prepared again alone.
    assert view.state == "failed"
    assert view.problem is not None
    assert "rows" in view.problem.sentence()


@pytest.mark.full
async def test_s3_broker_killed_while_it_copies(world: World) -> None:
    name, started = await world.save()
    await world.record.step(started.command, "copy-blobs")
    world.kill("north-dsb-s3")
    assert not world.record.done(started.command, "copy-blobs")
    await world.judge_save(name, started)


@pytest.mark.parametrize("step", ["copy-rows", "commit-rows"])
@pytest.mark.full
async def test_repository_killed(world: World, step: str) -> None:
    name, started = await world.save()
    if step == "copy-rows":
        await world.receiving("north", started.command, step)
    await world.record.step(started.command, step)
    world.kill("north-crb-filesystem")
    if step == "copy-rows":
        # A commit may be over before the kill: then its answer is what is lost.
        assert not world.record.done(started.command, step)
    view = await world.judge_save(name, started)
    assert view.state == "succeeded", view.problem


async def test_process_broker_killed_while_writers_are_quiesced_and_paused(world: World) -> None:
    async with world.held() as (name, started):
        await world.kill_and_await("north-psb-process")
    await world.write(APP, seconds=HOLD_SECONDS + 60)
    await world.judge_save(name, started)


@pytest.mark.full
async def test_brokers_of_both_ends_killed_in_a_run(world: World) -> None:
    image = await world.saved()
    copy, started = await world.run(image)
    await world.receiving("south", started.command, "fetch-rows")
    await asyncio.gather(world.kill_and_await("south-crb-filesystem"), world.kill_and_await("north-crb-filesystem"))
    await world.record.step(started.command, "restore-rows")
    await asyncio.gather(world.kill_and_await("south-dsb-postgres"), world.kill_and_await("south-dsb-s3"))
    await world.record.step(started.command, "deploy-web")
    world.kill("south-psb-process")
    view = await world.end(started)
    assert view.state == "succeeded", view.problem
    assert await world.get(copy, "/digest") == await world.get(APP, "/digest")
    await world.judge()


@pytest.mark.full
@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("north-crb-filesystem", "fetch-rows"),
        ("south-crb-filesystem", "fetch-rows"),
        ("south-crb-filesystem", "restore-rows"),
        ("south-dsb-postgres", "restore-rows"),
        ("south-dsb-s3", "restore-blobs"),
        ("south-psb-process", "deploy-web"),
        ("south-psb-process", "deploy-pen"),
    ],
)
async def test_broker_killed_in_a_run(world: World, part: str, step: str) -> None:
    image = await world.saved()
    copy, started = await world.run(image)
    await world.record.step(started.command, step)
    world.kill(part)
    await world.must(started)
    assert await world.get(copy, "/digest") == await world.get(APP, "/digest")
    await world.judge()
