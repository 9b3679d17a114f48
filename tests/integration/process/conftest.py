"""The process broker as a process of its own, on a real bus. Tests share it, may kill it, and leave nothing in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bus.connection import Bus, BusSettings
from tests.integration.broker_process import BrokerProcess
from tests.integration.process.apps import Platform, processes_of, write_app
from tests.servers import NatsServer


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    connected = await Bus.connect(BusSettings(servers=[nats_server.url], name="test"))
    yield connected
    await connected.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_platform(
    nats_server: NatsServer, bus: Bus, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Platform]:
    made = Platform(
        BrokerProcess(
            "brokers.process",
            bus=bus,
            nats_url=nats_server.url,
            kind="psb",
            name="process",
            directory=tmp_path_factory.mktemp("process-broker"),
            stop_seconds=1.0,
        )
    )
    await made.start()
    yield made
    assert await made.stop() == 0


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_app(tmp_path / "app")


@pytest.fixture
async def platform(shared_platform: Platform) -> AsyncIterator[Platform]:
    log = shared_platform.process.log
    begun = log.stat().st_size
    try:
        yield shared_platform
    finally:
        if not shared_platform.running:
            await shared_platform.start()
        for status in await shared_platform.services():
            await shared_platform.remove(service=status.service)
    assert processes_of(shared_platform.state) == []
    assert list((shared_platform.state / "services").iterdir()) == []
    told = log.read_bytes()[begun:].decode()
    assert "Traceback" not in told, told
