"""A hub's projections rebuilt from ``EVENTS``: a million real-shaped events in a stream of a real server, in the shape
that sourcing leaves, read, checked, decoded and folded by what a hub does at its start. Beside it, in turns, the bare
readers: a raw pull with nats-py whose envelopes are decoded and thrown away, and the hub's own socket reader likewise.

CPU time of the whole process, in microseconds per event: what one core can do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median

from bus.connection import Bus, BusSettings
from bus.draining import Drain
from bus.feed import EventsFeed
from bus.reader import StreamReader
from hub.application.projector import Projector
from schemas.envelope import decode
from tests.bench.harness import Figure, Scale
from tests.bench.servers import bench_server
from tests.bench.shaped import history, load

TITLE = "Replay"
EVENTS = {Scale.FULL: 1_000_000, Scale.SMOKE: 20_000}
SITES = {Scale.FULL: 1000, Scale.SMOKE: 20}
RUNS = {Scale.FULL: 3, Scale.SMOKE: 1}
SECONDS = 600.0


async def rebuild(bus: Bus, count: int) -> Projector:
    """As the hub starts: its projector, its feed. The projector is given back: that it goes is not part of the cost."""
    feed = EventsFeed(bus)
    projector = Projector(feed, drain=feed.drain)
    running = asyncio.create_task(projector.run())
    try:
        await projector.caught_up(timeout_seconds=SECONDS)
        if projector.state.events != count:
            raise AssertionError(f"{projector.state.events} events were taken in, not {count}")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return projector


async def raw_pull(bus: Bus, count: int) -> None:
    """nats-py, pulled from into a callback; envelopes decoded."""
    batches = StreamReader(bus, stream="EVENTS").read()
    async for batch in batches:
        for each in batch:
            decode(each.payload)
        count -= len(batch)
        if count <= 0:
            break
    await batches.aclose()


async def socket_pull(settings: BusSettings, count: int) -> None:
    """The socket reader; envelopes decoded."""

    def read() -> int:
        seen = 0
        for batch in Drain(settings, stream="EVENTS").read():
            seen += len(batch)
            for _, _, payload in batch:
                decode(payload)
        return seen

    if await asyncio.to_thread(read) != count:
        raise AssertionError("not all was read")


async def cost(work: Callable[[], Awaitable[object]], count: int) -> float:
    """CPU microseconds per event."""
    begun = time.process_time()
    made = await work()
    seconds = time.process_time() - begun
    del made
    return seconds * 1e6 / count


async def run(scale: Scale) -> list[Figure]:
    """Measure."""
    count = EVENTS[scale]
    async with bench_server() as server:
        await load(server.bus, "EVENTS", history(events=count, sites=SITES[scale], seed=1))
        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "rebuild": lambda: rebuild(server.bus, count),
            "raw pull": lambda: raw_pull(server.bus, count),
            "socket": lambda: socket_pull(server.bus.settings, count),
        }
        costs: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(RUNS[scale]):
            for name, work in ways.items():
                costs[name].append(await cost(work, count))
    found = {name: median(each) for name, each in costs.items()}
    ratios = [raw / whole for whole, raw in zip(costs["rebuild"], costs["raw pull"], strict=True)]
    bar = scale is Scale.FULL
    return [
        Figure(
            name="events per second of one core into the projections",
            value=1e6 / found["rebuild"],
            unit="1/s",
            at_least=200_000 if bar else None,
            detail=f"{found['rebuild']:.2f} us each",
        ),
        Figure(
            name="of what a bare raw pull with decode reaches (nats-py)",
            value=median(ratios),
            unit="",
            at_least=0.8 if bar else None,
            kind="ratio",
            detail=f"{found['raw pull']:.2f} us each",
        ),
        Figure(
            name="of what the socket reader with decode reaches",
            value=found["socket"] / found["rebuild"],
            unit="",
            kind="ratio",
            detail=f"{found['socket']:.2f} us each",
        ),
    ]
