"""Which tables of a database are read by COPY, how, and in which pieces.

``pg_dump`` keeps what only it knows: tables of extensions, foreign tables, tables without columns that COPY could
name. All others are read by us, in the binary format where every type of the table is built in and says the same in
every version of the server, else as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from brokers.postgres.names import quoted
from brokers.postgres.server import Session

SMALL = 6
"""Tables of less than this share of a piece lie together in a part of the copy."""
MOST_PIECES = 24
"""Of a very big database the pieces are so many at most, if it is one table; with groups of small ones twelve times so
many parts, all of which must be named in one event."""
PAGE_BYTES = 8192

# What can be read: its columns without generated ones, whether all of their types may travel as binary, its pages.
# Binary values of arrays, composites and ranges hold the oids of what they are made of, so those must be built in.
_TABLES = """
    WITH RECURSIVE bases AS (
        SELECT t.oid AS type, t.oid AS base, t.typbasetype, t.typtype FROM pg_type t
        UNION ALL
        SELECT b.type, t.oid, t.typbasetype, t.typtype FROM bases b JOIN pg_type t ON t.oid = b.typbasetype
        WHERE b.typtype = 'd'
    ), plain AS (
        SELECT type FROM bases JOIN pg_type t ON t.oid = base
        WHERE bases.typtype <> 'd' AND t.typsend <> 0 AND t.typreceive <> 0
          AND (t.typtype = 'e' OR (base < 16384 AND t.typtype IN ('b', 'r', 'm')
               AND t.typname NOT LIKE 'reg%%' AND t.typname NOT LIKE '\\_reg%%'
               AND t.typname NOT IN ('aclitem', '_aclitem', 'pg_node_tree', 'record', '_record', 'pg_ddl_command',
                                     'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list', 'pg_brin_bloom_summary',
                                     'pg_brin_minmax_multi_summary')))
    )
    SELECT n.nspname, c.relname,
           array_agg(a.attname ORDER BY a.attnum),
           bool_and(a.atttypid IN (SELECT type FROM plain)),
           pg_relation_size(c.oid) / %(page)s,
           pg_table_size(c.oid)
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    WHERE c.relkind = 'r' AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%%'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.deptype = 'e')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid
                      AND d.deptype = 'e')
    GROUP BY c.oid, n.nspname, c.relname
    ORDER BY pg_table_size(c.oid) DESC, c.oid
"""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table as it is read. ``bytes`` is what it takes on disk, ``pages`` its main fork."""

    schema: str
    name: str
    columns: tuple[str, ...]
    format: Literal["binary", "text"]
    pages: int = 0
    bytes: int = 0

    @property
    def quoted(self) -> str:
        """As it stands in SQL, and in a pattern of pg_dump."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def quoted_columns(self) -> str:
        """Its columns as they stand in SQL."""
        return ", ".join(quoted(each) for each in self.columns)


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A table, or the pages of it from ``first`` up to and without ``end``; ``None`` is its beginning or end."""

    table: Table
    first: int | None = None
    end: int | None = None

    @property
    def statement(self) -> str:
        """Reads it."""
        table = self.table
        bounds = [f"ctid >= '({self.first},0)'::tid"] if self.first is not None else []
        bounds += [f"ctid < '({self.end},0)'::tid"] if self.end is not None else []
        where = f" WHERE {' AND '.join(bounds)}" if bounds else ""
        query = f"SELECT {table.quoted_columns} FROM ONLY {table.quoted}{where}"  # noqa: S608 - names are quoted
        return f"COPY ({query}) TO STDOUT (FORMAT {table.format})"


class PartPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the copy and what lies in it, in this order: one piece of a big table, or several small tables."""

    name: str
    pieces: tuple[Piece, ...]


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """What the copy says of itself: which parts hold which tables, and whether each row has the five bytes in front
    with which the server sent it (``messages``: so from format 2 on)."""

    parts: tuple[PartPlan, ...]
    messages: bool = False


async def readable_tables(session: Session) -> list[Table]:
    """The tables that COPY reads, biggest first."""
    found = await session.rows(_TABLES, {"page": PAGE_BYTES})
    return [
        Table(
            schema=schema,
            name=name,
            columns=tuple(columns),
            format="binary" if binary else "text",
            pages=int(pages),
            bytes=int(size),
        )
        for schema, name, columns, binary, pages, size in found
    ]


def plan_parts(tables: Sequence[Table], *, piece_bytes: int) -> Directory:
    """Parts of a size that several connections share well: ranges of big tables, of about ``piece_bytes`` on disk, and
    groups of small ones."""
    piece_bytes = max(piece_bytes, sum(table.bytes for table in tables) // MOST_PIECES)
    parts = [_named(pieces, number) for number, pieces in enumerate(_pieces(tables, piece_bytes), start=1)]
    return Directory(parts=tuple(parts), messages=True)


def _named(pieces: Iterable[Piece], number: int) -> PartPlan:
    return PartPlan(name=f"rows-{number:05}", pieces=tuple(pieces))


def _pieces(tables: Sequence[Table], piece_bytes: int) -> Iterable[list[Piece]]:
    small = piece_bytes // SMALL
    group: list[Piece] = []
    size = 0
    for table in tables:
        if table.bytes > small:
            for piece in _ranges(table, piece_bytes):
                yield [piece]
            continue
        if group and size + table.bytes > small:
            yield group
            group, size = [], 0
        group.append(Piece(table=table))
        size += table.bytes
    if group:
        yield group


def _ranges(table: Table, piece_bytes: int) -> Iterable[Piece]:
    count = max(1, round(table.bytes / piece_bytes)) if table.pages else 1
    bounds = [table.pages * number // count for number in range(1, count)]
    bounds = sorted({bound for bound in bounds if bound > 0})
    for first, end in zip([None, *bounds], [*bounds, None], strict=True):
        yield Piece(table=table, first=first, end=end)
