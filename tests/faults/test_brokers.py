"""Brokers killed in the middle of a save, a transfer, a restore: the work is taken up again, or fails whole."""

from __future__ import annotations

import pytest

from tests.faults.world import APP, HOLD_SECONDS, World

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("faults")]


async def judged_save(world: World, name: str, *, state: str) -> None:
    """A save ended in ``state``: the image says the same, writers write, and the history holds."""
    assert state in ("succeeded", "failed")
    wanted = ("saved", True) if state == "succeeded" else ("failed", False)
    assert await world.image_state(name) == wanted
    await world.write(APP, seconds=HOLD_SECONDS + 5)
    await world.judge()


@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("north-dsb-postgres", "copy-rows"),
        ("north-dsb-s3", "copy-blobs"),
        ("north-crb-filesystem", "copy-rows"),
    ],
)
async def test_broker_killed_while_copies_stream(world: World, part: str, step: str) -> None:
    name, started = await world.save()
    await world.receiving("north", started, step)
    world.kill(part)
    assert world.unfinished(started, step)
    view = await world.end(started)
    await judged_save(world, name, state=view.state)
