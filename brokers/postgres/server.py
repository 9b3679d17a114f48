"""The broker's way to PostgreSQL servers: connections, and what their errors mean.

The only module that imports psycopg. Statements are built from names of ours, which need no quoting; all else is
passed as parameters or quoted by the server's own ``format()``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import psycopg
from psycopg import generators, pq

from brokers.postgres.copywire import CopyWire, Payloads, WireFailed, message_of
from brokers.postgres.logins import Login
from brokers.sdk.digests import Buffer
from schemas.problems import Problem, permanent, temporary

CONNECT_SECONDS = 5
COPY_BLOCK_BYTES = 512 << 10
Row = tuple[Any, ...]
Parameters = Sequence[object] | Mapping[str, object]
ServerError = psycopg.Error
"""Whatever a server refuses or fails at."""
Lost = psycopg.OperationalError
"""The session is gone, or could not be made."""
NotPermitted = psycopg.errors.InsufficientPrivilege
"""The role that asks may not do so."""
Vanished = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
"""What a statement names is not there (any more)."""
CheckFailed = psycopg.errors.CheckViolation
"""A value breaks a check constraint."""

# Classes of SQLSTATE that pass by themselves: connection, resources, operator intervention, rollbacks by conflict.
_TRIES = 5
_TEMPORARY_CLASSES = frozenset({"08", "53", "57", "40"})
_TEMPORARY_STATES = frozenset({"55006", "55P03"})  # object in use, lock not available
_CREDENTIAL_STATES = frozenset({"28000", "28P01", "42501"})


class Session:
    """One connection. Statements commit by themselves unless a transaction was begun."""

    def __init__(self, connection: psycopg.AsyncConnection[Row], *, bare: bool = True) -> None:
        """``bare``: rows of a COPY may go past libpq, where nothing lies between the socket and the server."""
        self._connection = connection
        self._came = asyncio.Event()
        self._watched: int | None = None
        self._encrypted: bool | None = None if bare else True
        self._wire: CopyWire | None = None

    async def run(self, statement: str, parameters: Parameters | None = None) -> None:
        """Run one statement for its effect."""
        await self._connection.execute(statement.encode(), parameters)

    async def rows(self, statement: str, parameters: Parameters | None = None) -> list[Row]:
        """All rows of one statement."""
        cursor = await self._connection.execute(statement.encode(), parameters)
        return await cursor.fetchall()

    async def rows_of_what_goes(self, statement: str, parameters: Parameters | None = None) -> list[Row]:
        """All rows of one statement about databases that others may drop in the same moment: then it is asked again."""
        for _ in range(_TRIES):
            with suppress(psycopg.errors.UndefinedObject):
                return await self.rows(statement, parameters)
        return await self.rows(statement, parameters)

    async def value(self, statement: str, parameters: Parameters | None = None) -> Any:
        """The first column of the first row, ``None`` when there is no row."""
        found = await self.rows(statement, parameters)
        return found[0][0] if found else None

    async def copy_out(self, statement: str) -> AsyncGenerator[bytes, None]:
        """What a ``COPY ... TO STDOUT`` sends: a run of CopyData messages (see :mod:`brokers.postgres.copywire`), in
        blocks of many rows that are never looked into. A session in which the reading was broken off can only be
        closed."""
        wire = await self._bare()
        async with self._connection.lock:
            if wire is None:
                async for block in self._copy_out(statement):
                    yield block
                return
            with _as_server_error():
                async for block in wire.rows(statement):
                    yield block

    async def _copy_out(self, statement: str) -> AsyncIterator[bytes]:
        connection, pgconn = self._connection, self._connection.pgconn
        pgconn.send_query(statement.encode())
        _expect(await connection.wait(generators.execute(pgconn)), pq.ExecStatus.COPY_OUT)
        block = bytearray()
        while True:
            count, row = pgconn.get_copy_data(1)
            if count > 0:
                block += message_of(row)
                block += row
                if len(block) >= COPY_BLOCK_BYTES:
                    yield bytes(block)
                    block.clear()
            elif count == 0:
                await self._readable()
                pgconn.consume_input()
            else:
                break
        if block:
            yield bytes(block)
        _expect(await connection.wait(generators.fetch_many(pgconn)), pq.ExecStatus.COMMAND_OK)

    async def copy_in(self, statement: str, messages: AsyncIterator[Buffer]) -> None:
        """Send a run of CopyData messages as the data of a ``COPY ... FROM STDIN``."""
        if wire := await self._bare():
            async with self._connection.lock:
                with _as_server_error():
                    await wire.send(statement, messages)
            return
        payloads = Payloads()
        async with self._connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            with _as_server_error():
                async for block in messages:
                    await copy.write(payloads.feed(block))

    async def _bare(self) -> CopyWire | None:
        """The session's socket, where nothing lies between it and the server."""
        if self._wire is None and self._encrypted is None:
            pgconn = self._connection.pgconn
            self._encrypted = bool(pgconn.ssl_in_use)
            if not self._encrypted:
                found = "SELECT encrypted FROM pg_catalog.pg_stat_gssapi WHERE pid = pg_catalog.pg_backend_pid()"
                self._encrypted = bool(await self.value(found))
            if not self._encrypted:
                self._wire = CopyWire(pgconn.socket)
        return self._wire

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """All of the statements inside, or none."""
        async with self._connection.transaction():
            yield

    async def comment(self, what: str, name: str, text: str) -> None:
        """Put ``text`` on the ``what`` (``DATABASE``, ``ROLE``) called ``name``."""
        await self.run(
            await self.value(f"SELECT format('COMMENT ON {what} %%I IS %%L', %s::text, %s::text)", (name, text))
        )

    def verifier(self, *, user: str, password: str) -> str:
        """The SCRAM verifier of ``password``, so that the password itself never reaches the server or its log."""
        made = self._connection.pgconn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256")
        return made.decode()

    @property
    def server_version(self) -> int:
        """The server's version as a number, e.g. 180004."""
        return self._connection.info.server_version

    @property
    def version(self) -> str:
        """The server's version, e.g. ``18.4``."""
        return self._connection.info.parameter_status("server_version") or ""

    async def close(self) -> None:
        """End the session; never raises for one that is gone. Who reads from it gets :data:`Lost`."""
        self._unwatch()
        if self._wire is not None:
            self._wire.close()
        await self._connection.close()

    async def _readable(self) -> None:
        """Wait until something came, or the session was closed."""
        self._came.clear()
        self._watched = self._connection.pgconn.socket
        asyncio.get_running_loop().add_reader(self._watched, self._came.set)
        try:
            await self._came.wait()
        finally:
            self._unwatch()

    def _unwatch(self) -> None:
        """Before its number can be another connection's."""
        watched, self._watched = self._watched, None
        if watched is not None:
            asyncio.get_running_loop().remove_reader(watched)
            self._came.set()


