"""A database that somebody else made: filled, with a role that may only read, and a way to see that nothing changed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from schemas.brokers import Existing
from schemas.secrets import Secret
from tests.integration.postgres.dumps import dump, superuser
from tests.servers import RunningPostgres

READER = "reader"
PASSWORD = "read only/%'pass"


@dataclass(frozen=True)
class Production:
    """``url`` is that of the role that may only read; no password in it."""

    server: RunningPostgres
    database: str

    @property
    def url(self) -> str:
        address = self.server.server
        return f"postgresql://{self.reader}@{address.host}:{address.port}/{quote(self.database)}"

    @property
    def reader(self) -> str:
        return f"{READER}_{self.database}"

    @property
    def existing(self) -> Existing:
        return Existing(url=self.url, secret=Secret(value=PASSWORD))

    async def connect(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        """As the administrator of the server."""
        return await admin(self.server, database=self.database)

    async def run(self, *statements: str) -> None:
        """As the administrator of the server."""
        async with await self.connect() as connection:
            for statement in statements:
                await connection.execute(statement.encode())

    async def fingerprint(self) -> str:
        """A digest of all that is in the database, its roles and its transactions that wrote: equal when untouched."""
        address = self.server.server
        dumped = await asyncio.to_thread(
            dump, self.database, bin_dir=address.bin_dir, environment=superuser(self.server)
        )
        async with await self.connect() as connection:
            found = await connection.execute(
                "SELECT (SELECT array_agg(x ORDER BY x) FROM (SELECT relname || ':' || relfilenode AS x "
                "FROM pg_class WHERE relnamespace = 'public'::regnamespace) AS t)::text, "
                "(SELECT array_agg(rolname || rolcanlogin ORDER BY rolname) FROM pg_roles WHERE rolname NOT LIKE "
                "'calque%')::text, (SELECT datacl::text || shobj_description(oid, 'pg_database') FROM pg_database "
                "WHERE datname = current_database())"
            )
            facts = repr(await found.fetchall())
        return hashlib.sha256((dumped + facts).encode()).hexdigest()


async def admin(server: RunningPostgres, *, database: str = "postgres") -> psycopg.AsyncConnection[tuple[Any, ...]]:
    """As the administrator of the server."""
    address = server.server
    return await psycopg.AsyncConnection.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=server.password,
        dbname=database,
        autocommit=True,
    )


@asynccontextmanager
async def production(server: RunningPostgres, *, name: str, count: int = 200) -> AsyncIterator[Production]:
    """A database called ``name`` with ``count`` orders, and the role ``reader_<name>``; gone at the end."""
    made = Production(server, name)
    database, reader = sql.Identifier(name), sql.Identifier(made.reader)
    async with await admin(server) as connection:
        await connection.execute(sql.SQL("CREATE DATABASE {}").format(database))
        await connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(reader, sql.Literal(PASSWORD)))
        await connection.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(reader))
    try:
        await made.run(
            "CREATE TABLE orders (id bigserial PRIMARY KEY, said text NOT NULL)",
            f"INSERT INTO orders (said) SELECT 'order ' || n FROM generate_series(1, {count}) n",
            "CREATE SCHEMA billing",
            'CREATE TABLE billing."Odd Name" (n int)',
            'INSERT INTO billing."Odd Name" VALUES (7)',
            f"GRANT USAGE ON SCHEMA billing TO {made.reader}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public, billing TO {made.reader}",
            f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {made.reader}",
        )
        yield made
    finally:
        async with await admin(server) as connection:
            await connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))
            await connection.execute(sql.SQL("DROP ROLE {}").format(reader))
