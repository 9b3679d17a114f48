"""``pg_dump``'s custom format (archive versions 1.14 to 1.16, uncompressed), with rows changed on their way.

The table of contents stands first and is passed on as it is; the offsets in it are not set in an archive that is
written to a pipe. Then come blocks: of one table's rows, as chunks of COPY text up to a line ``\\.``, or of large
objects. What this does not understand it refuses: nothing passes because it was not recognised.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final

from brokers.postgres.contents import ArchiveReader, Entry, NotUnderstood, Short, read_contents
from brokers.postgres.rowfilter import Column, FilterTables, RowFilter
from brokers.sdk.errors import permanent_error
from schemas.problems import CalqueError

_ROWS, _LARGE_OBJECTS = 1, 3
_END: Final = b"\\.\n"
_NAME = re.compile(r'"((?:[^"]|"")*)"|([^\s".,()]+)')
_SECRETIVE: Final = frozenset({"STATISTICS DATA"})
"""Entries that hold values of columns besides the rows."""


class FilteredArchive:
    """An archive whose rows pass through filters. Fed in any pieces; gives back what is ready."""

    def __init__(self, tables: FilterTables) -> None:
        self._tables = tables
        self._waiting = bytearray()
        self._entries: dict[int, Entry] | None = None
        self._int_size = 4
        self._rows: _Rows | None = None
        self._objects = 0
        """1 between large objects, 2 inside one."""
        self._in_rows = False

    def feed(self, block: bytes) -> bytes:
        """What ``block`` completes. Raises :class:`CalqueError` for what is not understood, or can't be changed."""
        self._waiting += block
        ready: list[bytes] = []
        reader = ArchiveReader(self._waiting)
        reader.int_size = self._int_size
        try:
            if self._entries is None:
                self._entries = _head(reader)
                self._int_size = reader.int_size
                ready.append(bytes(self._waiting[: reader.at]))
            done = reader.at
            while True:
                self._step(reader, ready)
                done = reader.at
        except Short:
            if self._entries is not None:
                del self._waiting[:done]
        return b"".join(ready)

    def finish(self) -> None:
        """Nothing more comes. Raises :class:`CalqueError` when the archive was cut short."""
        if self._waiting or self._entries is None or self._in_rows or self._objects:
            raise _odd("it was cut short")

    def _step(self, reader: ArchiveReader, ready: list[bytes]) -> None:
        """One value of the format: all of it or, by :class:`Short`, nothing."""
        if self._in_rows:
            size = reader.int()
            chunk = reader.take(size) if size > 0 else b""
            made = chunk if self._rows is None else self._rows.feed(chunk)
            if made:
                ready += (self._int(len(made)), made)
            if size <= 0:
                if self._rows is not None:
                    self._rows.finish()
                ready.append(self._int(0))
                self._in_rows, self._rows = False, None
        elif self._objects:
            number = reader.int()  # the object's id between objects, a chunk's size inside one
            chunk = reader.take(number) if self._objects == 2 else b""
            ready += (self._int(number), chunk)
            if self._objects == 2 and number:
                return
            if self._objects == 2 or number:
                self._objects = 3 - self._objects
            else:
                self._objects = 0
        else:
            kind, number = reader.byte(), reader.int()
            if kind == _ROWS:
                self._rows, self._in_rows = self._rows_of(number), True
            elif kind == _LARGE_OBJECTS:
                self._objects = 1
            else:
                raise _odd(f"it has a block of kind {kind}")
            ready += (bytes((kind,)), self._int(number))

    def _rows_of(self, number: int) -> _Rows | None:
        assert self._entries is not None
        entry = self._entries.get(number)
        if entry is None:
            raise _odd("it has data of what is no table")
        columns = [Column(name, "") for name in _columns(entry.copy)]
        found = self._tables(entry.schema, entry.name, columns)
        return None if found is None else _Rows(found)

    def _int(self, number: int) -> bytes:
        return bytes((number < 0,)) + abs(number).to_bytes(self._int_size, "little")


class _Rows:
    """The rows of one table up to the line that ends them; what follows it is passed on."""

    def __init__(self, through: RowFilter) -> None:
        self._through = through
        self._rest = b""
        self._ended = False

    def feed(self, chunk: bytes) -> bytes:
        if self._ended:
            return chunk
        content = self._rest + chunk
        end = 0 if content.startswith(_END) else content.find(b"\n" + _END) + 1
        if end or content.startswith(_END):
            self._ended, self._rest = True, b""
            return self._through.feed(content[:end]) + self._through.finish() + content[end:]
        whole = content.rfind(b"\n") + 1
        self._rest = content[whole:]
        # the last newline may be the one before the end: the next piece tells
        return self._through.feed(content[:whole]) if whole else b""

    def finish(self) -> None:
        if not self._ended:
            raise _odd("the rows of a table have no end")


async def filtered(blocks: AsyncIterator[bytes], tables: FilterTables) -> AsyncIterator[bytes]:
    """The archive in ``blocks`` with its rows passed through ``tables``. Raises :class:`CalqueError`."""
    archive = FilteredArchive(tables)
    async for block in blocks:
        if made := await asyncio.to_thread(archive.feed, block):
            yield made
    archive.finish()


def _head(reader: ArchiveReader) -> dict[int, Entry]:
    """The tables of the archive by their number. ``reader`` is left behind the table of contents."""
    try:
        entries = read_contents(reader)
    except NotUnderstood as why:
        raise _odd(str(why)) from None
    for entry in entries:
        if entry.kind in _SECRETIVE:
            raise _odd(f"it has an entry {entry.kind}")
    return {entry.number: entry for entry in entries if entry.kind == "TABLE DATA"}


def _columns(statement: str) -> list[str]:
    """The columns in ``COPY schema.table (a, "b c") FROM stdin;``."""
    if not statement.startswith("COPY "):
        raise _odd("its rows are no COPY text")
    at, depth = len("COPY "), 0
    columns: list[str] = []
    while at < len(statement):
        found = _NAME.match(statement, at)
        if found:
            if depth:
                columns.append(found[2] if found[1] is None else found[1].replace('""', '"'))
            elif found[2] == "FROM":
                break
            at = found.end()
            continue
        depth += {"(": 1, ")": -1}.get(statement[at], 0)
        at += 1
    return columns


def _odd(why: str) -> CalqueError:
    return permanent_error(
        "cannot_mask",
        f"the dump is not what was expected: {why}",
        field="bin_dir",
        remedy="give the broker programs of PostgreSQL 13 to 18",
    )
