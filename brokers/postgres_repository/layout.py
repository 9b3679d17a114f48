"""The tables of a repository, and how an older layout becomes the newest one.

``about`` has one row, the layout's version. ``objects`` has a row per object, ``pieces`` its bytes: piece ``n`` holds
those from ``n * piece_bytes`` on. A piece is kept as it is (``STORAGE EXTERNAL``): what is compressed and encrypted
gets no smaller, and a part of it is read without the rest.
"""

from __future__ import annotations

from brokers.postgres_repository.sessions import Connection
from brokers.sdk.errors import permanent_error

VERSION = 1
LOCK = 0x43414C51_0001
"""Advisory lock of whoever makes or changes the layout."""

# The statements that make version n of version n - 1, by n. ``{schema}`` is a name that needs no quoting.
_STEPS: dict[int, tuple[str, ...]] = {
    1: (
        "CREATE TABLE {schema}.objects ("
        " id bigint GENERATED ALWAYS AS IDENTITY UNIQUE,"
        ' name text COLLATE "C" PRIMARY KEY,'
        " size bigint NOT NULL,"
        " digest bytea NOT NULL,"
        " piece_bytes integer NOT NULL,"
        " modified timestamptz NOT NULL DEFAULT clock_timestamp())",
        "CREATE TABLE {schema}.pieces ("
        " object bigint NOT NULL REFERENCES {schema}.objects (id) ON DELETE CASCADE,"
        " number integer NOT NULL,"
        " content bytea STORAGE EXTERNAL NOT NULL,"
        " PRIMARY KEY (object, number))",
    ),
}


def prepare(connection: Connection, schema: str) -> None:
    """Make the tables, or bring them to the newest version. Raises :class:`CalqueError` for those of a newer one."""
    if _version(connection, schema) == VERSION:
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        version = _version(connection, schema)
        if version > VERSION:
            raise permanent_error(
                "unknown_format",
                f"the tables in schema {schema} have layout {version}, this program knows {VERSION}",
                field="database.schema_name",
                remedy="use the newer program",
            )
        if version == 0:
            # Looked for first: CREATE SCHEMA asks for a right that its owner need not have.
            if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone() is None:
                connection.execute(f"CREATE SCHEMA {schema}".encode())
            connection.execute(f"CREATE TABLE {schema}.about (version integer NOT NULL)".encode())
            connection.execute(f"INSERT INTO {schema}.about VALUES (0)".encode())  # noqa: S608 - a checked name
        for step in range(version + 1, VERSION + 1):
            for statement in _STEPS[step]:
                connection.execute(statement.format(schema=schema).encode())
        connection.execute(f"UPDATE {schema}.about SET version = %s".encode(), (VERSION,))  # noqa: S608 - as above


def _version(connection: Connection, schema: str) -> int:
    """0 where nothing was made yet."""
    # The catalog's tables are read, not asked by to_regclass(): that one answers from a cache, which may not know
    # yet what was made while the lock was waited for.
    found = connection.execute(
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = 'about'",
        (schema,),
    )
    if found.fetchone() is None:
        return 0
    row = connection.execute(f"SELECT version FROM {schema}.about".encode()).fetchone()  # noqa: S608 - as above
    return 0 if row is None else int(row[0])
