"""A copy of a database that has one of everything, judged by ``pg_dump``'s text of both sides, not by our own code."""

from __future__ import annotations

from pathlib import Path

from schemas.ids import new_id
from tests.integration.filesystem.site import Site
from tests.integration.postgres.dumps import dumps_of
from tests.integration.postgres.services import Postgres

SCRIPTS = Path(__file__).with_name("nasty.sql").read_text().split("-- and then\n")


async def test_a_nasty_database_is_restored_to_the_last_value(
    either: Postgres, parallel: Postgres, repository: Site
) -> None:
    """By one dump, and by tables that are read over several connections."""
    broker = either
    source, target, copy = new_id(), new_id(), new_id()
    await broker.provision(source)
    async with await broker.connect(source) as app:
        for script in SCRIPTS:
            await app.execute(script.encode())
    await broker.prepare(source, copy)
    copied = await broker.copy(source, copy, repository.open_write(copy))
    assert copied.copy_format == ("postgres-logical-2" if broker is parallel else "pg_dump-custom")
    repository.repository.commit(copy)
    await broker.discard(copy)
    await broker.provision(target, restore=repository.open_read(copy))
    before, after = await dumps_of((broker, source), (broker, target), options=("--no-acl",))
    assert len(before) > 1_000_000
    assert after.splitlines() == before.splitlines()
