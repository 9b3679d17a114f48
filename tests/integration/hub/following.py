"""The record as it grows, read beside the hubs that a test kills."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from bus.connection import Bus
from bus.events import Recorded
from bus.feed import EventsFeed
from schemas import events as ev
from tests.patience import patience


@dataclass
class Following:
    """All events of ``EVENTS`` so far, in their order."""

    events: list[Recorded] = field(default_factory=list)
    _grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def follow(self, bus: Bus) -> None:
        """Read for ever."""
        async for batch in EventsFeed(bus).read():
            async with self._grown:
                self.events.extend(batch)
                self._grown.notify_all()

    async def wait(self, wanted: Callable[[Recorded], bool], *, seconds: float = 20.0) -> Recorded:
        """The first event that is ``wanted``, there or to come."""
        try:
            async with asyncio.timeout(patience(seconds)), self._grown:
                while True:
                    if found := next(filter(wanted, self.events), None):
                        return found
                    await self._grown.wait()
        except TimeoutError:
            pytest.fail(f"no such event within {patience(seconds):g} s")

    def done(self, operation: str) -> bool:
        """Whether the operation has succeeded."""
        return any(each.id == operation and isinstance(each.event, ev.OperationSucceeded) for each in self.events)


@contextlib.asynccontextmanager
async def following(bus: Bus) -> AsyncIterator[Following]:
    """Kept up to date until the end."""
    found = Following()
    task = asyncio.create_task(found.follow(bus))
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
