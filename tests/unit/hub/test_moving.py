"""Snapshots that are written while events are taken in."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from bus.pieces import Piece, pack
from bus.records import Recorded
from hub.projections import moving
from hub.projections.dump import Place, dump, dump_pieces, piece_of
from hub.projections.moving import MovingDump
from hub.projections.rows import Unread
from hub.projections.state import Projections
from tests.unit.hub.test_projections import project
from tests.unit.hub.test_rows import again, history, short_lines

assert short_lines


def given(state: Projections, events: Iterator[Recorded], *, count: int) -> None:
    for _, one in zip(range(count), events, strict=False):
        state.apply([one])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("loaded", [True, False])
def test_what_happens_meanwhile_is_in_it_as_in_any_dump(
    monkeypatch: pytest.MonkeyPatch, seed: int, loaded: bool
) -> None:
    """Events come between any two lines, and between the rounds."""
    chance = Random(seed)
    events = history(chance)
    chance.shuffle(events)
    state = project(events[: len(events) // 3])
    state = again(state) if loaded else state
    rest = iter(events[len(events) // 3 :])

    def while_written(place: Place, line: bytes | Unread) -> Piece:
        given(state, rest, count=chance.choice([0, 0, 1, 4]))
        return piece_of(place, line)

    dumping = MovingDump(state)
    with monkeypatch.context() as patched:
        patched.setattr(moving, "piece_of", while_written)
        dumping.write()
    for _ in range(chance.randrange(6)):
        dumping.write_changed(most=chance.choice([1, 5, 100]))
        given(state, rest, count=chance.randrange(6))
    dumping.finish()
    wanted, position = dump(state), list(dump_pieces(state))
    given(state, rest, count=chance.choice([0, 1000]))
    assert list(dumping.pieces()) == position
    dumping.close()
    assert state.touched is None
    assert b"".join(piece.plain() for piece in position) == wanted


def test_what_was_asked_for_meanwhile_is_in_it() -> None:
    """Asking reads a piece; that is no change."""
    state = again(project(history(Random(1))))
    wanted = pack(dump_pieces(state))
    dumping = MovingDump(state)
    dumping.write()
    for rows in (state.images.contents, state.images.copies, state.operations.ended):
        for key in list(rows)[::2]:
            rows.get(key)
    dumping.finish()
    assert pack(dumping.pieces()) == wanted


def test_a_row_that_an_event_tells_of_without_changing_it_stays() -> None:
    events = history(Random(2))
    state = again(project(events))
    dumping = MovingDump(state)
    dumping.write()
    assert state.touched == set()
    state.touched.update(("operation", writer, id) for writer, id in state.operations.rows)
    dumping.finish()
    assert list(dumping.pieces()) == list(dump_pieces(state))
