"""A process that starts the projections as a hub does, and tells what that took: ``python -m tests.bench.starting URL
MODE``. ``write`` reads all but the last events and leaves a snapshot of them, ``start`` begins with what there is."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

from bus.connection import Bus, BusSettings
from bus.feed import EventsFeed
from bus.jetstream import JetStream
from bus.records import Recorded
from bus.snapshots import Snapshots
from hub.application.projector import Projector
from hub.application.snapshots import Snapshotter

TAIL = 5000
CATCH_UP_SECONDS = 1800.0
STALL_SECONDS = 0.005
IMAGES_AT_ONCE = 500


class AllButTheTail:
    """``EVENTS`` as it was some events ago."""

    def __init__(self, feed: EventsFeed, last: int) -> None:
        self._feed = feed
        self._last = last
        self.position = 0

    async def last_sequence(self) -> int:
        return self._last

    async def read(self, *, after: int = 0) -> AsyncGenerator[list[Recorded], None]:
        async for batch in self._feed.read(after=after):
            self.position = min(self._feed.position, self._last)
            yield [each for each in batch if each.sequence <= self._last]
            if self.position >= self._last:
                await asyncio.Event().wait()


async def main(url: str, mode: str) -> None:
    bus = await Bus.connect(BusSettings(servers=[url], name="starting"))
    store = Snapshots(bus)
    await store.open()
    snapshots = Snapshotter(store, JetStream(bus), name="bench", clock=lambda: datetime.now(UTC))
    feed = EventsFeed(bus)
    began, cpu = time.perf_counter(), time.process_time()
    if mode == "write":
        last = await feed.last_sequence()
        projector = Projector(AllButTheTail(feed, max(last - TAIL, last // 2)), start=snapshots.start)
    else:
        projector = Projector(feed, start=snapshots.start, drain=feed.drain)
    reading = asyncio.create_task(projector.run())
    await projector.caught_up(timeout_seconds=CATCH_UP_SECONDS)
    told = {
        "wall": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "events": projector.state.events,
        "from": snapshots.started_from,
    }
    if mode == "write":
        stall = asyncio.create_task(_longest_stall())
        manifest = await snapshots.take(projector)
        stall.cancel()
        told |= {"size": manifest.size, "held": snapshots.held_seconds, "stall": _Longest.seconds}
    else:
        images = projector.state.images
        while projector.state.image_index.refresh(most=IMAGES_AT_ONCE) or images.copies.read_some(IMAGES_AT_ONCE):
            pass
        told["rss_ready"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        told["cpu_ready"] = time.process_time() - cpu
    print(json.dumps(told), flush=True)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await bus.close()


class _Longest:
    seconds = 0.0


async def _longest_stall() -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(STALL_SECONDS)
        _Longest.seconds = max(_Longest.seconds, time.perf_counter() - before - STALL_SECONDS)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
