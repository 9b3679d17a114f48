"""Masking of PostgreSQL databases: rules against the schema, rows shown before and after, filters for a copy."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from brokers.masking.keyed import Keyed
from brokers.masking.plan import Plan, plan
from brokers.masking.schema import Check, Name
from brokers.masking.transformers import CannotMask, Change, Custom, Workshop
from brokers.postgres.keptrows import KeptRows
from brokers.postgres.maskschema import read_schema
from brokers.postgres.rowfilter import Column, RowFilter
from brokers.postgres.server import CheckFailed, Session
from brokers.postgres.subsetschema import quoted
from brokers.postgres.subsetting import KeptTables, first_kept, kept_tables, look, one_moment
from schemas.brokers import MaskedRows, MaskingPreview, PreviewMasking
from schemas.masking import Masked, Masking, MaskingOrder, rules_digest
from schemas.problems import CalqueError, Problem, invalid, permanent

TRIED_ROWS = 500
"""So many rows are masked to see whether their check constraints still hold."""
MOST_ROWS = 50
MOST_TABLES = 50
MOST_CHARACTERS = 200
"""Of a value in a preview."""
COUNTING_SECONDS = 5.0
"""So long a preview looks for what is kept."""
_FORMS = (
    "SET DateStyle = 'ISO, YMD'",
    "SET IntervalStyle = 'postgres'",
    "SET extra_float_digits = 1",
    "SET bytea_output = 'hex'",
    "SET client_encoding = 'UTF8'",
)


# The constraints' own text is put in by format(): it comes from the catalog, as the server writes it.
_CHECK = "SELECT coalesce(bool_and(({condition}) IS NOT FALSE), true) FROM (SELECT {made}) AS tried"
_DOMAIN = "SELECT count(*) >= 0 FROM (SELECT {made} OFFSET 0) AS tried"


class MaskedTables:
    """The filters of one masked copy (:class:`brokers.postgres.rowfilter.FilterTables`), and what to say of it."""

    def __init__(
        self, found: Plan, order: MaskingOrder, custom: Mapping[str, Custom], kept: KeptTables | None = None
    ) -> None:
        self._plan = found
        self._workshop = Workshop(Keyed.of(order.key), custom=custom)
        self._kept = kept
        self.masked = Masked(
            rules=rules_digest(order.rules),
            columns=found.changed,
            subset=kept is not None,
            rows_left_out=kept.left_out if kept else 0,
        )

    def __call__(self, schema: str, table: str, columns: Sequence[Column]) -> RowFilter | None:
        """A new filter for rows of the table; ``None`` where nothing of it is masked or left out. Raises
        :class:`CalqueError` for a table or column that is not known."""
        name, names = Name(schema, table), [column.name for column in columns]
        mask = self._plan.row_mask(name, names, self._workshop)
        return mask if self._kept is None else self._kept.filter(name, names, mask)


class Masker:
    """Masks with the transformers that this broker has, its operator's own (``custom``) among them."""

    def __init__(self, custom: Mapping[str, Custom]) -> None:
        self._custom = custom

    async def filters(self, session: Session, order: MaskingOrder) -> MaskedTables:
        """What masks a copy of what ``session`` sees. Raises :class:`CalqueError` for what speaks against it."""
        await _require_unicode(session)
        found = plan(await read_schema(session), order.rules, custom=self._custom)
        found.require()
        if not order.rules.rows:
            return MaskedTables(found, order, self._custom)
        catalog, subset = await look(session, order.rules)
        found._replace(problems=subset.problems).require()
        kept = await kept_tables(session, catalog, subset, Keyed.of(order.key))
        return MaskedTables(found, order, self._custom, kept)

    async def check(self, session: Session, rules: Masking) -> None:
        """Raises :class:`CalqueError` for what speaks against the rules: their words, the schema, and check
        constraints that some rows would break."""
        (await self._tried(session, rules)).require()

    async def preview(self, session: Session, request: PreviewMasking) -> MaskingPreview:
        """What the rules do to each column and, masked, to the first rows of each table."""
        if not 0 <= request.rows <= MOST_ROWS:
            raise CalqueError(invalid("rows", f"{request.rows} is out of range", f"use 0 to {MOST_ROWS}"))
        found = await self._tried(session, request.masking.rules)
        told = MaskingPreview(columns=found.columns, unused=found.unused, problems=found.problems, notes=found.notes)
        if found.problems:
            return told
        if not request.masking.rules.rows:
            return replace(told, rows=await self._shown(session, found, request, None))
        try:
            async with asyncio.timeout(COUNTING_SECONDS), one_moment(session):
                catalog, subset = await look(session, request.masking.rules)
                kept = await kept_tables(session, catalog, subset, Keyed.of(request.masking.key))
                return replace(told, rows=await self._shown(session, found, request, kept), tables=kept.shares)
        except TimeoutError:
            note = f"rows were not counted: that takes longer than {COUNTING_SECONDS:.0f} s; a save takes its time"
            return replace(told, notes=(*told.notes, note))

    async def _shown(
        self, session: Session, found: Plan, request: PreviewMasking, kept: KeptTables | None
    ) -> tuple[MaskedRows, ...]:
        if not request.rows:
            return ()
        workshop = Workshop(Keyed.of(request.masking.key), custom=self._custom)
        masked = [name for name in found.holding if found.changes(name, workshop)]
        return tuple(
            [
                await self._rows(session, found, name, workshop, request, kept.of(name) if kept else None)
                for name in masked[:MOST_TABLES]
            ]
        )

    async def _tried(self, session: Session, rules: Masking) -> Plan:
        await _require_unicode(session)
        for form in _FORMS:
            await session.run(form)
        found = plan(await read_schema(session), rules, custom=self._custom)
        if rules.rows:
            _, subset = await look(session, rules)
            found = found._replace(
                problems=(*found.problems, *subset.problems),
                unused=(*found.unused, *subset.unused),
                notes=(*found.notes, *subset.notes),
            )
        if found.problems:
            return found
        trial = Workshop.trial(self._custom)
        problems = [problem for check in found.to_try if (problem := await self._try(session, found, check, trial))]
        return found._replace(problems=tuple(problems))

    async def _try(self, session: Session, found: Plan, check: Check, workshop: Workshop) -> Problem | None:
        """Whether the first rows of a table, masked, keep one of its constraints."""
        changes = found.changes(check.table, workshop)
        bys = [by for name, (_, by) in changes.items() if by and name in check.columns]
        wanted = list(dict.fromkeys([*check.columns, *bys]))
        try:
            rows = [
                _masked(dict(zip(wanted, row, strict=True)), changes)
                for row in await session.rows(_select(check.table, wanted, TRIED_ROWS))
            ]
        except CannotMask as error:
            return invalid(f"{check.table}", f"a row can't be masked: {error}", "use another transformer")
        values = [[row[column] for row in rows] for column in check.columns]
        known = found.tables[check.table]
        statement = _DOMAIN if check.domain else _CHECK
        made = ", ".join(
            f"unnest(%s::text[])::{_literal(check.domain or known[column].written)} AS {_literal(quoted(column))}"
            for column in check.columns
        )
        try:
            keeps = await session.value(statement.format(made=made, condition=_literal(check.expression)), values)
        except CheckFailed:
            keeps = False
        if keeps:
            return None
        column = next(column for column in check.columns if column in changes)
        what = f"domain {check.domain}" if check.domain else f"check constraint {check.name}"
        return invalid(
            f"{check.table}.{column}",
            f"{known[column].words} of column {check.table}.{column} breaks {what}",
            "use a transformer that keeps it, such as keep format, or keep the column",
        )

    async def _rows(
        self,
        session: Session,
        found: Plan,
        name: Name,
        workshop: Workshop,
        request: PreviewMasking,
        known: KeptRows | None,
    ) -> MaskedRows:
        changes = found.changes(name, workshop)
        wanted = list(dict.fromkeys([*changes, *(by for _, by in changes.values() if by)]))
        before: list[tuple[str | None, ...]] = []
        after: list[tuple[str | None, ...]] = []
        if known is None:
            rows: Sequence[Sequence[str | None]] = await session.rows(_select(name, wanted, request.rows))
        else:
            rows = await first_kept(session, name, wanted, known, request.rows)
        for row in rows:
            values = dict(zip(wanted, row, strict=True))
            try:
                masked = _masked(values, changes)
            except CannotMask as error:
                raise CalqueError(
                    permanent("cannot_mask", f"table {name}: {error}", remedy="use another transformer")
                ) from None
            after.append(tuple(_cut(masked[column]) for column in changes))
            before.append(tuple(_cut(values[column]) for column in changes))
        return MaskedRows(
            table=str(name),
            columns=tuple(changes),
            after=tuple(after),
            before=tuple(before) if request.before else (),
        )


