"""The process broker as a process of its own, on a real bus; a test may kill it."""

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


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_app(tmp_path / "app")


@pytest.fixture
async def platform(nats_server: NatsServer, bus: Bus, tmp_path: Path) -> AsyncIterator[Platform]:
    process = BrokerProcess(
        "brokers.process", bus=bus, nats_url=nats_server.url, kind="psb", name="process", directory=tmp_path / "broker"
    )
    made = Platform(process)
    await made.start()
    try:
        yield made
    finally:
        if not made.running:
            await made.start()
        code = await made.stop()
    assert code == 0
    assert processes_of(made.state) == []
    log = process.log.read_text()
    assert "Traceback" not in log, log
