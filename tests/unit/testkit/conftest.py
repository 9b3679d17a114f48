"""Reference brokers in this process, on a real NATS server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from brokers.testkit.reference.serving import Reference
from bus.connection import Bus, BusSettings
from schemas.values import BrokerKind
from tests.servers import NatsServer

SITE = "north"
Serve = Callable[..., AbstractAsyncContextManager[Reference]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    connected = await Bus.connect(BusSettings(servers=[nats_server.url], name="conformance"))
    yield connected
    await connected.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def brokers_bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    connected = await Bus.connect(BusSettings(servers=[nats_server.url], name="reference"))
    yield connected
    await connected.close()


@pytest.fixture
def serve(brokers_bus: Bus, tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def serving(kind: BrokerKind, *, name: str, defects: Iterable[str] = ()) -> AsyncIterator[Reference]:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        broker = Reference(brokers_bus, kind, site=SITE, name=name, directory=directory, defects=defects)
        await broker.start()
        try:
            yield broker
        finally:
            await broker.stop()

    return serving
