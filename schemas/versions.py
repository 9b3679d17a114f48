"""Versions and ranges of versions, as templates require them: ``>=15,<18``.

A version is read as the numbers at its beginning, ``16.4 (Debian)`` as 16.4; missing numbers count as 0. A range is
one or more clauses, all of which must hold; each is an operator (``>=``, ``<=``, ``>``, ``<``, ``==``, ``!=``,
``~=``) and a version. ``==16`` holds for 16 and all below it (16.4), ``!=16`` for none of these; ``~=16.2`` is
``>=16.2`` within 16, as in PEP 440. A version alone means ``==``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NUMBERS = re.compile(r"v?(\d{1,9}(?:\.\d{1,9}){0,7})")
_CLAUSE = re.compile(r"(>=|<=|==|!=|~=|>|<|)\s*(\d{1,9}(?:\.\d{1,9}){0,7})")


class MalformedRange(ValueError):
    """Text that is no range. The message shows the clause at fault."""


class Clause(NamedTuple):
    """One condition."""

    operator: str
    numbers: tuple[int, ...]


def parse_version(text: str) -> tuple[int, ...] | None:
    """The numbers that ``text`` begins with; ``None`` when it begins with none."""
    match = _NUMBERS.match(text.strip())
    return _numbers(match.group(1)) if match else None


def parse_range(text: str) -> tuple[Clause, ...]:
    """The clauses of a range; raises :class:`MalformedRange`."""
    clauses: list[Clause] = []
    for part in text.split(","):
        match = _CLAUSE.fullmatch(part.strip())
        if match is None:
            raise MalformedRange(part.strip())
        clause = Clause(match.group(1) or "==", _numbers(match.group(2)))
        if clause.operator == "~=" and len(clause.numbers) < 2:
            raise MalformedRange(part.strip())
        clauses.append(clause)
    return tuple(clauses)


def satisfies(version: str, wanted: str) -> bool:
    """Whether ``version`` lies in the range ``wanted``; one without a number lies in none.

    Raises :class:`MalformedRange`.
    """
    clauses = parse_range(wanted)
    numbers = parse_version(version)
    return numbers is not None and all(_holds(numbers, clause) for clause in clauses)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("."))


def _holds(version: tuple[int, ...], clause: Clause) -> bool:
    operator, wanted = clause
    length = max(len(version), len(wanted))
    left, right = _padded(version, length), _padded(wanted, length)
    within = _padded(version, length)[: len(wanted)] == wanted
    match operator:
        case ">=":
            return left >= right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case "<":
            return left < right
        case "==":
            return within
        case "!=":
            return not within
    return left >= right and left[: len(wanted) - 1] == wanted[:-1]


def _padded(numbers: tuple[int, ...], length: int) -> tuple[int, ...]:
    return numbers + (0,) * (length - len(numbers))
