"""A copy of a database that has one of everything, judged by ``pg_dump``'s text of both sides, not by our own code."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from brokers.postgres.names import database_of
from schemas.ids import new_id
from tests.integration.filesystem.site import Site
from tests.integration.postgres.services import Postgres

FORMATS = {"broker": "pg_dump-custom", "parallel": "postgres-logical-2"}
SCRIPTS = Path(__file__).with_name("nasty.sql").read_text().split("-- and then\n")


@pytest.mark.parametrize("way", ["broker", "parallel"])
async def test_a_nasty_database_is_restored_to_the_last_value(
    way: str, repository: Site, broker: Postgres, parallel: Postgres
) -> None:
    """By one dump, and by tables that are read over several connections."""
    broker = parallel if way == "parallel" else broker
    source, target, copy = new_id(), new_id(), new_id()
    await broker.provision(source)
    async with await broker.connect(source) as app:
        for script in SCRIPTS:
            await app.execute(script.encode())
    await broker.prepare(source, copy)
    copied = await broker.copy(source, copy, repository.open_write(copy))
    assert copied.copy_format == FORMATS[way]
    repository.repository.commit(copy)
    await broker.discard(copy)
    await broker.provision(target, restore=repository.open_read(copy))
    before, after = await asyncio.gather(dumped(broker, source), dumped(broker, target))
    assert len(before) > 1_000_000
    assert after.splitlines() == before.splitlines()


async def dumped(broker: Postgres, service_id: str) -> str:
    """The database as SQL text, owners by the names of the service's roles."""
    address, database = broker.server.server, database_of(service_id)
    command: list[str | Path] = [address.bin_dir / "pg_dump", "--restrict-key=0", "--no-acl", f"--dbname={database}"]
    environment = {
        "PGHOST": address.host,
        "PGPORT": str(address.port),
        "PGUSER": address.user,
        "PGPASSWORD": broker.server.password,
    }

    def run() -> str:
        return subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout

    return (await asyncio.to_thread(run)).replace(database, "the_service")
