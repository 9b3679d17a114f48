"""Every kind of object store, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.integration.repository_stores.stores import Shelf, postgres_settings, s3_settings
from tests.servers import RunningPostgres, RunningS3

KINDS = ("s3", "postgres")
OpenShelf = Callable[[], Shelf]
"""Opens another store of the same kind, beside the first: not the same place."""


@pytest_asyncio.fixture(params=KINDS, loop_scope="session")
async def open_shelf(
    request: pytest.FixtureRequest, s3_server: RunningS3, postgres_server: RunningPostgres
) -> AsyncIterator[OpenShelf]:
    opened: list[Shelf] = []
    kind: str = request.param

    def another() -> Shelf:
        settings = s3_settings(s3_server) if kind == "s3" else postgres_settings(postgres_server)
        opened.append(Shelf(kind, settings))
        return opened[-1]

    yield another
    for shelf in opened:
        await asyncio.to_thread(shelf.close)


@pytest.fixture
def shelf(open_shelf: OpenShelf) -> Shelf:
    """An empty store."""
    return open_shelf()
