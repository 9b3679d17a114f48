"""One real stack for all fault tests; after each test it is put back to the application alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.faults.world import World
from tests.faults.worlds import running_world


@pytest.fixture(scope="package")
async def stack_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """The stack with the application at north. At the end nothing of it is left."""
    async with running_world(tmp_path_factory.mktemp("faults") / "home") as world:
        yield world


@pytest.fixture
async def world(stack_world: World) -> AsyncIterator[World]:
    """The stack, whole at the beginning of a test and cleared after it."""
    await stack_world.whole()
    yield stack_world
    await stack_world.whole()
    await stack_world.clear()
