"""What this process knows of a repository: which pack holds which chunk, and the small objects that never change.

A cache in SQLite, so that memory stays bounded and a restart is quick. It is made from the repository alone, holds
nothing else, and may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from brokers.repository.format1.packs import Blob

_VERSION = 1
_REMEMBERED = 200_000
"""Of how many chunks it is kept in memory where they lie (some 300 bytes each): a copy asks after those of the copy
before again and again."""
_NAMES = 500
"""How many chunks are looked up at once."""
_TABLES = """
CREATE TABLE IF NOT EXISTS pack (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS chunk (
    name BLOB NOT NULL, pack INTEGER NOT NULL, offset INTEGER NOT NULL, stored INTEGER NOT NULL,
    size INTEGER NOT NULL, PRIMARY KEY (name, pack)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS chunk_pack ON chunk (pack);
CREATE TABLE IF NOT EXISTS object (name TEXT PRIMARY KEY, sealed BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS loaded (name TEXT NOT NULL, pack BLOB NOT NULL, PRIMARY KEY (name, pack)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS about (repository TEXT NOT NULL, version INTEGER NOT NULL);
"""


class Place(NamedTuple):
    """Where a chunk lies."""

    pack: bytes
    blob: Blob


class Catalog:
    """Threads may share it."""

    def __init__(self, path: Path | None, *, repository: str) -> None:
        """In memory without a `path`. A cache of another repository, or a damaged one, is made anew."""
        self._lock = threading.RLock()
        self._remembered: dict[bytes, list[Place]] = {}
        self._path = path
        try:
            self._database = self._open(repository)
        except sqlite3.DatabaseError:
            self._discard()
            self._database = self._open(repository)

    def _open(self, repository: str) -> sqlite3.Connection:
        database = sqlite3.connect(
            str(self._path) if self._path else ":memory:", check_same_thread=False, isolation_level=None
        )
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(_TABLES)
            known = database.execute("SELECT repository, version FROM about").fetchone()
            if known is None:
                database.execute("INSERT INTO about VALUES (?, ?)", (repository, _VERSION))
            elif known != (repository, _VERSION):
                raise sqlite3.DatabaseError("the cache of another repository")
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database

    def _discard(self) -> None:
        if self._path is not None:
            for ending in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + ending).unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    # --- packs and chunks

    def add_pack(self, pack: bytes, size: int, blobs: Iterable[Blob]) -> None:
        """Again is no change."""
        blobs = list(blobs)
        with self._change() as database:
            for blob in blobs:
                self._remembered.pop(blob.name, None)
            database.execute("INSERT OR IGNORE INTO pack (id, size) VALUES (?, ?)", (pack, size))
            (number,) = database.execute("SELECT number FROM pack WHERE id = ?", (pack,)).fetchone()
            database.executemany(
                "INSERT OR REPLACE INTO chunk VALUES (?, ?, ?, ?, ?)",
                ((blob.name, number, blob.offset, blob.stored, blob.size) for blob in blobs),
            )

    def forget_pack(self, pack: bytes) -> None:
        """The pack is gone."""
        with self._change() as database:
            self._remembered.clear()
            row = database.execute("SELECT number FROM pack WHERE id = ?", (pack,)).fetchone()
            if row is not None:
                database.execute("DELETE FROM chunk WHERE pack = ?", row)
                database.execute("DELETE FROM pack WHERE number = ?", row)

    def forget_chunk(self, name: bytes, pack: bytes) -> None:
        """The chunk is damaged there: nothing new may rely on it."""
        with self._change() as database:
            self._remembered.pop(name, None)
            database.execute(
                "DELETE FROM chunk WHERE name = ? AND pack = (SELECT number FROM pack WHERE id = ?)", (name, pack)
            )

    def places(self, name: bytes) -> list[Place]:
        """Where a chunk lies, the oldest pack first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT pack.id, chunk.offset, chunk.stored, chunk.size"
                " FROM chunk JOIN pack ON pack.number = chunk.pack WHERE chunk.name = ? ORDER BY chunk.pack",
                (name,),
            ).fetchall()
        return [Place(pack, Blob(name, offset, stored, size)) for pack, offset, stored, size in rows]

    def places_of(self, names: Iterable[bytes]) -> dict[bytes, list[Place]]:
        """Where each of these chunks lies, the oldest pack first; those that lie nowhere are left out."""
        found: dict[bytes, list[Place]] = {}
        unknown: list[bytes] = []
        for name in names:
            places = self._remembered.get(name)
            if places is None:
                unknown.append(name)
            else:
                found[name] = places
        for at in range(0, len(unknown), _NAMES):
            # Looked up and remembered under the lock: nothing is remembered that a change has just overtaken.
            with self._lock:
                looked_up = self._look_up(unknown[at : at + _NAMES])
                if len(self._remembered) + len(looked_up) > _REMEMBERED:
                    self._remembered.clear()
                self._remembered |= looked_up
            found |= looked_up
        return found

    def _look_up(self, names: list[bytes]) -> dict[bytes, list[Place]]:
        """Holds the lock."""
        found: dict[bytes, list[Place]] = {}
        marks = ",".join("?" * len(names))
        rows = self._database.execute(
            "SELECT chunk.name, pack.id, chunk.offset, chunk.stored, chunk.size FROM chunk"  # noqa: S608 - marks
            f" JOIN pack ON pack.number = chunk.pack WHERE chunk.name IN ({marks}) ORDER BY chunk.pack",
            names,
        ).fetchall()
        for name, pack, offset, stored, size in rows:
            found.setdefault(name, []).append(Place(pack, Blob(name, offset, stored, size)))
        return found

    def packs(self) -> dict[bytes, int]:
        """All packs with their sizes."""
        with self._lock:
            return dict(self._database.execute("SELECT id, size FROM pack").fetchall())

    def neighbours(self, pack: bytes, *, limit: int) -> list[bytes]:
        """The pack and those that became known after it."""
        with self._lock:
            rows = self._database.execute(
                "SELECT id FROM pack WHERE number >= (SELECT number FROM pack WHERE id = ?) ORDER BY number LIMIT ?",
                (pack, limit),
            ).fetchall()
        return [row[0] for row in rows]

    def blobs(self, pack: bytes) -> list[Blob]:
        """The chunks of one pack, in order."""
        with self._lock:
            rows = self._database.execute(
                "SELECT name, offset, stored, size FROM chunk WHERE pack = (SELECT number FROM pack WHERE id = ?)"
                " ORDER BY offset",
                (pack,),
            ).fetchall()
        return [Blob(*row) for row in rows]

    def used_bytes(self, names: Iterable[bytes]) -> dict[bytes, int]:
        """How many stored bytes of each pack belong to chunks of these names. One caller at a time."""
        with self._change() as database:
            database.execute("CREATE TEMP TABLE IF NOT EXISTS used (name BLOB PRIMARY KEY) WITHOUT ROWID")
            database.execute("DELETE FROM used")
        names = iter(names)
        while batch := [(name,) for name in itertools.islice(names, 10_000)]:
            with self._change() as database:
                database.executemany("INSERT OR IGNORE INTO used VALUES (?)", batch)
        with self._lock:
            rows = self._database.execute(
                "SELECT pack.id, SUM(chunk.stored) FROM chunk JOIN used ON used.name = chunk.name"
                " JOIN pack ON pack.number = chunk.pack GROUP BY pack.number"
            ).fetchall()
        return dict(rows)

    def chunk_count(self) -> int:
        """How many different chunks there are."""
        with self._lock:
            (count,) = self._database.execute("SELECT COUNT(DISTINCT name) FROM chunk").fetchone()
        return int(count)

    # --- index objects that were read

    def loaded(self) -> dict[str, set[bytes]]:
        """The index objects that the catalog knows, and the packs that each one names."""
        found: dict[str, set[bytes]] = {}
        with self._lock:
            for name, pack in self._database.execute("SELECT name, pack FROM loaded"):
                found.setdefault(name, set()).add(pack)
        return found

    def note_loaded(self, name: str, packs: Iterable[bytes]) -> None:
        with self._change() as database:
            database.executemany("INSERT OR IGNORE INTO loaded VALUES (?, ?)", ((name, pack) for pack in packs))

    def forget_loaded(self, names: Iterable[str]) -> None:
        with self._change() as database:
            database.executemany("DELETE FROM loaded WHERE name = ?", ((name,) for name in names))

    # --- small objects, as they lie

    def kept(self, name: str) -> bytes | None:
        with self._lock:
            row = self._database.execute("SELECT sealed FROM object WHERE name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else None

    def keep(self, name: str, sealed: bytes) -> None:
        with self._change() as database:
            database.execute("INSERT OR REPLACE INTO object VALUES (?, ?)", (name, sealed))

    def drop(self, names: Iterable[str]) -> None:
        with self._change() as database:
            database.executemany("DELETE FROM object WHERE name = ?", ((name,) for name in names))

    def kept_names(self, prefix: str) -> set[str]:
        with self._lock:
            rows = self._database.execute("SELECT name FROM object WHERE substr(name, 1, ?) = ?", (len(prefix), prefix))
            return {row[0] for row in rows}
