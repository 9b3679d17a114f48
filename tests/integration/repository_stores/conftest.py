"""Every kind of object store, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.repository_stores.stores import Shelf, postgres_settings, s3_settings
from tests.servers import RunningPostgres, RunningS3

DURABLE = ("filesystem", "s3", "postgres")
KINDS = ("memory", *DURABLE)
OpenShelf = Callable[[], Shelf]
"""Opens another store of the same kind, beside the first: not the same place."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of store that a test is about."""
    chosen: str = request.param
    return chosen


@pytest_asyncio.fixture(loop_scope="session")
async def open_shelf(
    kind: str, s3_server: RunningS3, postgres_server: RunningPostgres, tmp_path: Path
) -> AsyncIterator[OpenShelf]:
    opened: list[Shelf] = []

    def another() -> Shelf:
        settings: Mapping[str, dict[str, Any]] = {
            "memory": {},
            "filesystem": {"directory": str(tmp_path / f"store-{len(opened)}")},
            "s3": s3_settings(s3_server),
            "postgres": postgres_settings(postgres_server),
        }
        opened.append(Shelf(kind, settings[kind]))
        return opened[-1]

    yield another
    for shelf in opened:
        await asyncio.to_thread(shelf.close)


@pytest.fixture
def shelf(open_shelf: OpenShelf) -> Shelf:
    """An empty store."""
    return open_shelf()
