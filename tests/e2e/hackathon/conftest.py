"""Applications of these tests, each with a database and a bucket of its own on the session's servers."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.hackathon.sample import Place, Sample, place, running
from tests.servers import RunningPostgres, RunningS3


@pytest.fixture
def fresh_place(postgres_server: RunningPostgres, s3_server: RunningS3) -> Place:
    """A database and a bucket with nothing in them."""
    return place(postgres_server, s3_server)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shared(
    postgres_server: RunningPostgres, s3_server: RunningS3, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sample]:
    """An application for tests that don't mind the ideas of others."""
    log = tmp_path_factory.mktemp("shared") / "log"
    async with running(place(postgres_server, s3_server), log) as sample:
        yield sample


@pytest_asyncio.fixture(loop_scope="session")
async def sample(fresh_place: Place, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sample]:
    """An application of this test's own."""
    async with running(fresh_place, tmp_path_factory.mktemp("sample") / "log") as started:
        yield started
