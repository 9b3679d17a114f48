"""A repository's objects in tables, each cut into pieces of :data:`PIECE_BYTES`.

A put is one transaction, so an object is there whole or not at all; two puts of one name wait for each other.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from typing import NamedTuple

from brokers.postgres_repository.layout import prepare
from brokers.postgres_repository.sessions import FULL_SECONDS, Connection, Sessions
from brokers.postgres_repository.settings import DatabaseSection
from brokers.repository.objects import ObjectExists, ObjectMissing, StoredObject
from brokers.sdk.errors import temporary_error

PIECE_BYTES = 1 << 20
PAGE = 1000
_AFTER_EVERY_NAME = "\x7f"


class _Found(NamedTuple):
    id: int
    size: int
    piece_bytes: int


class PostgresStore:
    """Objects in one schema. Implements :class:`brokers.repository.objects.ObjectStore`."""

    def __init__(self, section: DatabaseSection) -> None:
        self._section = section
        self._sessions = Sessions(section)
        self._preparing = threading.Lock()
        self._prepared = False
        schema = section.schema_name
        self._insert = (
            f"INSERT INTO {schema}.objects (name, size, digest, piece_bytes) VALUES (%s, %s, %s, %s)"  # noqa: S608
            " ON CONFLICT DO NOTHING RETURNING id"
        ).encode()
        self._copy = f"COPY {schema}.pieces (object, number, content) FROM STDIN (FORMAT BINARY)".encode()
        self._known = f"SELECT size, digest FROM {schema}.objects WHERE name = %s".encode()  # noqa: S608
        self._find = f"SELECT id, size, piece_bytes FROM {schema}.objects WHERE name = %s".encode()  # noqa: S608
        self._piece = (
            f"SELECT substring(content FROM %s FOR %s) FROM {schema}.pieces"  # noqa: S608
            " WHERE object = %s AND number = %s"
        ).encode()
        self._look = (
            f"SELECT name, size, extract(epoch FROM modified)::float8 FROM {schema}.objects WHERE name = %s"  # noqa: S608
        ).encode()
        self._list = (
            f"SELECT name, size, extract(epoch FROM modified)::float8 FROM {schema}.objects"  # noqa: S608
            f" WHERE name > %s AND name >= %s AND name < %s ORDER BY name LIMIT {PAGE}"
        ).encode()
        self._delete = f"DELETE FROM {schema}.objects WHERE name = %s".encode()  # noqa: S608
        self._used = f"SELECT coalesce(sum(size), 0)::bigint FROM {schema}.objects".encode()  # noqa: S608

    def check(self) -> None:
        """Raises :class:`CalqueError` unless the database answers and the tables are there, or can be made."""
        with self._sessions.session() as session:
            self._prepare(session)

    def put(self, name: str, content: bytes | memoryview) -> None:
        digest = hashlib.sha256(content).digest()
        view = memoryview(content)
        with self._sessions.session() as session:
            self._prepare(session)
            with session.transaction():
                row = session.execute(self._insert, (name, len(view), digest, PIECE_BYTES)).fetchone()
                if row is not None:
                    self._check_room(session)
                    self._write(session, int(row[0]), view)
                    return
                known = session.execute(self._known, (name,)).fetchone()
        if known is None:
            # Deleted between the two statements: whoever comes again finds its place free.
            raise temporary_error("unavailable", f"{name} was deleted while it was put")
        if (known[0], bytes(known[1])) != (len(view), digest):
            raise ObjectExists(name)

    def read(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        with self._sessions.session() as session:
            self._prepare(session)
            row = session.execute(self._find, (name,)).fetchone()
            if row is None:
                raise ObjectMissing(name)
            found = _Found(*row)
            end = found.size if length is None else min(found.size, offset + length)
            blocks = list(self._blocks(session, found, offset, end)) if offset < end else []
        content = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        if len(content) != max(0, end - offset):
            raise ObjectMissing(name)  # deleted meanwhile
        return content

    def look(self, name: str) -> StoredObject | None:
        with self._sessions.session() as session:
            self._prepare(session)
            row = session.execute(self._look, (name,)).fetchone()
        return None if row is None else StoredObject(*row)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        after = ""
        while True:
            # A page at a time: who reads slowly holds no connection and no transaction open.
            with self._sessions.session() as session:
                self._prepare(session)
                rows = session.execute(self._list, (after, prefix, prefix + _AFTER_EVERY_NAME)).fetchall()
            for row in rows:
                yield StoredObject(*row)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def delete(self, name: str) -> None:
        with self._sessions.session() as session:
            self._prepare(session)
            session.execute(self._delete, (name,))

    def free_bytes(self) -> int | None:
        """What the limit of the settings leaves; without one nobody knows."""
        if self._section.limit_bytes is None:
            return None
        with self._sessions.session() as session:
            self._prepare(session)
            return max(0, self._section.limit_bytes - self._used_bytes(session))

    def now(self) -> float:
        with self._sessions.session() as session:
            row = session.execute(b"SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        assert row is not None
        return float(row[0])

    def close(self) -> None:
        self._sessions.close()

    def _prepare(self, session: Connection) -> None:
        with self._preparing:
            if not self._prepared:
                prepare(session, self._section.schema_name)
                self._prepared = True

    def _write(self, session: Connection, id: int, view: memoryview) -> None:
        with session.cursor() as cursor, cursor.copy(self._copy) as copy:
            copy.set_types(["int8", "int4", "bytea"])
            for number, start in enumerate(range(0, len(view), PIECE_BYTES)):
                copy.write_row((id, number, view[start : start + PIECE_BYTES]))

    def _blocks(self, session: Connection, found: _Found, offset: int, end: int) -> Iterator[bytes]:
        """The bytes from ``offset`` to ``end``, piece by piece: one answer never holds more than one."""
        size = found.piece_bytes
        with session.cursor(binary=True) as cursor:
            for number in range(offset // size, -(-end // size)):
                start = max(offset - number * size, 0)
                stop = min(end - number * size, size)
                row = cursor.execute(self._piece, (start + 1, stop - start, found.id, number)).fetchone()
                if row is None:
                    return
                yield bytes(row[0])

    def _check_room(self, session: Connection) -> None:
        """Called inside the put's transaction, which counts the new object already."""
        limit = self._section.limit_bytes
        if limit is not None and (used := self._used_bytes(session)) > limit:
            raise temporary_error(
                "full",
                f"the repository may hold {limit} bytes and would hold {used}: delete copies and collect, or raise"
                " database.limit_bytes",
                field="database.limit_bytes",
                retry_after_seconds=FULL_SECONDS,
            )

    def _used_bytes(self, session: Connection) -> int:
        row = session.execute(self._used).fetchone()
        assert row is not None
        return int(row[0])
