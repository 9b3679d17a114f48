"""One PostgreSQL and one S3 server for all tests here; applications with a database and bucket of their own."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.e2e.hackathon.sample import Place, Sample, place, running
from tests.e2e.hackathon.servers import PostgresServer, S3Server, postgres, seaweed


@pytest.fixture(scope="session")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgres(tmp_path_factory.mktemp("sample") / "postgres") as server:
        yield server


@pytest.fixture(scope="session")
def own_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweed(tmp_path_factory.mktemp("sample") / "s3") as server:
        yield server


@pytest.fixture
def fresh_place(own_postgres: PostgresServer, own_s3: S3Server) -> Place:
    """A database and a bucket with nothing in them."""
    return place(own_postgres, own_s3)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared(
    own_postgres: PostgresServer, own_s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sample]:
    """An application for tests that don't mind the ideas of others."""
    log = tmp_path_factory.mktemp("shared") / "log"
    async with running(place(own_postgres, own_s3), log) as sample:
        yield sample


@pytest_asyncio.fixture(loop_scope="session")
async def sample(fresh_place: Place, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sample]:
    """An application of this test's own."""
    async with running(fresh_place, tmp_path_factory.mktemp("sample") / "log") as started:
        yield started
