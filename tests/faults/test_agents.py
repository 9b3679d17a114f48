"""Agents killed in the middle of a save and of a run: the next start goes on where the journal says.

That they are killed before and after each effect is seen in ``test_matrix.py``.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.world import APP, HOLD_SECONDS, World

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("faults")]


async def test_agent_killed_while_writers_are_quiesced(world: World) -> None:
    async with world.held() as (name, started):
        await world.kill_and_await("north-agent")
    await world.write(APP, seconds=HOLD_SECONDS + 60)
    await world.judge_save(name, started)


@pytest.mark.full
async def test_agent_killed_while_copies_stream_and_while_they_are_committed(world: World) -> None:
    name, started = await world.save()
    await world.receiving("north", started.command, "copy-rows")
    world.kill("north-agent")
    assert not world.record.done(started.command, "copy-rows")
    await world.record.step(started.command, "commit-rows")
    world.kill("north-agent")  # a commit is quick: it may be done by now, which must make no difference
    view = await world.judge_save(name, started)
    assert view.state == "succeeded", view.problem


@pytest.mark.full
async def test_agents_of_both_sites_killed_in_a_run(world: World) -> None:
    image = await world.saved()
    copy, started = await world.run(image)
    await world.receiving("south", started.command, "fetch-rows")
    await asyncio.gather(world.kill_and_await("south-agent"), world.kill_and_await("north-agent"))
    await world.record.step(started.command, "restore-rows")
    await world.kill_and_await("south-agent")
    await world.record.step(started.command, "deploy-web")
    world.kill("south-agent")
    view = await world.end(started)
    assert view.state == "succeeded", view.problem
    assert await world.get(copy, "/digest") == await world.get(APP, "/digest")
    await world.judge()


@pytest.mark.full
async def test_writers_go_on_by_their_deadline_when_the_agent_stands_still_and_the_process_broker_dies(
    world: World,
) -> None:
    async with world.held() as (name, started):
        with world.frozen("north-agent"):
            await world.kill_and_await("north-psb-process")
            await world.write(APP, seconds=HOLD_SECONDS + 60)
    await world.judge_save(name, started)
