"""One whole stack for all tests of the main job; each module clears away what it made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from tests.e2e.main_job.belongings import Belongings, belongings
from tests.e2e.main_job.ways import clear
from tests.e2e.stack import Stack, running_stack


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """``calque up`` with the sites north and south, and the sample template applied."""
    async with running_stack(tmp_path_factory.mktemp("main-job") / "home") as started:
        await started.must("template", "apply", "calque.yaml")
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def clean(stack: Stack) -> Mapping[str, Belongings]:
    """What there is at each site before any app was deployed."""
    return {site: await belongings(stack.home, site) for site in stack.sites}


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def cleared(stack: Stack, clean: Mapping[str, Belongings]) -> AsyncIterator[None]:
    """Removes every app and image after a module."""
    yield
    await clear(stack)
