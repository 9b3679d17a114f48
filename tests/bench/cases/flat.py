"""What an event costs when there are more of them: the first 10,000 to 1,000,000 events of one history, read from a
real server and folded into the hub's projections from nothing, as at its start.

CPU time of the whole process, in microseconds per event; the least of several runs.
"""

from __future__ import annotations

import time

from bus.connection import Bus
from bus.feed import EventsFeed
from hub.projections.quick import QuickFold, no_collection
from hub.projections.state import Projections
from tests.bench.harness import Curve, Figure, Scale
from tests.bench.servers import bench_server
from tests.bench.shaped import history, load

TITLE = "Cost per event"
SIZES = {
    Scale.FULL: (10_000, 30_000, 100_000, 300_000, 1_000_000),
    Scale.SMOKE: (3_000, 10_000),
}
SITES = 1000
RUNS = 3
FLAT = 1.25


async def fold(bus: Bus, count: int) -> float:
    """CPU microseconds per event for the first ``count``."""
    feed, quick = EventsFeed(bus), QuickFold(Projections())
    begun = time.process_time()
    with no_collection():
        await feed.drain(quick.take, after=0, until=count)
    seconds = time.process_time() - begun
    if quick.state.events != count:
        raise AssertionError(f"{quick.state.events} events were taken in, not {count}")
    return seconds * 1e6 / count


async def run(scale: Scale) -> list[Figure | Curve]:
    """Measure."""
    sizes = SIZES[scale]
    costs: dict[int, list[float]] = {size: [] for size in sizes}
    async with bench_server() as server:
        await load(server.bus, "EVENTS", history(events=sizes[-1], sites=SITES, seed=1))
        await fold(server.bus, sizes[0])
        for _ in range(RUNS):
            for size in sizes:
                costs[size].append(await fold(server.bus, size))
    points = [(float(size), min(each)) for size, each in costs.items()]
    return [
        Figure(
            name=f"an event of {sizes[-1]:,} against one of {sizes[0]:,}",
            value=points[-1][1] / points[0][1],
            unit="",
            at_most=FLAT if scale is Scale.FULL else None,
            kind="ratio",
        ),
        Curve(name="cost of an event", x="events", y="us", points=points),
    ]
