"""Part of the rows of a database, foreign keys whole: which rows are kept is found out before the first one leaves.

Everything is read in the session that it is asked with, in the transaction it is in: of a copy, its moment. Nothing is
written there. The server joins rows along their foreign keys, by its own operators; here a row is 8 bytes of a keyed
digest of its primary key, and a foreign key is 4 bytes for each row that has it.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

from brokers.masking.closure import Edge, close, no_targets
from brokers.masking.copytext import decoded
from brokers.masking.keyed import Keyed
from brokers.masking.rowset import RowSet, RowSetBuilder, SameDigest
from brokers.masking.schema import Name
from brokers.masking.subset import Reference, Subset, Whole, plan_subset
from brokers.postgres.copywire import Payloads
from brokers.postgres.keptrows import KeptFilter, KeptRows, digester
from brokers.postgres.rowfilter import RowFilter
from brokers.postgres.server import Session
from brokers.postgres.subsetschema import Catalog, quoted, read_catalog
from schemas.brokers import TableShare
from schemas.masking import Masking
from schemas.masking_rows import Share
from schemas.problems import CalqueError, Problem, permanent

MOST_PLACES = 16_000_000
"""So many rows can be followed, each counted once more for each foreign key that it has: at most 20 bytes each."""
_TRIED_FIRST = (500, 50_000)
"""So many rows of a table are looked at for some that are kept, before all of them are."""
# As pg_dump sets them: the fields of a key are to be written as it writes them.
_FORMS = (
    "SET DateStyle = 'ISO'",
    "SET IntervalStyle = 'postgres'",
    "SET extra_float_digits = 3",
    "SET client_encoding = 'UTF8'",
    "SET row_security = off",
    "SELECT pg_catalog.set_config('search_path', '', false)",
)


class KeptTables:
    """Which rows of a database are kept. ``shares`` tells how many of each table that may lose rows."""

    def __init__(self, tables: dict[Name, KeptRows], shares: tuple[TableShare, ...]) -> None:
        self._tables = tables
        self.shares = shares

    @property
    def left_out(self) -> int:
        """How many rows are not kept."""
        return sum(share.rows - share.kept for share in self.shares)

    def of(self, name: Name) -> KeptRows | None:
        """What is kept of a table that holds rows; ``None`` for all."""
        return self._tables.get(name)

    def filter(self, name: Name, columns: Sequence[str], then: RowFilter | None) -> RowFilter | None:
        """A new filter for rows of the table that passes on to ``then``; ``then`` where all rows are kept."""
        known = self._tables.get(name)
        return then if known is None else KeptFilter(known, columns, then)


async def look(session: Session, rules: Masking, *, most: int = MOST_PLACES) -> tuple[Catalog, Subset]:
    """What the rules about rows mean for the database, with all that speaks against them: no row is read."""
    catalog = await read_catalog(session)
    found = plan_subset(catalog.wholes, catalog.references, rules.rows)
    names = {whole.name for whole in found.followed}
    ways = [found.owner[each.child] for each in found.references]
    places = sum(catalog.about[name] for name in [*names, *(child for child in ways if child in names)])
    if places > most and not found.problems:
        found = found._replace(problems=(_too_many(most),))
    return catalog, found


async def kept_tables(
    session: Session, catalog: Catalog, found: Subset, key: Keyed, *, most: int = MOST_PLACES
) -> KeptTables:
    """Reads the keys of the tables that may lose rows, and finds what is kept. Raises :class:`CalqueError`."""
    async with _as_dumped(session):
        return await _Reading(session, catalog, found, key, most=most).kept()


@asynccontextmanager
async def one_moment(session: Session) -> AsyncIterator[None]:
    """All that is read inside is of one moment; the server gives up what takes minutes."""
    await session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    await session.run("SET LOCAL statement_timeout = '60s'")
    try:
        yield
    except CalqueError:
        await session.run("ROLLBACK")
        raise
    await session.run("ROLLBACK")


async def first_kept(
    session: Session, name: Name, columns: Sequence[str], known: KeptRows, count: int
) -> list[list[str | None]]:
    """``columns`` of the first rows of a table that are kept."""
    found: list[list[str | None]] = []
    if known.rows is None:
        return found
    first = len(known.key)

    def take(lines: list[bytes]) -> None:
        for line in lines:
            if len(found) == count:
                break
            fields = line.split(b"\t")
            if known.keeps(b"\t".join(fields[:first])):
                found.append([None if field == b"\\N" else decoded(field) for field in fields[first:]])

    wanted = ", ".join([_columns("c", known.key), *(f"c.{quoted(column)}::text" for column in columns)])
    query = f"SELECT {wanted} FROM ONLY {quoted(name.schema)}.{quoted(name.table)} AS c"  # noqa: S608 - quoted
    async with _as_dumped(session):
        for limit in _TRIED_FIRST:
            if await _read(session, f"{query} LIMIT {limit}", take) < limit or len(found) == count:
                return found
            found.clear()
        await _read(session, query, take)
    return found


@asynccontextmanager
async def _as_dumped(session: Session) -> AsyncIterator[None]:
    """Fields are written as ``pg_dump`` writes them. Of a session that fails otherwise nothing more is asked."""
    for form in _FORMS:
        await session.run(form)
    try:
        yield
    except CalqueError:
        await session.run("RESET search_path")
        raise
    await session.run("RESET search_path")


async def _read(session: Session, query: str, take: Callable[[list[bytes]], None]) -> int:
    """Hand the rows of a query on as lines of COPY's text format; how many there were."""
    count, payloads, rest = 0, Payloads(), b""
    failed: CalqueError | None = None
    async with aclosing(session.copy_out(f"COPY ({query}) TO STDOUT")) as blocks:
        async for block in blocks:
            lines = (rest + payloads.feed(block)).split(b"\n")
            rest = lines.pop()
            count += len(lines)
            try:
                if failed is None:
                    await asyncio.to_thread(take, lines)
            except CalqueError as error:  # the rest is read to its end: the session is needed
                failed = error
    if failed:
        raise failed
    return count


