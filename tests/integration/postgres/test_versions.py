"""From a server of an older major version to a newer one, by the programs of the newer one: all that the older one can
hold comes along, judged by ``pg_dump``'s text of both sides."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bus.connection import Bus
from hub.stack.servers.postgres import postgres_bin_dir
from schemas.ids import new_id
from tests.integration.filesystem.site import Site
from tests.integration.postgres.dumps import dumps_of
from tests.integration.postgres.services import Postgres
from tests.servers import NatsServer, RunningPostgres, run_postgres

OLDER = postgres_bin_dir().parent.parent / "pginstall" / "bin"
"""The package brings a second version of the server."""
NOT_THERE = re.compile(
    r"CREATE COLLATION simple[^;]*;|, c int GENERATED ALWAYS AS \(a \* 2\) VIRTUAL| COLLATE simple(?=,)"
)
"""What of the nasty database the older version does not know."""
SERVER = re.compile(r"(?m)^-- Dumped .*$")
SINCE_17 = {"'infinity');": "'1 day');"}
NASTY = Path(__file__).with_name("nasty.sql").read_text()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def older(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningPostgres]:
    if not (OLDER / "postgres").exists():
        pytest.skip("no older version of PostgreSQL is installed beside the one in use")
    async with run_postgres(tmp_path_factory.mktemp("older"), bin_dir=OLDER) as server:
        yield server


@pytest.mark.parametrize("parallel_from", [0, pytest.param(1 << 40, marks=pytest.mark.full)])
async def test_a_database_moves_to_a_newer_version(
    parallel_from: int,
    older: RunningPostgres,
    parallel: Postgres,
    repository: Site,
    nats_server: NatsServer,
    bus: Bus,
    tmp_path: Path,
) -> None:
    reading = Postgres(
        older,
        bus=bus,
        nats_url=nats_server.url,
        directory=tmp_path,
        name="older",
        bin_dir=postgres_bin_dir(),
        parallel={"from_bytes": parallel_from, "connections": 2, "piece_bytes": 1 << 16},
    )
    await reading.start()
    source, target, copy = new_id(), new_id(), new_id()
    try:
        await reading.provision(source)
        async with await reading.connect(source) as app:
            for script in _known_to_older().split("-- and then\n"):
                await app.execute(script.encode())
        await reading.prepare(source, copy)
        copied = await reading.copy(source, copy, repository.open_write(copy))
        assert copied.engine_version.startswith("16.")
        assert copied.copy_format == ("pg_dump-custom" if parallel_from else "postgres-logical-2")
        repository.repository.commit(copy)
        await reading.discard(copy)
        await parallel.provision(target, restore=repository.open_read(copy))
        texts = await dumps_of((reading, source), (parallel, target), options=("--no-acl",), bin_dir=postgres_bin_dir())
        before, after = (SERVER.sub("", text) for text in texts)
    finally:
        assert await reading.stop() == 0
    assert len(before) > 1_000_000
    assert after.splitlines() == before.splitlines()


def _known_to_older() -> str:
    text = NOT_THERE.sub("", NASTY)
    for newer, instead in SINCE_17.items():
        text = text.replace(newer, instead)
    return text
