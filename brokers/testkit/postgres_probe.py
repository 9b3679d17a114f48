"""Use of a PostgreSQL database by the ``uri`` of its binding."""

from __future__ import annotations

import psycopg

from schemas.brokers import Bound

CONNECT_SECONDS = 10


class PostgresProbe:
    """One table of keys and texts."""

    keeps = True

    async def write(self, bound: Bound, key: str, text: str) -> None:
        """Insert or update."""
        async with await _connect(bound) as connection:
            await connection.execute("CREATE TABLE IF NOT EXISTS conformance (key text PRIMARY KEY, value text)")
            await connection.execute(
                "INSERT INTO conformance VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, text),
            )

    async def read(self, bound: Bound) -> dict[str, str]:
        """All rows; none without the table."""
        async with await _connect(bound) as connection:
            found = await (await connection.execute("SELECT to_regclass('conformance')")).fetchone()
            if found is None or found[0] is None:
                return {}
            rows = await (await connection.execute("SELECT key, value FROM conformance")).fetchall()
            return {str(key): str(value) for key, value in rows}

    async def opens(self, bound: Bound) -> bool:
        """Whether the login is let in."""
        try:
            async with await _connect(bound):
                return True
        except psycopg.OperationalError:
            return False


async def _connect(bound: Bound) -> psycopg.AsyncConnection[tuple[object, ...]]:
    return await psycopg.AsyncConnection.connect(
        bound.secrets["uri"].value, autocommit=True, connect_timeout=CONNECT_SECONDS
    )


PROBE = PostgresProbe()
