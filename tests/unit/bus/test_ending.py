"""Tasks are ended for certain."""

from __future__ import annotations

import asyncio
import contextlib

from bus.ending import end
from tests.patience import patience


async def test_a_task_that_drops_a_cancellation_is_ended_all_the_same() -> None:
    dropped = 0

    async def deaf() -> None:
        nonlocal dropped
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            dropped += 1
            await asyncio.Event().wait()

    task, fine = asyncio.create_task(deaf()), asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    await asyncio.wait_for(end([task, fine], again_seconds=0.01), patience())
    assert (dropped, task.cancelled(), fine.cancelled()) == (1, True, True)


async def test_nothing_is_ended_at_once() -> None:
    await end([])
