"""Which rows are kept when foreign keys have to stay whole. Pure: rows are numbers, references are arrays of them.

Two steps. First the largest set of rows of which none refers to one that is not in it: whatever refers to a row that is
left out goes too, over cycles and from a table to itself. Then, of tables that keep only what is referred to, the least
set that kept rows of other tables, and such rows themselves, refer to. What is added there was in the set of the first
step, so it refers to nothing that is left out.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

NOWHERE = -1


class Edge(NamedTuple):
    """One foreign key between two tables: ``target`` has, for each row of ``child``, the row of ``parent`` that it
    refers to, or :data:`NOWHERE`."""

    child: int
    parent: int
    target: array[int]


def no_targets(rows: int) -> array[int]:
    """For an edge of which nothing is known yet."""
    return array("i", [NOWHERE]) * rows


def close(
    kept: Sequence[bytearray],
    edges: Sequence[Edge],
    *,
    gone: Iterable[tuple[int, Iterable[int]]] = (),
    referenced: frozenset[int] = frozenset(),
    wanted: Mapping[int, bytearray] | None = None,
) -> None:
    """Makes of ``kept`` (by table a byte for each row, 1 for what its own rule keeps) what is kept at the end.

    ``gone`` are rows that refer to something which is left out anyway. Tables in ``referenced`` shrink to what is
    referred to; ``wanted`` marks what tables that are no part of this refer to in them.
    """
    for table, rows in gone:
        for row in rows:
            kept[table][row] = 0
    _remove_what_refers(kept, edges)
    if referenced:
        _shrink(kept, edges, referenced, wanted or {})


def _remove_what_refers(kept: Sequence[bytearray], edges: Sequence[Edge]) -> None:
    into: dict[int, list[tuple[int, _Referring]]] = defaultdict(list)
    for edge in edges:
        into[edge.parent].append((edge.child, _Referring(edge.target, len(kept[edge.parent]))))
    todo = {table: array("i", (row for row, flag in enumerate(kept[table]) if not flag)) for table in into}
    busy = [table for table, rows in todo.items() if rows]
    while busy:
        table = busy.pop()
        rows = todo[table]
        while rows:
            row = rows.pop()
            for child, referring in into[table]:
                flags, waiting = kept[child], todo.get(child)
                for one in referring.rows(row):
                    if flags[one]:
                        flags[one] = 0
                        if waiting is not None:
                            waiting.append(one)
        busy.extend(other for other, waiting in todo.items() if waiting and other not in busy)


def _shrink(
    kept: Sequence[bytearray], edges: Sequence[Edge], referenced: frozenset[int], wanted: Mapping[int, bytearray]
) -> None:
    reached = {table: bytearray(len(kept[table])) for table in referenced}
    todo = {table: array("i") for table in referenced}

    def reach(table: int, row: int) -> None:
        if not reached[table][row]:
            reached[table][row] = 1
            todo[table].append(row)

    out: dict[int, list[Edge]] = defaultdict(list)
    for edge in edges:
        if edge.parent not in referenced:
            continue
        if edge.child in referenced:
            out[edge.child].append(edge)
            continue
        flags = kept[edge.child]
        for row, target in enumerate(edge.target):
            if target >= 0 and flags[row]:
                reach(edge.parent, target)
    for table, marks in wanted.items():
        for row, mark in enumerate(marks):
            if mark and kept[table][row]:
                reach(table, row)
    while any(todo.values()):
        for table, rows in todo.items():
            while rows:
                row = rows.pop()
                for edge in out[table]:
                    if (target := edge.target[row]) >= 0:
                        reach(edge.parent, target)
    for table, marks in reached.items():
        kept[table][:] = marks


class _Referring:
    """Which rows refer to a row, in two arrays."""

    def __init__(self, target: array[int], parents: int) -> None:
        starts = array("i", [0]) * (parents + 1)
        for parent in target:
            if parent >= 0:
                starts[parent + 1] += 1
        for parent in range(parents):
            starts[parent + 1] += starts[parent]
        filled = array("i", starts)
        children = array("i", [0]) * starts[parents]
        for child, parent in enumerate(target):
            if parent >= 0:
                children[filled[parent]] = child
                filled[parent] += 1
        self._starts, self._children = starts, children

    def rows(self, parent: int) -> array[int]:
        """The rows that refer to ``parent``."""
        return self._children[self._starts[parent] : self._starts[parent + 1]]
