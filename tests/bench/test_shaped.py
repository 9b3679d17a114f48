"""The events that benchmarks use are ones that a site or a hub could write."""

from __future__ import annotations

from collections import Counter

from bus.records import record
from hub.projections.state import Projections
from schemas.events import Event
from tests.bench.shaped import Told, history, world


def projected(events: list[Told]) -> Projections:
    recorded = [record(sequence=at, subject=subject, payload=data) for at, (subject, data) in enumerate(events, 1)]
    assert all(each.refused is None and isinstance(each.event, Event) for each in recorded)
    assert len({each.envelope.id for each in recorded}) == len(recorded)
    state = Projections()
    state.apply(recorded)
    assert not state.stopped
    return state


def test_a_history_holds_together_and_is_the_same_for_the_same_seed() -> None:
    told = list(history(events=20_000, sites=20, seed=7))
    assert told == list(history(events=20_000, sites=20, seed=7)) != list(history(events=20_000, sites=20, seed=8))
    state = projected(told)
    states = Counter(row.state for row in state.apps.known())
    assert {"running", "deleted", "failed"} <= set(states)
    outcomes = {state.operations.whole(row).outcome for row in state.operations.rows.values()}
    assert outcomes == {None, "succeeded", "failed"}
    assert {state.images.state_of(id) for id in state.images.entries} == {"saving", "saved", "failed"}


def test_a_world_has_what_was_asked_for() -> None:
    state = projected(list(world(sites=5, apps=10, copies=40, images=30)))
    assert len(state.sites.states) == 5
    assert [row.state for row in state.apps.known()] == ["running"] * 10
    assert Counter(row.state for _, row in state.images.copies.items()) == {"committed": 40}
    assert [state.images.state_of(id) for id in state.images.entries] == ["saved"] * 30
