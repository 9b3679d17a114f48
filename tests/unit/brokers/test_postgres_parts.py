"""How the tables of a database are laid into the parts of a copy."""

from __future__ import annotations

import msgspec
import pytest

from brokers.postgres.parallel.tables import PAGE_BYTES, Table, plan_parts
from schemas.envelope import MAX_EVENT_BYTES
from schemas.values import CopyPart

MIB = 1 << 20
ROOM_FOR_THE_REST = 8 << 10


def table(number: int, size: int) -> Table:
    return Table(
        schema="public", name=f"t{number}", columns=("id",), format="binary", pages=size // PAGE_BYTES, bytes=size
    )


@pytest.mark.parametrize(
    "sizes",
    [
        [4 << 40],
        [40 * MIB] * 2000,
        [20 * MIB] * 3000,
        [17 * MIB] * 3000,
        [60_000 * MIB, *[900 * MIB] * 300, *[3 * MIB] * 9000],
    ],
)
def test_the_parts_of_a_copy_can_be_named_in_an_event_however_big_the_database_is(sizes: list[int]) -> None:
    tables = [table(number, size) for number, size in enumerate(sizes)]
    directory = plan_parts(tables, piece_bytes=192 * MIB)
    named = [
        CopyPart(name=part.name, media_type="application/vnd.calque.postgres-rows", size=1 << 40, digest="a" * 64)
        for part in directory.parts
    ]
    assert len(msgspec.json.encode(named)) + ROOM_FOR_THE_REST < MAX_EVENT_BYTES
    assert {piece.table.name for part in directory.parts for piece in part.pieces} == {one.name for one in tables}


def test_pieces_of_a_table_follow_each_other_without_a_gap() -> None:
    directory = plan_parts([table(0, 1000 * MIB), table(1, MIB), table(2, MIB)], piece_bytes=192 * MIB)
    *ranges, group = directory.parts
    bounds = [(part.pieces[0].first, part.pieces[0].end) for part in ranges]
    assert [first for first, _ in bounds] == [None, *(end for _, end in bounds[:-1])]
    assert bounds[-1][1] is None
    assert len(bounds) == 5
    assert [piece.table.name for piece in group.pieces] == ["t1", "t2"]
