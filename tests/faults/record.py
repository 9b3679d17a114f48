"""The record of a stack as it grows: every event of ``EVENTS``, collected while faults happen.

It is read by the same kind of feed that hubs use, so what it shows late or twice would be shown late or twice
to a hub too; the checker reads everything again on its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from bus.events import Recorded
from hub.client.client import Client
from schemas import events as ev

SECONDS = 90.0


@dataclass
class Record:
    """Events in their order; :meth:`wait` finds one that is there or to come."""

    events: list[Recorded] = field(default_factory=list)
    _grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def follow(self, client: Client) -> None:
        """Collect, for ever."""
        async for recorded in client.events(after=0, follow=True):
            async with self._grown:
                self.events.append(recorded)
                self._grown.notify_all()

    async def wait(
        self, wanted: Callable[[Recorded], bool], *, what: str, after: int = 0, seconds: float = SECONDS
    ) -> Recorded:
        """The first event that is ``wanted``, of those behind the first ``after``; fails when there is none in time."""
        deadline = time.monotonic() + seconds
        seen = after
        while True:
            while seen < len(self.events):
                seen += 1
                if wanted(self.events[seen - 1]):
                    return self.events[seen - 1]
            async with self._grown:
                if seen == len(self.events):
                    try:
                        await asyncio.wait_for(self._grown.wait(), max(deadline - time.monotonic(), 0.001))
                    except TimeoutError:
                        raise AssertionError(f"{what}: not within {seconds:.0f} s") from None

    async def step(self, operation: str, step: str, *, seconds: float = SECONDS) -> Recorded:
        """Wait until a step of the operation (or of one that it started) has begun."""

        def begun(recorded: Recorded) -> bool:
            event = recorded.event
            return (
                recorded.aggregate == "operation"
                and belongs(recorded.id, operation)
                and isinstance(event, ev.StepStarted)
                and event.step == step
            )

        return await self.wait(begun, what=f"{step} of {operation}", seconds=seconds)

    async def success(self, operation: str, *, seconds: float = 90.0) -> None:
        """Wait until the operation has succeeded."""

        def ended(recorded: Recorded) -> bool:
            return recorded.id == operation and isinstance(
                recorded.event, ev.OperationSucceeded | ev.OperationFailed | ev.OperationCancelled
            )

        recorded = await self.wait(ended, what=f"the end of {operation}", seconds=seconds)
        assert isinstance(recorded.event, ev.OperationSucceeded), recorded.event

    def done(self, operation: str, step: str) -> bool:
        """Whether a step is recorded as done: a fault after that came too late for it."""
        return any(
            isinstance(each.event, ev.StepSucceeded) and each.event.step == step
            for each in self.events
            if each.aggregate == "operation" and belongs(each.id, operation)
        )


def belongs(id: str, operation: str) -> bool:
    """Whether the operation ``id`` is ``operation`` or one that it started."""
    return id == operation or id.startswith(f"{operation}/")


@asynccontextmanager
async def recording(client: Client) -> AsyncIterator[Record]:
    """A record that is kept up to date until the end."""
    record = Record()
    task = asyncio.create_task(record.follow(client))
    try:
        yield record
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
