"""Questions for images, to a hub process that knows 100,000 of them: filtered by site, template, tag or text, in an
order, a page of 50. One client asks one question after the other; each kind of question is asked as often.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from bus.connection import Bus
from schemas.queries import ImagesQuery, ImagesView, ImageView
from schemas.subjects import query
from tests.bench import processes
from tests.bench.harness import Curve, Figure, Scale, percentile
from tests.bench.processes import Running
from tests.bench.servers import bench_server
from tests.bench.shaped import load, world

TITLE = "Catalog queries"
PAGE = 50
SIZES: Mapping[Scale, tuple[int, int, int]] = {Scale.FULL: (100_000, 1000, 200), Scale.SMOKE: (2_000, 20, 20)}


async def run(scale: Scale) -> list[Figure | Curve]:
    """See the module."""
    images, sites, times = SIZES[scale]
    async with bench_server() as server:
        events = world(sites=sites, apps=images // 10, copies=images, images=images, operations=False)
        await load(server.bus, "EVENTS", events)
        with (
            tempfile.TemporaryDirectory() as directory,
            processes.hub(url=server.url, sites=[], home=Path(directory) / "hub") as hub,
        ):
            await hub.until_ready()
            total, took, cpu = await _asked(server.bus, hub, times=times)
            memory = hub.peak_memory_bytes()
    everything = [each for values in took.values() for each in values]
    what = f"{total:,} images"
    return [
        Figure(name="any question, p50", value=percentile(everything, 0.5), unit="ms", detail=what),
        Figure(name="any question, p99", value=percentile(everything, 0.99), unit="ms", at_most=20, detail=what),
        *(Figure(name=f"{kind}, p99", value=percentile(values, 0.99), unit="ms") for kind, values in took.items()),
        Figure(name="CPU of the hub for a question", value=cpu / len(everything) * 1e6, unit="us"),
        Figure(name="memory of the hub at most", value=memory / (1 << 20), unit="MiB"),
    ]


async def _asked(bus: Bus, hub: Running, *, times: int) -> tuple[int, dict[str, list[float]], float]:
    """How many images there are, how many milliseconds each question took by its kind, and the hub's CPU seconds."""
    first = await _ask(bus, ImagesQuery(limit=1000))
    chance = random.Random(1)
    some = [chance.choice(first.images) for _ in range(50)]
    middle = (await _ask(bus, ImagesQuery(sort="name", limit=1000))).next
    kinds: dict[str, Callable[[ImageView], ImagesQuery]] = {
        "newest first": lambda one: ImagesQuery(descending=True, limit=PAGE),
        "of a site, by name": lambda one: ImagesQuery(site=one.site, sort="name", limit=PAGE),
        "of a template, largest first": lambda one: ImagesQuery(
            template=one.template, sort="size", descending=True, limit=PAGE
        ),
        "of a site and a template, newest first": lambda one: ImagesQuery(
            site=one.site, template=one.template.partition("@")[0], descending=True, limit=PAGE
        ),
        "with a text in the name, newest first": lambda one: ImagesQuery(
            text=one.name[-4:], descending=True, limit=PAGE
        ),
        "by name": lambda one: ImagesQuery(name=one.name, limit=PAGE),
        "a page in the middle": lambda one: ImagesQuery(sort="name", limit=PAGE, after=middle),
    }
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    loop = asyncio.get_running_loop()
    before = hub.cpu_seconds()
    for _ in range(times):
        for kind, question in kinds.items():
            asked = question(chance.choice(some))
            begun = loop.time()
            await _ask(bus, asked)
            took[kind].append((loop.time() - begun) * 1000)
    return first.total or 0, took, hub.cpu_seconds() - before


async def _ask(bus: Bus, question: ImagesQuery) -> ImagesView:
    return await bus.ask(query("images"), question, ImagesView, source="bench", timeout_seconds=60.0)
