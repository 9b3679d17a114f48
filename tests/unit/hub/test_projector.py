"""Waiting until the tables have seen an event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bus.events import Recorded
from hub.application.projector import Projector
from schemas.envelope import wrap
from schemas.events import SiteJoined
from schemas.problems import CalqueError
from schemas.subjects import HUB


def event(sequence: int) -> Recorded:
    joined = SiteJoined()
    envelope = wrap(joined, id=f"hub/{sequence}", source=HUB, time="2030-01-01T00:00:00Z")
    return Recorded(sequence, HUB, "membership", "north", joined, envelope)


class Feed:
    """Hands out what is put in."""

    def __init__(self) -> None:
        self.position = 0
        self.arrived: asyncio.Queue[list[Recorded]] = asyncio.Queue()

    async def read(self, *, after: int = 0) -> AsyncIterator[list[Recorded]]:
        self.position = after
        while True:
            batch = await self.arrived.get()
            self.position = batch[-1].sequence
            yield batch

    async def last_sequence(self) -> int:
        return self.position


async def test_each_waits_for_its_own_event_and_no_longer() -> None:
    feed = Feed()
    projector = Projector(feed)
    running = asyncio.create_task(projector.run())
    waiting = [asyncio.create_task(projector.reached(number, timeout_seconds=60)) for number in (3, 1, 2, 3, 5)]
    seen = asyncio.create_task(projector.seen([event(3)]))
    try:
        feed.arrived.put_nowait([event(1), event(2)])
        await asyncio.gather(waiting[1], waiting[2])
        assert [each.done() for each in (*waiting, seen)] == [False, True, True, False, False, False]
        feed.arrived.put_nowait([event(3)])
        await asyncio.gather(waiting[0], waiting[3], seen)
        assert not waiting[4].done()
        await projector.reached(3, timeout_seconds=0)  # it is there: nothing to wait for
        await projector.seen([event(2)])
        assert len(projector._awaited) == 1
        waiting[4].cancel()
        await asyncio.gather(waiting[4], return_exceptions=True)
        with pytest.raises(CalqueError) as late:
            await projector.reached(4, timeout_seconds=0.01)
        assert late.value.problem.code == "lagging"
        assert projector._awaited == []  # who gave up leaves nothing behind
        assert projector._awaited_ids == {}
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
