"""The volume broker as a process, with a real copy repository."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bus.connection import Bus
from tests.integration.filesystem.certificates import Authority
from tests.integration.filesystem.site import Site
from tests.integration.postgres.conftest import bus  # noqa: F401 - a fixture
from tests.integration.volume.services import Volume
from tests.servers import NatsServer


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def repository(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """On the same machine, as it mostly is."""
    directory = tmp_path_factory.mktemp("repository")
    async with Site("north", directory=directory, authority=Authority(directory), near=True) as site:
        yield site


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(
    nats_server: NatsServer,
    bus: Bus,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Volume]:
    directory = tmp_path_factory.mktemp("broker")
    made = Volume(bus=bus, nats_url=nats_server.url, directory=directory, name="volume")
    await made.start()
    yield made
    assert await made.stop() == 0
    assert "Traceback" not in made.log.read_text()


@pytest.fixture
async def own_broker(
    nats_server: NatsServer,
    bus: Bus,  # noqa: F811
    tmp_path: Path,
) -> AsyncIterator[Volume]:
    """A broker that a test may kill."""
    made = Volume(bus=bus, nats_url=nats_server.url, directory=tmp_path, name="own-volume")
    await made.start()
    yield made
    await made.stop()
