"""The words of masking rules: ``[schema.]table.column[->path]`` on the left, a transformer on the right. Pure.

    keep                     harmless, stays as it is
    null                     NULL
    redact                   the same value for all: REDACTED, 0, 1970-01-01 ...
    hash                     another value of the same type, made of a keyed digest
    keep format              another value of the same form: digits stay digits, letters letters, of the same length
    fake KIND                a made-up name, email ... : :data:`FAKES`
    shift dates [N] [by C]   at most N days earlier or later: the whole data service alike, or each value of column C
                             of the same row by its own shift
    custom NAME              a transformer that the operator of the broker has set up under this name

NULL stays NULL. The same value becomes the same wherever the same transformer is used in one image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple

from schemas.masking import Masking
from schemas.masking_rows import check_rows
from schemas.names import check_name
from schemas.problems import Problem, invalid

Kind = Literal["keep", "null", "redact", "hash", "keep format", "fake", "shift dates", "custom"]
FAKES: Final = (
    "name", "first name", "last name", "email", "username", "phone", "address", "street", "city", "postcode",
    "country", "company", "url", "ip", "text",
)  # fmt: skip
SHIFT_DAYS: Final = 365
MOST_SHIFT_DAYS: Final = 36_500
MOST_BYTES: Final = 24 * 1024
"""Of the rules of one data service: they travel in events."""
WORDS: Final = "keep, null, redact, hash, keep format, fake KIND, shift dates [DAYS] [by COLUMN], custom NAME"

_SHIFT = re.compile(r"shift dates(?: (?P<days>\d{1,6}))?(?: by (?P<by>\S.*))?")


class Transformer(NamedTuple):
    """A transformer as it was understood. ``name`` is the kind of a fake, or a custom transformer's; ``days`` and
    ``by`` (a column of the same row) are of ``shift dates``."""

    kind: Kind
    name: str = ""
    days: int = 0
    by: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "fake" | "custom":
                return f"{self.kind} {self.name}"
            case "shift dates":
                return f"{self.kind} {self.days}" + (f" by {self.by}" if self.by else "")
        return self.kind


KEEP: Final = Transformer("keep")


class Pattern(NamedTuple):
    """The left side of a rule; ``schema`` is empty when any will do, ``path`` leads into a JSON value."""

    schema: str
    table: str
    column: str
    path: tuple[str, ...] = ()

    def fits(self, schema: str, table: str, column: str) -> bool:
        """Whether it is about this column."""
        return (
            (not self.schema or fnmatchcase(schema, self.schema))
            and fnmatchcase(table, self.table)
            and fnmatchcase(column, self.column)
        )


class MalformedRule(ValueError):
    """A side of a rule is not understood. The text says why."""


def parse_transformer(text: str) -> Transformer:
    """The transformer that ``text`` names. Raises :class:`MalformedRule`."""
    words = " ".join(text.split())
    for plain in ("keep", "null", "redact", "hash", "keep format"):
        if words == plain:
            return Transformer(plain)
    if found := _SHIFT.fullmatch(words):
        days = int(found["days"] or SHIFT_DAYS)
        if not 1 <= days <= MOST_SHIFT_DAYS:
            raise MalformedRule(f"{days} days are out of range: 1 to {MOST_SHIFT_DAYS}")
        return Transformer("shift dates", days=days, by=found["by"] or "")
    kind, _, name = words.partition(" ")
    if kind == "fake":
        if name in FAKES:
            return Transformer("fake", name)
        raise MalformedRule(f"there is no fake {name!r}: use one of {', '.join(FAKES)}")
    if kind == "custom":
        if check_name(name, field="") is None:
            return Transformer("custom", name)
        raise MalformedRule(f"{name!r} is no name of a custom transformer")
    raise MalformedRule(f"{text!r} is no transformer: use one of {WORDS}")


def parse_pattern(text: str) -> Pattern:
    """The columns that ``text`` is about. Raises :class:`MalformedRule`."""
    column, arrow, path = text.partition("->")
    parts = column.strip().split(".")
    steps = tuple(path.strip().split(".")) if arrow else ()
    if len(parts) not in (2, 3) or not all(parts) or not all(steps):
        raise MalformedRule(f"{text!r} is no column: write [schema.]table.column, and ->key.key for a place in JSON")
    schema, table, name = ("", *parts) if len(parts) == 2 else parts
    return Pattern(schema, table, name, steps)


def parse_rules(rules: Masking) -> list[tuple[Pattern, Transformer]]:
    """All rules in their order. Raises :class:`MalformedRule`."""
    return [(parse_pattern(rule.column), parse_transformer(rule.transformer)) for rule in rules.columns]


def check_masking(rules: Masking, *, field: str) -> Iterator[Problem]:
    """What is wrong with the rules of one data service. ``field`` is where they stand."""
    if rules.keep and (rules.columns or rules.rows or rules.unclassified != "keep"):
        yield invalid(field, "it is kept as a whole, and there are rules too", "remove 'keep', or the rules")
    elif not rules.keep and not rules.columns and not rules.rows and rules.unclassified == "keep":
        yield invalid(field, "it says nothing", "write rules, or 'keep: true' if all that it holds is harmless")
    written = [(rule.column, rule.transformer) for rule in rules.columns]
    written += [(rule.table, rule.share) for rule in rules.rows]
    size = sum(len(left.encode()) + len(right.encode()) for left, right in written)
    if size > MOST_BYTES:
        where = "columns" if rules.columns else "rows"
        yield invalid(f"{field}.{where}", f"its rules take {size} bytes", f"use patterns: at most {MOST_BYTES} bytes")
    yield from check_rows(rules.rows, field=f"{field}.rows")
    seen: set[str] = set()
    for rule in rules.columns:
        here = f"{field}.columns.{rule.column}"
        if rule.column in seen:
            yield invalid(here, "there are two rules for it", "keep one of them")
        seen.add(rule.column)
        try:
            path = parse_pattern(rule.column).path
            transformer = parse_transformer(rule.transformer)
        except MalformedRule as error:
            yield invalid(here, str(error))
            continue
        if path and transformer.by:
            yield invalid(here, "'by' can't be used inside a JSON value", "shift the whole data service alike")


def check_all(rules: Mapping[str, Masking], *, data_services: Mapping[str, object], field: str) -> Iterator[Problem]:
    """What is wrong with the rules of several data services: of one that is not there, and each by itself."""
    for name, each in rules.items():
        if name not in data_services:
            known = ", ".join(data_services) or "none"
            yield invalid(f"{field}.{name}", f"there is no data service {name!r}", f"there are: {known}")
        yield from check_masking(each, field=f"{field}.{name}")
