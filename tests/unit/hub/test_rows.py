"""Tables whose rows stay in the pieces of a snapshot until somebody asks."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from bus.pieces import Piece, Unsound, digest_of, pack, unpack
from bus.records import Recorded
from hub.projections import dump as dumping
from hub.projections import moving
from hub.projections.dump import dump, dump_lines, dump_pieces, load_pieces
from hub.projections.rows import Rows
from hub.projections.state import Projections
from schemas import events as ev
from schemas.operations import Step
from tests.unit.hub.scenes import BY, Told, recorded
from tests.unit.hub.test_dump import stories, tables
from tests.unit.hub.test_projections import everything, project

LAZY = ("contents", "copies", "ended")


@pytest.fixture(autouse=True, params=[1, 2, 7], ids="a line ends after {}".format)
def short_lines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few rows are many pieces."""
    short = tuple(table._replace(every=request.param) for table in dumping.TABLES)
    monkeypatch.setattr(dumping, "TABLES", short)
    monkeypatch.setattr(moving, "TABLES", short)
    monkeypatch.setattr(dumping, "_TABLES", {table.name: table for table in short})


def told(chance: Random, *, site: str, count: int) -> list[Told]:
    """Copies and operations that ended, and some that did not."""
    step = Step(id="one", action="wait", part="a")
    found: list[Told] = []
    for number in (chance.randrange(40) for _ in range(count)):
        id = f"{number:02}"
        found += chance.choice(
            [
                [("copy", id, ev.CopyPreparing(instance="i", data_service="db", image=f"m{id}", broker="b"))],
                [("copy", id, ev.CopyExpired())],
                [("operation", id, ev.OperationAccepted(kind="stop", target="i", name="n", by=BY, steps=(step,)))],
                [("operation", id, ev.OperationSucceeded(result={"number": number}))],
                [("operation", id, ev.StepSucceeded(step="one", attempt=2))],
                [("image", id, ev.ImageSaving(instance="i", instance_name="n", template="t@1", copies={"db": id}))],
            ]
        )
    return found


def entered(chance: Random, *, count: int) -> list[Told]:
    """Images in the hub's catalog."""
    found: list[Told] = []
    for id in (f"m{chance.randrange(40):02}" for _ in range(count)):
        event = ev.CatalogEntered(name=id, site="north", instance="i", by=BY)
        found.append(("catalog", id, chance.choice([event, event, ev.CatalogDeleted(by=BY)])))
    return found


def history(chance: Random, *, count: int = 60) -> list[Recorded]:
    events = [each for writer, story in stories().items() for each in recorded(writer, story)]
    events += recorded("hub", entered(chance, count=count // 2))
    for site in ("east", "north", "west"):
        events += recorded(site, told(chance, site=site, count=count))
    return events


def again(state: Projections) -> Projections:
    """Written, stored and loaded."""
    return load_pieces(unpack(pack(dump_pieces(state)).parts, generation=1))


def lazy(state: Projections) -> Iterator[tuple[str, Rows[Any]]]:
    for table in dumping.TABLES:
        content = table.of(state)
        if isinstance(content, Rows):
            yield table.name, content


@pytest.mark.parametrize("seed", range(5))
def test_a_start_from_pieces_and_the_tail_is_a_replay(seed: int) -> None:
    chance = Random(seed)
    events = history(chance)
    at = chance.randrange(len(events))
    state = again(project(events[:at]))
    assert dump(state) == dump(project(events[:at]))
    state.apply(events[at:])
    whole = project(events)
    assert dump(state) == dump(whole)
    assert dump(again(state)) == dump(whole)
    assert everything(state) == everything(whole)
    assert tables(state) == tables(whole)


def test_what_nobody_asks_for_is_dumped_unread() -> None:
    state = project(history(Random(1)))
    wanted = list(dump_pieces(state))
    loaded = again(state)
    assert [name for name, _ in lazy(loaded)] == list(LAZY)
    assert list(dump_pieces(loaded)) == wanted
    for name, rows in lazy(loaded):
        assert len(rows.held().unread) == sum(f'["{name}"'.encode() in each.label for each in wanted)
        assert rows.held().keys == []


@pytest.mark.parametrize("seed", range(5))
def test_asking_changes_nothing_of_a_dump(seed: int) -> None:
    chance = Random(seed)
    state = project(history(chance))
    loaded = again(state)
    for (_, rows), (_, asked) in zip(lazy(state), lazy(loaded), strict=True):
        keys = [*rows, ("east", "00x"), ("a", ""), ("z", "z")]
        for key in chance.choices(keys, k=10):
            look = chance.choice([asked.get, asked.look])
            assert look(key) == rows.get(key)
            assert (key in asked) == (key in rows)
    assert dump(loaded) == dump(state)


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_come_and_go_between_pieces_leave_the_lines_that_a_replay_has(seed: int) -> None:
    chance = Random(seed)
    state = project(history(chance))
    loaded = again(state)
    for _ in range(8):
        for (_, rows), (_, other) in zip(lazy(state), lazy(loaded), strict=True):
            keys = list(rows)
            gone, copied = chance.choice(keys), chance.choice(keys)
            new = chance.choice(["", "east", "north", "zzz"]), f"{chance.randrange(50):02}x"
            for table in (rows, other):
                table[new] = table[copied]
                if gone not in (new, copied):
                    table.discard(gone)
        assert dump(loaded) == dump(state)
        loaded = again(loaded)
    for (_, rows), (_, other) in zip(lazy(state), lazy(loaded), strict=True):
        assert rows == other
        assert len(rows) == len(other)


def test_reading_in_small_amounts_reads_all() -> None:
    state = project(history(Random(3)))
    loaded = again(state)
    for (_, rows), (_, other) in zip(lazy(state), lazy(loaded), strict=True):
        while other.read_some(2):
            pass
        assert other.held().unread == []
        assert sorted(other) == sorted(rows)
    assert dump(loaded) == dump(state)


def test_the_digest_is_of_the_lines() -> None:
    state = project(history(Random(4)))
    assert pack(dump_pieces(state)).state_sha256 == digest_of(dump_lines(state))


def test_a_line_ends_where_its_last_key_says() -> None:
    state = Projections()
    state.taken.update({f"site-{number}": number for number in range(100)})
    lines = set(dump_lines(state))
    del state.taken["site-50"]
    assert len(lines - set(dump_lines(state))) <= 2


@pytest.mark.parametrize("cut", [1, 41, 60])
def test_what_is_cut_off_is_noticed(cut: int) -> None:
    whole = b"".join(pack(dump_pieces(project(history(Random(5))))).parts)
    with pytest.raises(Unsound, match="ends within a piece"):
        list(unpack([whole[:-cut]], generation=1))


def test_a_piece_of_other_bytes_is_noticed() -> None:
    piece = Piece.of(b"[]", b"something")
    with pytest.raises(Unsound, match="decompressed"):
        piece._replace(body=b"\0" * 40).plain()
