"""The words of rules about rows: ``[schema.]table`` on the left, how much of it is kept on the right. Pure.

10%          so many of a hundred rows, chosen by a keyed digest of the primary key
1000         at most so many rows, chosen in the same way
referenced   rows that rows which are kept refer to
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple

from schemas.masking import RowsRule
from schemas.problems import Problem, invalid

SHARE_WORDS: Final = "PERCENT% (such as 10% or 0.5%), ROWS (such as 1000), referenced"
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?) ?%")
_COUNT = re.compile(r"\d{1,9}")
_WHOLE: Final = 2**64


class MalformedShare(ValueError):
    """A side of a rule is not understood. The text says why."""


class Share(NamedTuple):
    """How much of a table is kept. ``below`` (of ``percent``): rows whose digest, a number of 64 bits, is less;
    ``most``: that many with the least digests."""

    kind: Literal["percent", "count", "referenced"]
    below: int = 0
    most: int = 0

    @property
    def all(self) -> bool:
        """Whether the rule takes no row away by itself."""
        return self.kind == "percent" and self.below >= _WHOLE

    @property
    def nothing(self) -> bool:
        """Whether no row is kept, whichever they are."""
        return self.kind != "referenced" and not self.below and not self.most


class TablePattern(NamedTuple):
    """The left side of a rule; ``schema`` is empty when any will do."""

    schema: str
    table: str

    def fits(self, schema: str, table: str) -> bool:
        """Whether it is about this table."""
        return (not self.schema or fnmatchcase(schema, self.schema)) and fnmatchcase(table, self.table)


def parse_share(text: str) -> Share:
    """How much ``text`` says. Raises :class:`MalformedShare`."""
    words = text.strip()
    if words == "referenced":
        return Share("referenced")
    if found := _PERCENT.fullmatch(words):
        percent = Decimal(found[1])
        if percent > 100:
            raise MalformedShare(f"{words} is more than there is: 0% to 100%")
        return Share("percent", below=int(percent * _WHOLE / 100))
    if _COUNT.fullmatch(words):
        return Share("count", most=int(words))
    raise MalformedShare(f"{text!r} does not say how much of a table is kept: use one of {SHARE_WORDS}")


def parse_table(text: str) -> TablePattern:
    """The tables that ``text`` is about. Raises :class:`MalformedShare`."""
    parts = text.strip().split(".")
    if len(parts) not in (1, 2) or not all(parts):
        raise MalformedShare(f"{text!r} is no table: write [schema.]table")
    schema, table = ("", *parts) if len(parts) == 1 else parts
    return TablePattern(schema, table)


def check_rows(rules: tuple[RowsRule, ...], *, field: str) -> Iterator[Problem]:
    """What is wrong with the rules about rows of one data service. ``field`` is where they stand."""
    seen: set[str] = set()
    for rule in rules:
        here = f"{field}.{rule.table}"
        if rule.table in seen:
            yield invalid(here, "there are two rules for it", "keep one of them")
        seen.add(rule.table)
        try:
            parse_table(rule.table)
            parse_share(rule.share)
        except MalformedShare as error:
            yield invalid(here, str(error))
