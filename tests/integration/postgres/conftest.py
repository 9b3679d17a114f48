"""The PostgreSQL broker as a process, on a real server, with a real copy repository."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bus.connection import Bus, BusSettings
from tests.integration.filesystem.certificates import Authority
from tests.integration.filesystem.site import Site
from tests.integration.postgres.services import Postgres
from tests.servers import NatsServer, RunningPostgres


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    connected = await Bus.connect(BusSettings(servers=[nats_server.url], name="test"))
    yield connected
    await connected.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def repository(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    directory = tmp_path_factory.mktemp("repository")
    async with Site("north", directory=directory, authority=Authority(directory)) as site:
        yield site


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(
    postgres_server: RunningPostgres, nats_server: NatsServer, bus: Bus, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Postgres]:
    made = Postgres(
        postgres_server, bus=bus, nats_url=nats_server.url, directory=tmp_path_factory.mktemp("broker"), name="postgres"
    )
    await made.start()
    yield made
    assert await made.stop() == 0


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def parallel(
    postgres_server: RunningPostgres, nats_server: NatsServer, bus: Bus, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Postgres]:
    """A broker to which every database is big and every table worth several pieces."""
    made = Postgres(
        postgres_server,
        bus=bus,
        nats_url=nats_server.url,
        directory=tmp_path_factory.mktemp("parallel"),
        name="parallel",
        parallel={"from_bytes": 0, "connections": 3, "piece_bytes": 1 << 16},
    )
    await made.start()
    yield made
    assert await made.stop() == 0


@pytest.fixture(params=["one dump", "several connections"])
def either(request: pytest.FixtureRequest, broker: Postgres, parallel: Postgres) -> Postgres:
    """A broker that copies the databases of tests in one of its two ways."""
    return broker if request.param == "one dump" else parallel


@pytest.fixture
async def own_broker(
    postgres_server: RunningPostgres, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> AsyncIterator[Postgres]:
    """A broker that a test may kill, on the shared server."""
    made = Postgres(postgres_server, bus=bus, nats_url=nats_server.url, directory=tmp_path, name="own")
    await made.start()
    yield made
    await made.stop()
