"""What ``pg_dump`` says of a database: the judge of copies, because nothing of it is ours."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Mapping
from pathlib import Path

from brokers.postgres.names import database_of
from tests.integration.postgres.services import Postgres
from tests.servers import RunningPostgres

SERVICE = "the_service"
"""What stands for the database's name, which is that of its owner too."""
DUMP_SECONDS = 240.0


def superuser(server: RunningPostgres) -> dict[str, str]:
    """The environment of programs that speak to the server."""
    address = server.server
    return {
        "PGHOST": address.host,
        "PGPORT": str(address.port),
        "PGUSER": address.user,
        "PGPASSWORD": server.password,
    }


def dump(database: str, *options: str, bin_dir: Path, environment: Mapping[str, str]) -> str:
    """The database as SQL text that two dumps of the same have in common, its name as ``SERVICE``."""
    done = subprocess.run(
        [bin_dir / "pg_dump", "--restrict-key=0", *options, f"--dbname={database}"],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
        timeout=DUMP_SECONDS,
    )
    return done.stdout.replace(database, SERVICE)


def dump_of(server: RunningPostgres, service_id: str, *options: str, bin_dir: Path | None = None) -> str:
    """The database of a data service; ``bin_dir`` where the program is not the server's own."""
    where = bin_dir or server.server.bin_dir
    return dump(database_of(service_id), *options, bin_dir=where, environment=superuser(server))


async def dumps_of(
    *sides: tuple[Postgres, str], options: tuple[str, ...] = (), bin_dir: Path | None = None
) -> list[str]:
    """Those of several data services, at the same time."""
    return await asyncio.gather(
        *(asyncio.to_thread(dump_of, broker.server, id, *options, bin_dir=bin_dir) for broker, id in sides)
    )
