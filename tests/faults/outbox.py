"""A writer's own stream, read at its own server with its own key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from bus.connection import Bus, BusSettings
from bus.events import Recorded
from bus.feed import EventsFeed
from schemas.subjects import HUB, outbox
from tests.faults.reality import Ports

READ_SECONDS = 60.0


@asynccontextmanager
async def site_bus(home: Path, writer: str) -> AsyncIterator[Bus]:
    """A connection to the server of a site as its agent, or to the hub's as the hub."""
    keys = home / "keys"
    seed = keys / "hub" / "hub.nk" if writer == HUB else keys / "sites" / writer / "agent.nk"
    url = f"nats://127.0.0.1:{Ports(home)[f'{writer}-nats']}"
    bus = await Bus.connect(BusSettings(servers=[url], nkey_seed_file=str(seed), name="fault-tests"))
    try:
        yield bus
    finally:
        await bus.close()


async def read_outbox(bus: Bus, writer: str) -> list[Recorded]:
    """All events of the writer, in its order."""
    feed = EventsFeed(bus, stream=outbox(writer))
    last = await feed.last_sequence()
    events: list[Recorded] = []
    if not last:
        return events
    async with asyncio.timeout(READ_SECONDS), aclosing(feed.read(after=0)) as batches:
        async for batch in batches:
            events += batch
            if feed.position >= last:
                break
    return events
