"""One real stack for all fault tests; after each test it is put back to the application alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.e2e.stack import running_stack, until
from tests.faults.checker import Checker
from tests.faults.reality import look
from tests.faults.record import recording
from tests.faults.world import APP, SITES, World


@pytest.fixture(scope="session")
async def stack_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """The stack with the application at north. At the end nothing of it is left."""
    home = tmp_path_factory.mktemp("faults") / "home"
    async with running_stack(home, sites=SITES, module="tests.faults.stand") as stack:
        clean = {site: await look(home, site) for site in SITES}
        timeout = aiohttp.ClientTimeout(total=60)
        async with (
            await stack.client() as client,
            recording(client) as record,
            aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as http,
        ):
            checker = Checker(home=home, sites=SITES, client=client, clean=clean)
            world = World(stack, client, record, checker, http)
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


@pytest.fixture
async def world(stack_world: World) -> AsyncIterator[World]:
    """The stack, whole at the beginning of a test and cleared after it."""
    await stack_world.whole()
    yield stack_world
    await stack_world.whole()
    await stack_world.clear()
