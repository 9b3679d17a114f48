"""Rules applied to a schema: what becomes of each column, and all that speaks against it. Nothing is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from brokers.masking.copytext import MaskedColumn, RowMask
from brokers.masking.schema import LARGE_OBJECTS, Check, Column, ForeignKey, Name, Schema, Table
from brokers.masking.transformers import CannotMask, Change, Custom, Workshop, stays_different
from brokers.masking.types import ColumnType, read_type
from schemas.brokers import ClassifiedColumn
from schemas.masking import Masking
from schemas.masking_rules import KEEP, MalformedRule, Pattern, Transformer, parse_rules
from schemas.problems import CalqueError, Problem, invalid, permanent

Places = dict[tuple[str, ...], Transformer]


class Classified(NamedTuple):
    """What the rules say of one column: of the whole, and of places in its JSON. ``written`` is its type in full,
    ``rule`` the left side of the rule about the whole; empty when none fits."""

    written: str
    type: ColumnType
    whole: Transformer
    places: Places
    rule: str = ""
    by: str = ""

    @property
    def changed(self) -> bool:
        """Whether anything of it is masked."""
        return self.whole.kind != "keep" or any(each.kind != "keep" for each in self.places.values())

    @property
    def words(self) -> str:
        """What becomes of it, for people."""
        return ", ".join([str(self.whole), *(f"{'.'.join(place)}: {each}" for place, each in self.places.items())])


class Plan(NamedTuple):
    """What becomes of a database: ``changed`` columns are masked, ``holding`` are the tables with rows of their own.
    ``problems`` refuse a copy; of ``to_try`` only values can tell."""

    tables: Mapping[Name, Mapping[str, Classified]]
    columns: tuple[ClassifiedColumn, ...]
    holding: tuple[Name, ...]
    changed: int
    unused: tuple[str, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    to_try: tuple[Check, ...]

    def require(self) -> None:
        """Raises :class:`CalqueError` with the first problem, which tells how many more there are."""
        if self.problems:
            first, more = self.problems[0], len(self.problems) - 1
            if more:
                first = Problem(
                    code=first.code,
                    message=f"{first.message} (and {more} more: see calque mask check)",
                    actor=first.actor,
                    field=first.field,
                    remedy=first.remedy,
                )
            raise CalqueError(first)

    def changes(self, name: Name, workshop: Workshop) -> dict[str, tuple[Change, str]]:
        """What is done to each masked column of a table, and the column that it goes by, if it does."""
        return {
            column: (_change(one, workshop), one.by) for column, one in self.tables.get(name, {}).items() if one.changed
        }

    def row_mask(self, name: Name, columns: list[str], workshop: Workshop) -> RowMask | None:
        """What masks rows of the table with these ``columns`` in their order; ``None`` where nothing of it is masked.

        Raises :class:`CalqueError` for a table or column that was not there when the rules were applied.
        """
        known = self.tables.get(name)
        if known is None or (missing := [column for column in columns if column not in known]):
            what = f"table {name}" if known is None else f"column {name}.{missing[0]}"
            problem = permanent(
                "cannot_mask", f"{what} came after the rules were applied", field=str(name), remedy="save again"
            )
            raise CalqueError(problem)
        masked = [
            MaskedColumn(
                column,
                place,
                _change(known[column], workshop),
                columns.index(known[column].by) if known[column].by else -1,
            )
            for place, column in enumerate(columns)
            if known[column].changed
        ]
        return RowMask(str(name), masked) if masked else None


def plan(schema: Schema, rules: Masking, *, custom: Mapping[str, Custom]) -> Plan:
    """``rules`` applied to ``schema``. Raises :class:`CalqueError` for rules that are not understood."""
    try:
        parsed = parse_rules(rules)
    except MalformedRule as error:
        raise CalqueError(invalid("masking", str(error))) from None
    written = [rule.column for rule in rules.columns]
    used: set[int] = set()
    tables: dict[Name, dict[str, Classified]] = {}
    for table in schema.tables:
        tables[table.name] = {
            column.name: _classify(table, column, parsed, written, used)
            for column in table.columns
            if not column.generated
        }
    problems: list[Problem] = []
    holding = [table.name for table in schema.tables if table.holds_rows]
    for table in schema.tables:
        if table.holds_rows:
            problems += _of_table(table, tables[table.name], custom, refuse=rules.unclassified == "refuse")
    problems += _of_keys(schema.foreign_keys, tables)
    problems += _of_uniques(schema, tables, custom)
    return Plan(
        tables=tables,
        columns=tuple(
            ClassifiedColumn(
                table=str(name),
                column=column,
                type=one.written,
                rule=one.rule,
                transformer=one.words if one.rule or one.places else "",
            )
            for name in holding
            for column, one in tables[name].items()
        ),
        holding=tuple(holding),
        changed=sum(one.changed for name in holding for one in tables[name].values()),
        unused=tuple(column for number, column in enumerate(written) if number not in used),
        problems=tuple(problems),
        notes=tuple(_notes(schema, tables)),
        to_try=tuple(
            check for check in schema.checks if any(_changed(tables, check.table, column) for column in check.columns)
        ),
    )


def _classify(
    table: Table, column: Column, parsed: list[tuple[Pattern, Transformer]], written: list[str], used: set[int]
) -> Classified:
    names = (table.name, *table.ancestors)
    whole: Transformer | None = None
    places: Places = {}
    rule = ""
    for number, (pattern, transformer) in enumerate(parsed):
        if not any(pattern.fits(name.schema, name.table, column.name) for name in names):
            continue
        used.add(number)
        if pattern.path:
            places.setdefault(pattern.path, transformer)
        elif whole is None:
            whole = transformer
        else:
            continue
        rule = rule or written[number]
    by = whole.by if whole else ""
    # a rule about a place says nothing of the rest
    return Classified(column.type, read_type(column.type), whole or KEEP, places, rule if whole else "", by)


def _change(one: Classified, workshop: Workshop) -> Change:
    if one.places:
        return workshop.in_json({(): one.whole, **one.places})
    return workshop.change(one.whole, one.type)


def _of_table(
    table: Table, columns: Mapping[str, Classified], custom: Mapping[str, Custom], *, refuse: bool
) -> Iterator[Problem]:
    trial = Workshop.trial(custom)
    for column in table.columns:
        one = columns.get(column.name)
        if one is None:
            continue
        field = f"{table.name}.{column.name}"
        if refuse and not one.rule:
            yield invalid(
                field,
                f"no rule says what becomes of{' the rest of' if one.places else ''} column {field} ({column.type})",
                f"add a rule, such as '{field}: keep'",
            )
        if not one.changed:
            continue
        if table.name == LARGE_OBJECTS:
            yield invalid(field, "large objects can't be masked", f"write '{field}: keep', or remove them first")
            continue
        if one.places and one.type.family != "json":
            yield invalid(field, f"a place in JSON can't be in column {field}: it is {column.type}", "leave out '->'")
            continue
        if column.not_null and one.whole.kind == "null":
            yield invalid(field, f"column {field} can't be NULL", "use redact or hash")
        if one.by and one.by not in columns:
            yield invalid(field, f"table {table.name} has no column {one.by!r} to shift by", "name one of its columns")
        if column.name in table.partition_key:
            yield invalid(
                field,
                f"column {field} decides in which partition a row lies",
                "keep it: a masked value would belong into another one",
            )
        try:
            _change(one, trial)
        except CannotMask as error:
            yield invalid(field, f"column {field}: {error}", "use another transformer")


def _of_keys(keys: tuple[ForeignKey, ...], tables: Mapping[Name, Mapping[str, Classified]]) -> Iterator[Problem]:
    for key in keys:
        for column, other in zip(key.columns, key.others, strict=True):
            # what a partitioned table says of a key, its partitions say too
            mine, theirs = tables.get(key.table, {}).get(column), tables.get(key.other, {}).get(other)
            if mine is None or theirs is None or mine.whole.kind == "null" or not (mine.changed or theirs.changed):
                continue
            same_type = mine.type.family == theirs.type.family and (
                mine.type.family == "integer" or mine.type == theirs.type or mine.whole.kind == "keep format"
            )
            if mine.whole == theirs.whole and mine.places == theirs.places and not mine.by and same_type:
                continue
            here, there = f"{key.table}.{column}", f"{key.other}.{other}"
            yield invalid(
                here,
                f"column {here} ({mine.type.name}) is {_said(mine)}, and {there} ({theirs.type.name}), which it refers "
                f"to by {key.name}, is {_said(theirs)}",
                "give both the same transformer (a shift 'by' can't be used)" if same_type else "keep both",
            )


def _said(one: Classified) -> str:
    return one.words if one.rule else "kept, since no rule fits it"


def _of_uniques(
    schema: Schema, tables: Mapping[Name, Mapping[str, Classified]], custom: Mapping[str, Custom]
) -> Iterator[Problem]:
    for unique in schema.uniques:
        for column in unique.columns:
            one = tables.get(unique.table, {}).get(column)
            if one is None or not one.changed:
                continue
            field = f"{unique.table}.{column}"
            if unique.expression and one.whole.kind not in ("hash", "fake", "null"):
                yield invalid(
                    field,
                    f"column {field} is part of {unique.name}, which is about more than plain values: whether "
                    f"{one.words} keeps it can't be told",
                    "use hash, or keep it",
                )
            elif one.places or not stays_different(one.whole, one.type, custom=custom):
                yield invalid(
                    field,
                    f"column {field} is unique by {unique.name}, and {one.words} may make the same of different values",
                    "use keep format, hash (16 characters at least) or fake email",
                )


def _notes(schema: Schema, tables: Mapping[Name, Mapping[str, Classified]]) -> Iterator[str]:
    for table in schema.tables:
        for column in table.columns:
            if column.sequence and _changed(tables, table.name, column.name):
                yield (
                    f"{table.name}.{column.name} is numbered by sequence {column.sequence}, which goes on as it is; "
                    "new numbers may meet masked ones; a number that says nothing of a person is best kept"
                )


def _changed(tables: Mapping[Name, Mapping[str, Classified]], table: Name, column: str) -> bool:
    one = tables.get(table, {}).get(column)
    return one is not None and one.changed