async def _require_unicode(session: Session) -> None:
    """Rows leave in the encoding of their database."""
    encoding = await session.value("SHOW server_encoding")
    if encoding != "UTF8":
        raise CalqueError(
            permanent("cannot_mask", f"a database in {encoding} can't be masked", remedy="move it into one in UTF8")
        )


def _masked(values: Mapping[str, str | None], changes: Mapping[str, tuple[Change, str]]) -> dict[str, str | None]:
    """One row with what becomes of its columns. Raises :class:`CannotMask`."""
    made = dict(values)
    for column, (change, by) in changes.items():
        value = values.get(column)
        if value is not None:
            made[column] = change(value, values[by] if by else None)
    return made


def _select(name: Name, columns: Sequence[str], rows: int) -> str:
    wanted = ", ".join(f"{quoted(column)}::text" for column in columns)
    return f"SELECT {wanted} FROM ONLY {quoted(name.schema)}.{quoted(name.table)} LIMIT {rows}"  # noqa: S608 - quoted


def _literal(text: str) -> str:
    """``text`` in a statement that has parameters."""
    return text.replace("%", "%%")


def _cut(value: str | None) -> str | None:
    return value if value is None or len(value) <= MOST_CHARACTERS else value[: MOST_CHARACTERS - 1] + "…"
