"""The connections that read tables of one moment: opened with it, because a table that somebody waits to change can't
be locked any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from brokers.postgres.parallel.tables import Piece, Table
from brokers.postgres.server import Server, Session

# What a value looks like as text must not depend on the settings of the server or of the database.
SETTINGS = (
    ("client_encoding", "UTF8"),
    ("client_min_messages", "error"),
    ("search_path", ""),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("row_security", "off"),
)


async def settle(session: Session) -> None:
    """Give the session the settings in which rows are written and read."""
    for name, value in SETTINGS:
        await session.rows("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))


class Readers:
    """Some sessions that see one snapshot and hold the locks of all tables."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = sessions
        self._free: asyncio.Queue[Session] = asyncio.Queue()
        for session in sessions:
            self._free.put_nowait(session)

    @classmethod
    async def open(
        cls,
        server: Server,
        *,
        database: str,
        application: str,
        snapshot: str,
        tables: Sequence[Table],
        count: int,
        lock_wait_milliseconds: int,
    ) -> Readers:
        """Raises what the server refuses; nothing is left open then."""

        async def one() -> Session:
            session = await server.connect(database=database, application=application)
            try:
                await settle(session)
                await session.run(f"SET lock_timeout = {lock_wait_milliseconds}")
                await session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                await session.run(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
                if tables:
                    names = ", ONLY ".join(table.quoted for table in tables)
                    await session.run(f"LOCK TABLE ONLY {names} IN ACCESS SHARE MODE")
            except BaseException:
                await session.close()
                raise
            return session

        opened = await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
        sessions = [each for each in opened if isinstance(each, Session)]
        for each in opened:
            if isinstance(each, BaseException):
                await asyncio.gather(*(session.close() for session in sessions))
                raise each
        return cls(sessions)

    @property
    def count(self) -> int:
        """How many tables can be read at once."""
        return len(self._sessions)

    async def rows(self, piece: Piece) -> AsyncIterator[bytes]:
        """The rows of a piece, as blocks of what COPY sends. A session whose reading was broken off is closed: these
        readers can't be used for another try then."""
        session = await self._free.get()
        try:
            async for block in session.copy_out(piece.statement):
                yield block
        except BaseException:
            await session.close()
            raise
        finally:
            self._free.put_nowait(session)

    async def close(self) -> None:
        """End all sessions."""
        await asyncio.gather(*(session.close() for session in self._sessions), return_exceptions=True)
