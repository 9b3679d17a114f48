"""A copy of a database that has one of everything, judged by ``pg_dump``'s text of both sides, not by our own code."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from brokers.postgres.names import database_of
from tests.integration.filesystem.site import Site
from tests.integration.postgres.services import Postgres

SCRIPTS = Path(__file__).with_name("nasty.sql").read_text().split("-- and then\n")


async def test_a_nasty_database_is_restored_to_the_last_value(broker: Postgres, repository: Site) -> None:
    await broker.provision("nasty")
    async with await broker.connect("nasty") as app:
        for script in SCRIPTS:
            await app.execute(script.encode())
    await broker.prepare("nasty", "copy-nasty")
    await broker.copy("nasty", "copy-nasty", repository.open_write("copy-nasty"))
    repository.repository.commit("copy-nasty")
    await broker.discard("copy-nasty")
    await broker.provision("nasty-2", restore=repository.open_read("copy-nasty"))
    before, after = await asyncio.gather(dumped(broker, "nasty"), dumped(broker, "nasty-2"))
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
