"""Starts a world of one's own, and sees that nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.e2e.stack import running_stack, until
from tests.faults import stand
from tests.faults.checker import Checker
from tests.faults.reality import look
from tests.faults.record import recording
from tests.faults.world import APP, SITES, World


@asynccontextmanager
async def running_world(home: Path, *, options: tuple[str, ...] = ()) -> AsyncIterator[World]:
    """A stack, started with ``options`` of ``calque up``, with the application at north. At the end nothing of the
    application is left. Its parts can be told when to die (:mod:`tests.faults.armed`)."""
    async with running_stack(home, sites=SITES, options=options, module=stand.__name__) as stack:
        clean = {site: await look(home, site) for site in SITES}
        timeout = aiohttp.ClientTimeout(total=60)
        async with (
            await stack.client() as client,
            recording(client) as record,
            aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as http,
        ):
            checker = Checker(home=home, sites=SITES, client=client, clean=clean)
            world = World(stack, client, record, checker, http)
            await world.whole()
            await world.deploy()
            yield world
            await world.whole()
            await world.clear()
            await world.must(await client.delete(APP))
            await world.checker.judge()

            async def nothing_left() -> bool:
                found = await asyncio.gather(*(look(home, site) for site in SITES))
                return list(found) == [clean[site] for site in SITES]

            await until(nothing_left, seconds=20, what="nothing left at the sites")
