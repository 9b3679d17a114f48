"""All interleavings of one writer and two collectors on one pack, step by step: the protocol of
`docs/repository-format.md`, "Writers and collectors", loses nothing - and does so in another order of its listings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

RIGHT = ("marks", "packs", "holds", "commits")


class Store(NamedTuple):
    """Whether the pack, its mark, the writer's hold and commit object, and another copy's commit object are there."""

    packs: bool
    marks: bool = False
    holds: bool = False
    commits: bool = False
    others: bool = False


class Collector(NamedTuple):
    """How far it is, and what its last four listings showed."""

    at: int = 0
    seen: Store = Store(packs=False)


class State(NamedTuple):
    store: Store
    writer: int
    marked: bool
    """What the writer saw when it looked for marks."""
    collectors: tuple[Collector, ...]


STOPPED = 99


def shares_a_pack(state: State, *, looks: bool = True) -> Iterator[State]:
    """The writer's next step, with a pack that is there: hold, marks, look, commit, release, and much later delete."""
    store, at = state.store, state.writer
    following = state._replace(writer=at + 1)
    if at == 0:
        yield following._replace(store=store._replace(holds=True))
    elif at == 1:
        yield following._replace(marked=store.marks)
    elif at == 2:
        gives_up = looks and (state.marked or not store.packs)
        yield state._replace(writer=STOPPED, store=store._replace(holds=False)) if gives_up else following
    elif at == 3:
        yield following._replace(store=store._replace(commits=True))
    elif at == 4:
        yield following._replace(store=store._replace(holds=False))
    elif at == 5:
        yield following._replace(store=store._replace(commits=False))


def writes_a_pack(state: State, *, holds_first: bool = True) -> Iterator[State]:
    """The writer's next step, with a new pack: hold, put, commit, release, and much later delete."""
    steps = [("holds", True), ("packs", True), ("commits", True), ("holds", False), ("commits", False)]
    if not holds_first:
        steps[0], steps[1] = steps[1], steps[0]
    if state.writer < len(steps):
        what, there = steps[state.writer]
        yield state._replace(writer=state.writer + 1, store=state.store._replace(**{what: there}))


def collects(state: State, number: int, order: tuple[str, ...]) -> Iterator[State]:
    """A collector's next step: four listings, mark, four listings, delete the pack, delete the mark."""
    collector, store = state.collectors[number], state.store
    at, seen = collector
    needed = seen.holds or seen.commits or seen.others
    if at in (4, 9, 10):
        if at == 4 and seen.packs and not needed and not seen.marks:
            store = store._replace(marks=True)
        elif at == 9 and seen.marks and seen.packs and not needed:
            store = store._replace(packs=False)
        elif at == 10 and seen.marks and not (seen.packs and needed):
            store = store._replace(marks=False)
    elif at < 9:
        what = order[at if at < 4 else at - 5]
        seen = seen._replace(**{what: getattr(store, what)})
        if what == "commits":
            seen = seen._replace(others=store.others)
    else:
        return
    changed = list(state.collectors)
    changed[number] = Collector(at + 1, seen)
    yield state._replace(store=store, collectors=tuple(changed))


def losses(writer: str, order: tuple[str, ...] = RIGHT, **careless: bool) -> int:
    """In how many states that can be reached a committed copy lacks its pack."""
    write: Callable[..., Iterator[State]] = shares_a_pack if writer == "shares" else writes_a_pack
    first = State(Store(packs=writer == "shares", others=writer == "shares"), 0, False, (Collector(), Collector()))
    reached, waiting, lost = {first}, [first], 0
    while waiting:
        state = waiting.pop()
        lost += state.store.commits and not state.store.packs
        following = [*write(state, **careless), *collects(state, 0, order), *collects(state, 1, order)]
        if state.store.others:
            following.append(state._replace(store=state.store._replace(others=False)))
        for each in following:
            if each not in reached:
                reached.add(each)
                waiting.append(each)
    assert len(reached) > 1000
    return lost


@pytest.mark.parametrize("writer", ["shares", "writes"])
def test_nothing_is_lost_in_any_interleaving(writer: str) -> None:
    assert losses(writer) == 0


@pytest.mark.parametrize(
    ("writer", "order"),
    [
        ("shares", ("marks", "packs", "commits", "holds")),
        ("shares", ("packs", "holds", "commits", "marks")),
    ],
)
def test_another_order_of_listings_loses_copies(writer: str, order: tuple[str, ...]) -> None:
    assert losses(writer, order) > 0


def test_a_careless_writer_loses_copies() -> None:
    assert losses("shares", looks=False) > 0
    assert losses("writes", holds_first=False) > 0
