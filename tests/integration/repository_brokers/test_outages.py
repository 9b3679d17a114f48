"""What a repository is stored in goes away, before a start and in the middle of work, and comes back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from brokers.sdk.copystream import CopyStreamError, CopyWriter
from hub.stack.supervisor import Supervisor
from schemas.brokers import (
    CopyList,
    CrbInfo,
    DataServiceHealth,
    Granted,
    Health,
    InfoRequest,
    ListCopies,
    OpenWrite,
)
from schemas.ids import new_id
from schemas.problems import CalqueError
from schemas.values import CopyPart
from tests.e2e.stack import until
from tests.integration.repository_brokers.brokers import BLOCK, SOURCE, CopyBroker, Surroundings, blocks, commit_request
from tests.integration.repository_stores.stores import postgres_settings, s3_settings
from tests.servers import run_postgres, run_s3

pytestmark = pytest.mark.full

DATA = random.Random(5).randbytes(80 * BLOCK + 1)
R = TypeVar("R")
PATIENCE_SECONDS = 40.0


@asynccontextmanager
async def own_server(kind: str, home: Path) -> AsyncIterator[tuple[Supervisor, dict[str, Any]]]:
    """A server that a test may stop, and the settings of a repository in it."""
    if kind == "s3":
        async with run_s3(home) as s3:
            yield s3.supervisor, {"bucket": s3_settings(s3)}
    else:
        async with run_postgres(home) as postgres:
            yield postgres.supervisor, {"database": postgres_settings(postgres)}


async def retried(attempt: Callable[[], Awaitable[R]]) -> R:
    """What an agent does: again while the problem is temporary. Any other problem fails the test."""
    done: list[R] = []

    async def once() -> bool:
        try:
            done.append(await attempt())
        except CalqueError as error:
            if not error.problem.temporary:
                raise
        return bool(done)

    await until(once, seconds=PATIENCE_SECONDS, what="it works again")
    return done[0]


async def committed(broker: CopyBroker, part: CopyPart) -> None:
    """Raises the problem of a commit that fails."""
    request = commit_request("c1", part)
    outcome = await broker.begin("commit", request)
    if outcome.state == "running":
        outcome = await broker.ended(request.id)
    if outcome.problem is not None:
        raise CalqueError(outcome.problem)


@pytest.mark.parametrize("kind", ["s3", "postgres"])
async def test_a_broker_starts_without_its_store_and_serves_when_it_comes(
    surroundings: Surroundings, tmp_path: Path, kind: str
) -> None:
    async with own_server(kind, tmp_path / "own") as (server, settings):
        await server.stop()
        broker = surroundings.broker(kind, **settings)
        await broker.start()
        try:
            health = await broker.ask("health", DataServiceHealth(), Health)
            assert not health.healthy
            assert "does not answer" in health.message
            for operation, request, reply in (
                ("info", InfoRequest(), CrbInfo),
                ("list", ListCopies(), CopyList),
                ("open_write", OpenWrite(id=new_id(), copy="c1", source=SOURCE), Granted),
            ):
                problem = await broker.refuses(operation, request, reply)
                assert (problem.code, problem.temporary) == ("unavailable", True)
            await server.start()

            async def healthy() -> bool:
                return (await broker.ask("health", DataServiceHealth(), Health)).healthy

            await until(healthy, seconds=PATIENCE_SECONDS, what="the repository is open")
            await broker.save("c1", b"data")
            assert await broker.read("c1") == b"data"
        finally:
            await broker.stop()


@pytest.mark.parametrize("kind", ["s3", "postgres"])
async def test_a_store_that_is_killed_in_the_middle_of_a_save_is_a_temporary_problem(
    surroundings: Surroundings, tmp_path: Path, kind: str
) -> None:
    async with own_server(kind, tmp_path / "own") as (server, settings):
        broker = surroundings.broker(kind, **settings)
        await broker.start()
        halfway = asyncio.Event()
        stopped = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            async for block in blocks(DATA):
                if halfway.is_set():
                    await stopped.wait()
                yield block
                halfway.set()

        try:
            await broker.save("before", b"kept")
            grant = await broker.open_write("c1")
            writing = asyncio.create_task(CopyWriter(grant).write_stream("dump", slowly()))
            await halfway.wait()
            await server.stop()
            stopped.set()
            with pytest.raises(CopyStreamError) as failed:
                await writing
            assert failed.value.problem.temporary, failed.value.problem
            await server.start()

            part = await retried(lambda: CopyWriter(grant).write_stream("dump", blocks(DATA)))
            await retried(lambda: committed(broker, part))
            assert await broker.copies() == ["before", "c1"]
            assert await broker.read("c1") == DATA
            assert await broker.read("before") == b"kept"
        finally:
            await broker.stop()
