"""Which rows are kept, against a slow computation of the same that knows sets only."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from brokers.masking.closure import NOWHERE, Edge, close

Row = tuple[int, int]


@st.composite
def databases(draw: st.DrawFn) -> tuple[list[bytearray], list[Edge], frozenset[int], dict[int, bytearray]]:
    sizes = draw(st.lists(st.integers(0, 7), min_size=1, max_size=4))
    referenced = draw(st.frozensets(st.integers(0, len(sizes) - 1)))
    kept = [
        bytearray(b"\x01") * size
        if table in referenced
        else bytearray(draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))
        for table, size in enumerate(sizes)
    ]
    edges = []
    for _ in range(draw(st.integers(0, 6))):
        child, parent = (draw(st.integers(0, len(sizes) - 1)) for _ in range(2))
        rows = st.integers(NOWHERE, sizes[parent] - 1)
        edges.append(
            Edge(child, parent, array("i", draw(st.lists(rows, min_size=sizes[child], max_size=sizes[child]))))
        )
    wanted = {
        table: bytearray(draw(st.lists(st.integers(0, 1), min_size=sizes[table], max_size=sizes[table])))
        for table in referenced
        if draw(st.booleans())
    }
    return kept, edges, referenced, wanted


def slowly(
    kept: list[bytearray], edges: list[Edge], referenced: frozenset[int], wanted: dict[int, bytearray]
) -> set[Row]:
    rows = {(table, row) for table, flags in enumerate(kept) for row, flag in enumerate(flags) if flag}
    refers = {
        ((edge.child, row), (edge.parent, target))
        for edge in edges
        for row, target in enumerate(edge.target)
        if target != NOWHERE
    }
    while broken := {child for child, parent in refers if child in rows and parent not in rows}:
        rows -= broken
    found = {row for row in rows if row[0] not in referenced}
    found |= {(table, row) for table, marks in wanted.items() for row, mark in enumerate(marks) if mark} & rows
    while more := {parent for child, parent in refers if child in found} - found:
        found |= more
    return found


@given(databases())
def test_what_is_kept_is_whole_and_as_much_as_can_be(
    database: tuple[list[bytearray], list[Edge], frozenset[int], dict[int, bytearray]],
) -> None:
    kept, edges, referenced, wanted = database
    expected = slowly(kept, edges, referenced, wanted)
    close(kept, edges, referenced=referenced, wanted=wanted)
    assert {(table, row) for table, flags in enumerate(kept) for row, flag in enumerate(flags) if flag} == expected


@given(st.integers(1, 50), st.integers(0, 49))
def test_a_long_chain_goes_as_a_whole_or_stays(length: int, cut: int) -> None:
    kept = [bytearray(b"\x01") * length]
    chain = Edge(0, 0, array("i", range(-1, length - 1)))
    close(kept, [chain], gone=[(0, [cut])] if cut < length else [])
    assert kept[0].count(1) == min(cut, length)
