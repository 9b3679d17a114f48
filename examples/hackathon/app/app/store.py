"""Ideas in PostgreSQL, over a small bounded set of connections that are made again when they break."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from .ideas import Idea, Stats

log = logging.getLogger(__name__)

Connection = psycopg.AsyncConnection[DictRow]

_COLUMNS = "id::text AS id, title, text, author, votes, doc_key, doc_digest, doc_size, writer, seq"
# Any number, the same in every process: two that start at once make the schema one after the other.
_SCHEMA_LOCK = 7_215_094_133
# `ordinal` is what listings follow. It comes from a sequence: a copy has to carry that on, too.
_SCHEMA = """
CREATE TABLE ideas (
    id uuid PRIMARY KEY,
    ordinal bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    title text NOT NULL,
    text text NOT NULL,
    author text NOT NULL,
    votes bigint NOT NULL DEFAULT 0,
    doc_key text NOT NULL UNIQUE,
    doc_digest text NOT NULL CHECK (doc_digest ~ '^[0-9a-f]{64}$'),
    doc_size bigint NOT NULL CHECK (doc_size >= 0),
    writer text,
    seq bigint,
    CHECK ((writer IS NULL) = (seq IS NULL)),
    UNIQUE (writer, seq)
);
CREATE INDEX ideas_by_votes ON ideas (votes DESC, title, id);
"""
_INSERT = """
INSERT INTO ideas (id, title, text, author, votes, doc_key, doc_digest, doc_size, writer, seq)
VALUES (%(id)s, %(title)s, %(text)s, %(author)s, %(votes)s, %(doc_key)s, %(doc_digest)s, %(doc_size)s,
        %(writer)s, %(seq)s)
ON CONFLICT DO NOTHING
"""


class UnavailableError(Exception):
    """PostgreSQL cannot be reached or gave up in the middle; trying again later may help."""


class IdeaStore:
    """The table of ideas.

    Every method raises :class:`UnavailableError` when the database cannot be reached. A transaction whose
    commit was not confirmed may have happened: that is for the caller to make harmless.
    """

    def __init__(self, uri: str, *, connections: int = 6) -> None:
        self._uri = uri
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[tuple[Connection, float]] = []
        self._ready = False

    async def prepare(self) -> None:
        """Make the schema unless it is there. Only then is anything else useful."""
        async with self._transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
            row = await (await connection.execute("SELECT to_regclass('ideas') IS NOT NULL AS made")).fetchone()
            if row is None or not row["made"]:
                await connection.execute(_SCHEMA)
        self._ready = True

    async def check(self) -> None:
        """Answer a trivial question about the table, or raise."""
        if not self._ready:
            raise UnavailableError("the schema is not there yet")
        async with self._transaction() as connection:
            await connection.execute("SELECT 1 FROM ideas LIMIT 1")

    async def add(self, ideas: Sequence[Idea]) -> list[Idea]:
        """Store all of ``ideas`` in one transaction, durable on return.

        An idea whose writer and seq are stored already is not stored again. The answer holds, at the place
        of each, what is stored now.
        """
        async with self._transaction() as connection:
            cursor = connection.cursor()
            await cursor.executemany(_INSERT, [vars(idea) for idea in ideas])
            if cursor.rowcount == len(ideas):
                return list(ideas)
            stored = []
            for idea in ideas:
                found = await _one(connection, "id = %s OR (writer = %s AND seq = %s)", idea.id, idea.writer, idea.seq)
                stored.append(idea if found is None else found)
            return stored

    async def get(self, idea_id: str) -> Idea | None:
        async with self._transaction() as connection:
            return await _one(connection, "id = %s", idea_id)

    async def page(self, *, offset: int, limit: int, writer: str | None = None) -> tuple[list[Idea], int]:
        """Ideas in the order they were stored (a writer's: by its seq), and how many there are."""
        async with self._transaction() as connection:
            where, order = ("writer = %s", "seq") if writer is not None else ("true", "ordinal")
            arguments = [] if writer is None else [writer]
            return await _page(connection, where, order, arguments, offset=offset, limit=limit)

    async def most_voted(self, *, offset: int, limit: int) -> list[Idea]:
        """Ideas by falling votes."""
        async with self._transaction() as connection:
            ideas, _ = await _page(connection, "true", "votes DESC, title, id", [], offset=offset, limit=limit)
            return ideas

    async def vote(self, idea_id: str, *, count: int) -> int | None:
        """Add ``count`` votes; the new total, or ``None`` when there is no such idea."""
        async with self._transaction() as connection:
            cursor = await connection.execute(
                "UPDATE ideas SET votes = votes + %s WHERE id = %s RETURNING votes", (count, idea_id)
            )
            row = await cursor.fetchone()
            return None if row is None else int(row["votes"])

    async def remove(self, idea_id: str) -> str | None:
        """Remove the row; the key of its document, or ``None`` when there is no such idea."""
        async with self._transaction() as connection:
            cursor = await connection.execute("DELETE FROM ideas WHERE id = %s RETURNING doc_key", (idea_id,))
            row = await cursor.fetchone()
            return None if row is None else str(row["doc_key"])

    async def stats(self) -> Stats:
        async with self._transaction() as connection:
            cursor = await connection.execute(
                "SELECT count(*) AS count, coalesce(sum(votes), 0)::bigint AS votes,"
                " count(doc_key) AS documents, coalesce(sum(doc_size), 0)::bigint AS bytes FROM ideas"
            )
            row = await cursor.fetchone()
            return Stats(**row) if row is not None else Stats(count=0, votes=0, documents=0, bytes=0)

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop()[0].close()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction that is committed at the end."""
        async with self._slots:
            try:
                connection = await self._connection()
                try:
                    async with connection.transaction():
                        yield connection
                except BaseException:
                    # Whatever happened (also a cancelled request), this connection is not trusted again.
                    await connection.close()
                    raise
            except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.UndefinedTable) as error:
                # The others of the set most likely broke at the same moment.
                await self.close()
                raise UnavailableError(str(error)) from error
            self._idle.append((connection, asyncio.get_running_loop().time()))

    async def _connection(self) -> Connection:
        while self._idle:
            connection, since = self._idle.pop()
            if asyncio.get_running_loop().time() - since < 1.0 or await _answers(connection):
                return connection
        return await psycopg.AsyncConnection.connect(
            self._uri, row_factory=dict_row, autocommit=True, connect_timeout=4, application_name="hackathon"
        )


async def _answers(connection: Connection) -> bool:
    """Whether a connection that lay idle still works; the server may have been started anew meanwhile."""
    try:
        await connection.execute("SELECT 1")
    except psycopg.Error:
        await connection.close()
        return False
    return True


async def _one(connection: Connection, where: str, *arguments: Any) -> Idea | None:
    cursor = await connection.execute(f"SELECT {_COLUMNS} FROM ideas WHERE {where} LIMIT 1", arguments)  # noqa: S608
    row = await cursor.fetchone()
    return None if row is None else Idea(**row)


async def _page(
    connection: Connection, where: str, order: str, arguments: Sequence[Any], *, offset: int, limit: int
) -> tuple[list[Idea], int]:
    counted = await connection.execute(f"SELECT count(*) AS total FROM ideas WHERE {where}", arguments)  # noqa: S608
    row = await counted.fetchone()
    cursor = await connection.execute(
        f"SELECT {_COLUMNS} FROM ideas WHERE {where} ORDER BY {order} OFFSET %s LIMIT %s",  # noqa: S608
        [*arguments, offset, limit],
    )
    return [Idea(**each) async for each in cursor], 0 if row is None else int(row["total"])
