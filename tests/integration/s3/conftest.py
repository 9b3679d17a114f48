"""The S3 broker as a process, on a real server, with a real copy repository."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bus.connection import Bus
from tests.integration.postgres.conftest import bus, repository  # noqa: F401 - fixtures
from tests.integration.s3.services import S3
from tests.servers import NatsServer, RunningS3


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(
    s3_server: RunningS3,
    nats_server: NatsServer,
    bus: Bus,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[S3]:
    made = S3(s3_server, bus=bus, nats_url=nats_server.url, directory=tmp_path_factory.mktemp("broker"), name="s3")
    await made.start()
    yield made
    assert await made.stop() == 0


@pytest.fixture
async def own_broker(
    s3_server: RunningS3,
    nats_server: NatsServer,
    bus: Bus,  # noqa: F811
    tmp_path: Path,
) -> AsyncIterator[S3]:
    """A broker that a test may kill, on the shared server."""
    made = S3(s3_server, bus=bus, nats_url=nats_server.url, directory=tmp_path, name="own")
    await made.start()
    yield made
    await made.stop()