class _Reading:
    def __init__(self, session: Session, catalog: Catalog, found: Subset, key: Keyed, *, most: int) -> None:
        self._session = session
        self._catalog = catalog
        self._found = found
        self._left = most
        self._most = most
        self._wholes = {whole.name: whole for whole in (*found.followed, *found.emptied)}
        self._known = {
            name: KeptRows(str(name), whole.key, digester(key.sub(f"rows of {name.schema}.{name.table}")))
            for name, whole in self._wholes.items()
        }
        self._numbers = {whole.name: number for number, whole in enumerate(found.followed)}
        self._sets: list[RowSet] = []
        self._edges: list[Edge] = []
        self._gone: list[tuple[int, array[int]]] = []
        self._wanted: dict[int, bytearray] = {}

    async def kept(self) -> KeptTables:
        """All of it."""
        found = self._found
        for whole in found.followed:
            self._sets.append(await self._rows(whole))
        kept = [
            _by_rule(rows, found.shares.get(whole.name)) for rows, whole in zip(self._sets, found.followed, strict=True)
        ]
        for reference in found.references:
            await self._follow(reference)
        referenced = frozenset(
            number
            for name, number in self._numbers.items()
            if (share := found.shares.get(name)) is not None and share.kind == "referenced"
        )
        await asyncio.to_thread(close, kept, self._edges, gone=self._gone, referenced=referenced, wanted=self._wanted)
        shares = []
        for whole, rows, flags in zip(found.followed, self._sets, kept, strict=True):
            known = self._known[whole.name]
            known.rows, known.kept = rows, flags
            shares.append(self._share(whole, len(rows), flags.count(1)))
        for whole in found.emptied:
            count = await self._session.value(f"SELECT count(*) FROM {self._catalog.source(whole.name)}")  # noqa: S608 - quoted
            shares.append(self._share(whole, int(count), 0))
        tables = {part: self._known[name] for name, whole in self._wholes.items() for part in whole.parts}
        return KeptTables(tables, tuple(sorted(shares, key=lambda share: share.table)))

    def _share(self, whole: Whole, rows: int, kept: int) -> TableShare:
        return TableShare(table=str(whole.name), rows=rows, kept=kept, rule=self._found.rules.get(whole.name, ""))

    async def _rows(self, whole: Whole) -> RowSet:
        """The digests of all rows of a table."""
        builder, digest = RowSetBuilder(), self._known[whole.name].digest

        def take(lines: list[bytes]) -> None:
            for line in lines:
                builder.add(digest(line))

        source = self._catalog.source(whole.name)
        limit = self._left + 1  # one too many tells, and the reading ends by itself
        columns = _columns("c", whole.key)
        self._count(await _read(self._session, f"SELECT {columns} FROM {source} AS c LIMIT {limit}", take))  # noqa: S608 - quoted
        try:
            return await asyncio.to_thread(builder.build)
        except SameDigest:
            raise CalqueError(
                permanent(
                    "cannot_mask",
                    f"two rows of table {whole.name} can't be told apart",
                    field=f"{whole.name}",
                    remedy="save again: with another key of the image they can",
                )
            ) from None

    async def _follow(self, reference: Reference) -> None:
        """Read which rows refer to which by one foreign key."""
        child, other = self._found.owner[reference.child], self._found.owner[reference.other]
        mine, theirs = self._numbers.get(child), self._numbers.get(other)
        joined = (
            f"FROM {self._catalog.source(reference.child)} AS c JOIN {self._catalog.source(reference.other)} AS p "
            f"ON {reference.condition}"
        )
        if mine is None:  # all rows of the child stay: what they refer to is wanted
            assert theirs is not None
            query = (
                f"SELECT {_columns('p', self._wholes[other].key)} FROM {self._catalog.source(reference.other)} AS p "  # noqa: S608 - quoted
                f"WHERE EXISTS (SELECT FROM {self._catalog.source(reference.child)} AS c WHERE {reference.condition})"
            )
            await self._want(query, theirs, other)
            return
        my_key, my_set, my_digest = self._wholes[child].key, self._sets[mine], self._known[child].digest
        if theirs is None:  # none of what is referred to stays
            gone = array("i")

            def leave(lines: list[bytes]) -> None:
                for line in lines:
                    gone.append(_place(my_set, my_digest(line), child))

            await _read(self._session, f"SELECT {_columns('c', my_key)} {joined}", leave)
            self._gone.append((mine, gone))
            return
        target, their_set, their_digest = no_targets(len(my_set)), self._sets[theirs], self._known[other].digest
        self._count(len(my_set))
        first = len(my_key)

        def connect(lines: list[bytes]) -> None:
            for line in lines:
                fields = line.split(b"\t")
                row = _place(my_set, my_digest(b"\t".join(fields[:first])), child)
                target[row] = _place(their_set, their_digest(b"\t".join(fields[first:])), other)

        both = f"{_columns('c', my_key)}, {_columns('p', self._wholes[other].key)}"
        await _read(self._session, f"SELECT {both} {joined}", connect)
        self._edges.append(Edge(mine, theirs, target))

    async def _want(self, statement: str, number: int, name: Name) -> None:
        """Mark the rows that tables which keep all of theirs refer to."""
        rows, digest = self._sets[number], self._known[name].digest
        marks = self._wanted.setdefault(number, bytearray(len(rows)))

        def mark(lines: list[bytes]) -> None:
            for line in lines:
                marks[_place(rows, digest(line), name)] = 1

        await _read(self._session, statement, mark)

    def _count(self, places: int) -> None:
        self._left -= places
        if self._left < 0:
            raise CalqueError(_too_many(self._most))


def _by_rule(rows: RowSet, share: Share | None) -> bytearray:
    """What a table's own rule keeps: rows stand in the order of their digests, so it is the first ones."""
    count = len(rows)
    if share is not None and share.kind == "percent":
        count = rows.below(share.below)
    elif share is not None and share.kind == "count":
        count = min(count, share.most)
    return bytearray(b"\x01") * count + bytearray(len(rows) - count)


def _columns(alias: str, key: Sequence[str]) -> str:
    return ", ".join(f"{alias}.{quoted(column)}" for column in key)


def _place(rows: RowSet, digest: int, name: Name) -> int:
    place = rows.find(digest)
    if place < 0:
        raise CalqueError(
            permanent("cannot_mask", f"the rows of table {name} changed while they were read", remedy="save again")
        )
    return place


def _too_many(most: int) -> Problem:
    return permanent(
        "cannot_mask",
        f"the tables that may lose rows have too many: {most} can be followed, a row counted once more for each of its "
        "foreign keys",
        field="masking.rows",
        remedy="keep none ('0%') of the biggest, or all rows of what they refer to",
    )