@contextmanager
def _as_server_error() -> Iterator[None]:
    """What fails below psycopg is told as psycopg tells it."""
    try:
        yield
    except WireFailed as failed:
        if not failed.state:
            raise Lost(str(failed)) from None
        try:
            error = psycopg.errors.lookup(failed.state)(str(failed))
        except KeyError:
            error = psycopg.DatabaseError(str(failed))
            error.sqlstate = failed.state
        raise error from None


def _expect(results: Sequence[pq.abc.PGresult], status: pq.ExecStatus) -> None:
    for result in results:
        if result.status != status:
            raise psycopg.errors.error_from_result(result)


class Server:
    """A PostgreSQL server and the way into it. ``login`` is asked at each connect: a password may change. ``bare``: see
    :class:`Session`."""

    def __init__(self, login: Callable[[], Login], *, bare: bool = True) -> None:
        self._login = login
        self._bare = bare

    async def connect(self, *, database: str | None = None, application: str = "calque broker") -> Session:
        """A session, to be closed by the caller. Raises :data:`Lost`."""
        login = self._login()
        options: dict[str, Any] = dict(login.options)
        connection = await psycopg.AsyncConnection.connect(
            host=login.host,
            port=login.port,
            user=login.user,
            password=login.password.value if login.password is not None else None,
            dbname=database or login.database,
            **options,
            application_name=application,
            connect_timeout=CONNECT_SECONDS,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            autocommit=True,
        )
        return Session(connection, bare=self._bare)

    @asynccontextmanager
    async def session(self, *, database: str | None = None) -> AsyncIterator[Session]:
        """A session for the time of a ``with`` block."""
        session = await self.connect(database=database)
        try:
            yield session
        finally:
            await session.close()

    def program_environment(self, *, database: str, application: str, options: str = "") -> dict[str, str]:
        """Where and as whom the programs of PostgreSQL connect. In the environment, never in the arguments."""
        return {
            **self._login().environment,
            "PGDATABASE": database,
            "PGAPPNAME": application,
            "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
            "PGOPTIONS": options,
            "LC_ALL": "C",
        }


def explain(error: BaseException) -> Problem | None:
    """The problem that an error of PostgreSQL stands for."""
    if not isinstance(error, psycopg.Error):
        return None
    state = error.sqlstate or ""
    message = error.diag.message_primary or str(error).strip().partition("\n")[0] or type(error).__name__
    if state in _CREDENTIAL_STATES or "authentication failed" in message:
        return permanent(
            "unauthorised",
            f"PostgreSQL refuses the broker: {message}",
            remedy="check admin.user and admin.password_file",
        )
    if state[:2] in _TEMPORARY_CLASSES or state in _TEMPORARY_STATES:
        return temporary("unavailable", f"PostgreSQL: {message}", retry_after_seconds=2.0)
    if isinstance(error, psycopg.OperationalError) and not state:
        return temporary("unavailable", f"PostgreSQL does not answer: {message}", retry_after_seconds=2.0)
    return permanent("postgres", f"PostgreSQL: {message}" + (f" (SQLSTATE {state})" if state else ""))
