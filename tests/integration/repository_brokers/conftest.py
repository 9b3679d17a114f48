"""One set of servers for all tests of repository brokers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bus.connection import Bus, BusSettings
from tests.integration.repository_brokers.brokers import Surroundings
from tests.servers import NatsServer, RunningPostgres, RunningS3


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    connected = await Bus.connect(BusSettings(servers=[nats_server.url], name="repository-brokers"))
    yield connected
    await connected.close()


@pytest.fixture
def surroundings(
    tmp_path: Path, nats_server: NatsServer, bus: Bus, s3_server: RunningS3, postgres_server: RunningPostgres
) -> Surroundings:
    return Surroundings(directory=tmp_path, nats=nats_server, bus=bus, s3=s3_server, postgres=postgres_server)
