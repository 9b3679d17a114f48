"""Rules about rows applied to a schema: which tables may lose rows, by which foreign keys, and what speaks against it.

Nothing is read. A partitioned table and its partitions are one table here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from brokers.masking.schema import Name
from schemas.masking import RowsRule
from schemas.masking_rows import MalformedShare, Share, parse_share, parse_table
from schemas.problems import CalqueError, Problem, invalid


class Whole(NamedTuple):
    """A table with all of its partitions (``parts``; of a table that has none, itself). ``key`` are columns of which
    each row has its own values, none of them NULL; empty when there are none."""

    name: Name
    parts: tuple[Name, ...]
    key: tuple[str, ...] = ()


class Reference(NamedTuple):
    """A foreign key from ``child`` to ``other``, tables or partitions of them; ``condition`` is what it says of their
    rows ``c`` and ``p``. ``period``: it is about spans of time, where a row may refer to several."""

    name: str
    child: Name
    other: Name
    condition: str
    period: bool = False


class Subset(NamedTuple):
    """``followed`` are the tables whose rows have to be known one by one, in their order; ``emptied`` those of which
    none is kept; ``shares`` what the rules say of each. ``references`` all lead into one of these."""

    followed: tuple[Whole, ...]
    emptied: tuple[Whole, ...]
    shares: Mapping[Name, Share]
    rules: Mapping[Name, str]
    references: tuple[Reference, ...]
    owner: Mapping[Name, Name]
    unused: tuple[str, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def plan_subset(wholes: Sequence[Whole], references: Sequence[Reference], rules: Sequence[RowsRule]) -> Subset:
    """What ``rules`` mean for these tables. Raises :class:`CalqueError` for rules that are not understood."""
    owner = {part: whole.name for whole in wholes for part in (whole.name, *whole.parts)}
    shares, written, unused, problems = _shares(wholes, rules, owner)
    inside = [each for each in references if each.child in owner and each.other in owner]
    emptied = {name for name, share in shares.items() if share.nothing}
    losing = _with_children({name for name, share in shares.items() if share.kind != "referenced"}, inside, owner)
    followed = (losing | {name for name, share in shares.items() if share.kind == "referenced"}) - emptied
    into = [each for each in inside if owner[each.other] in followed | emptied and owner[each.child] not in emptied]
    by_name = {whole.name: whole for whole in wholes}
    for name in sorted(followed):
        if not by_name[name].key:
            problems.append(_no_key(name, written.get(name), into, owner))
    for each in into:
        if each.period:
            where = f"{each.child}"
            message = f"foreign key {each.name} of table {each.child} is about periods of time: it can't be kept whole"
            problems.append(invalid(where, message, f"keep all rows of {each.other}"))
    targets = {owner[each.other] for each in into if owner[each.child] != owner[each.other]}
    notes = [
        f"no other table refers to {name}, of which what is referred to is kept: none of its rows will be"
        for name, share in shares.items()
        if share.kind == "referenced" and name not in targets
    ]
    return Subset(
        followed=tuple(by_name[name] for name in sorted(followed)),
        emptied=tuple(by_name[name] for name in sorted(emptied)),
        shares=shares,
        rules=written,
        references=tuple(into),
        owner=owner,
        unused=tuple(unused),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _shares(
    wholes: Sequence[Whole], rules: Sequence[RowsRule], owner: Mapping[Name, Name]
) -> tuple[dict[Name, Share], dict[Name, str], list[str], list[Problem]]:
    try:
        parsed = [(rule.table, parse_table(rule.table), parse_share(rule.share)) for rule in rules]
    except MalformedShare as error:
        raise CalqueError(invalid("masking.rows", str(error))) from None
    shares: dict[Name, Share] = {}
    written: dict[Name, str] = {}
    used: set[str] = set()
    for whole in wholes:
        for text, pattern, share in parsed:
            if not pattern.fits(*whole.name):
                continue
            used.add(text)
            if not share.all:
                shares[whole.name], written[whole.name] = share, text
            break
    unused: list[str] = []
    problems: list[Problem] = []
    for text, pattern, _ in parsed:
        if text in used or any(pattern.fits(*whole.name) for whole in wholes):
            continue
        part = next((part for part in owner if part != owner[part] and pattern.fits(*part)), None)
        if part is None:
            unused.append(text)
            continue
        message = f"{part} is a partition of {owner[part]}: a rule about rows is about all of them"
        problems.append(invalid(f"rows.{text}", message, f"write the rule for {owner[part]}"))
    return shares, written, unused, problems


def _with_children(names: Iterable[Name], references: Sequence[Reference], owner: Mapping[Name, Name]) -> set[Name]:
    """The tables, and all that refer to them, near or far."""
    found = set(names)
    while more := {
        owner[each.child] for each in references if owner[each.other] in found and owner[each.child] not in found
    }:
        found |= more
    return found


def _no_key(name: Name, rule: str | None, into: Sequence[Reference], owner: Mapping[Name, Name]) -> Problem:
    if rule is not None:
        why = f"by rule {rule!r}"
    else:
        why = next(
            f"where {each.name} refers to rows of {owner[each.other]} that are left out"
            for each in into
            if owner[each.child] == name
        )
    return invalid(
        f"{name}",
        f"table {name} has to lose rows {why}, and has no primary key to tell them by",
        "give it a primary key, or a unique index on columns that can't be NULL; or keep none of it: '0%'",
    )
