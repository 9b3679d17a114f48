"""The start of a hub with a snapshot: from the moment at which it is connected until its projections have caught up,
in a process of its own; what it makes ready for questions afterwards is told apart. The snapshot lacks the last 5,000
events, which are read behind it. Two records: a long history, and a big present state with the operations that led to
it. Beside it: what writing the snapshot takes, for how long nothing is taken in meanwhile, and how long the loop was
kept from other work at most.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from tests.bench.harness import Curve, Figure, Scale
from tests.bench.servers import bench_server
from tests.bench.shaped import Told, history, load, world

TITLE = "Start with a snapshot"
MIB = 1 << 20
HISTORY: Mapping[Scale, int] = {Scale.FULL: 1_000_000, Scale.SMOKE: 12_000}
STATE: Mapping[Scale, dict[str, int]] = {
    Scale.FULL: {"sites": 1000, "apps": 10_000, "copies": 100_000, "images": 60_000},
    Scale.SMOKE: {"sites": 20, "apps": 50, "copies": 500, "images": 300},
}


async def run(scale: Scale) -> list[Figure | Curve]:
    """Both records, one after the other."""
    full = scale is Scale.FULL
    figures: list[Figure | Curve] = []
    long = history(events=HISTORY[scale], sites=100, seed=1)
    figures += await _measure(f"{HISTORY[scale]:,} events", long, seconds=1.0 if full else None)
    state = STATE[scale]
    name = f"{state['copies']:,} copies, {state['apps']:,} apps, {state['sites']:,} sites"
    limit = 2.0 if full else None
    figures += await _measure(
        name,
        world(sites=state["sites"], apps=state["apps"], copies=state["copies"], images=state["images"]),
        seconds=limit,
        bytes_=1024 * MIB if full else None,
    )
    return figures


async def _measure(
    name: str, events: Iterable[Told], *, seconds: float | None, bytes_: int | None = None
) -> list[Figure]:
    async with bench_server() as server:
        await load(server.bus, "EVENTS", events)
        written = await _process(server.url, "write")
        started = await _process(server.url, "start")
    behind = started["events"] - started["from"]
    detail = f"{started['events']:,} events, the last {behind:,} of them behind the snapshot"
    return [
        Figure(name=f"{name}: start", value=started["wall"], unit="s", at_most=seconds, detail=detail),
        Figure(name=f"{name}: start, CPU", value=started["cpu"], unit="s"),
        Figure(name=f"{name}: from zero, CPU", value=written["cpu"], unit="s", detail="the way without catching up"),
        Figure(name=f"{name}: memory of the process", value=started["rss"] / MIB, unit="MiB"),
        Figure(
            name=f"{name}: memory with the index of images, that follows",
            value=started["rss_ready"] / MIB,
            unit="MiB",
            at_most=bytes_ / MIB if bytes_ else None,
        ),
        Figure(name=f"{name}: the index of images, CPU", value=started["cpu_ready"] - started["cpu"], unit="s"),
        Figure(name=f"{name}: snapshot", value=written["size"] / MIB, unit="MiB"),
        Figure(name=f"{name}: nothing taken in while it is written", value=written["held"], unit="s"),
        Figure(name=f"{name}: longest stall of the loop meanwhile", value=written["stall"] * 1000, unit="ms"),
    ]


async def _process(url: str, mode: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.starting", url, mode, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"starting ({mode}) ended with {process.returncode}")
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told
