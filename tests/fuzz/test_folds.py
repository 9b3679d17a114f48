"""Hostile events and commands against what folds and decides: whatever is stored, a hub and an agent read on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bus.records import Recorded, record
from hub.projections import status, views
from hub.projections.dump import dump, load
from hub.projections.repositories import repository_views
from hub.projections.state import Projections
from schemas.commands import SiteCommand
from schemas.envelope import convert
from schemas.events import Event
from schemas.json_schemas import message_types
from schemas.problems import CalqueError, Problem
from site_agent.domain.planning import decide_as_planned
from site_agent.domain.site import Site
from tests.fuzz.hostile import Hostile

QUICK = range(2)
EVENTS: dict[str, type[Event]] = {name: kind for name, kind in message_types().items() if issubclass(kind, Event)}
COMMANDS: dict[str, type[SiteCommand]] = {
    name: kind for name, kind in message_types().items() if issubclass(kind, SiteCommand)
}
IDS = ("a", "b")


def stream(seed: int, *, writer: str) -> Iterator[tuple[str, bytes]]:
    """Events of one writer about few aggregates: honest ones and spoiled ones, in an order that makes no sense."""
    hostile = Hostile(seed)
    for name, kind in EVENTS.items():
        spoiled = hostile.spoiled(name, source=writer)
        honest = json.dumps(hostile.good(name, source=writer)).encode()
        for payload in (honest, *(each.payload for each in spoiled), honest):
            id = hostile.random.choice(IDS)
            yield f"calque.evt.{writer}.{kind.AGGREGATE}.{id}.{kind.EVENT}", payload


def events(seed: int, *, writer: str) -> list[Recorded]:
    found = list(stream(seed, writer=writer))
    Hostile(seed).random.shuffle(found)
    return [
        record(sequence=number, subject=subject, payload=payload) for number, (subject, payload) in enumerate(found, 1)
    ]


def folds(seed: int) -> None:
    for writer in ("north", "hub"):
        taken = [each for each in events(seed, writer=writer) if each.refused is None]
        known = [each for each in taken if isinstance(each.event, Event)]
        assert len(known) > len(EVENTS) / 3, "the honest ones are taken"
        # One that is unknown stops its aggregate: those come last.
        taken = [*known, *(each for each in taken if not isinstance(each.event, Event))]
        state = Projections()
        for one in taken:
            try:
                state.apply([one])
            except Exception as error:
                raise AssertionError(
                    f"seed {seed}: {one.envelope.type}: {bytes(one.envelope.data)[:2000]!r}"
                ) from error
        look_at(state)
        whole = dump(state)
        assert dump(load(whole)) == whole


def told(seed: int, one: Recorded) -> str:
    return f"seed {seed}: {one.envelope.type}: {bytes(one.envelope.data)[:2000]!r}"


def look_at(state: Projections) -> None:
    """Every view of every row."""
    views.app_views(state, list(state.apps.known()), configuration=True)
    views.image_views(state, list(state.images.entries))
    views.broker_views(state)
    repository_views(state)
    state.secrets.views(site=None)
    state.webhooks.views(None)
    for row in state.operations.rows.values():
        views.operation_view(state, row)
    for template in state.templates.rows.values():
        views.template_view(template)
    for app in state.apps.known():
        status.of_app(app)
    for id in IDS:
        views.answer_of(state, id)


def agent_folds(seed: int) -> None:
    site = Site("north")
    for one in events(seed, writer="north"):
        if one.refused is not None or not isinstance(one.event, Event):
            continue
        try:
            site.apply(one.aggregate, one.id, one.event, time=one.envelope.time, sequence=one.sequence)
        except Exception as error:
            raise AssertionError(told(seed, one)) from error
    list(site.live_operations())


def decides(seed: int) -> None:
    site, hostile = Site("north"), Hostile(seed)
    for one in events(seed, writer="north"):
        if one.refused is None and isinstance(one.event, Event):
            site.apply(one.aggregate, one.id, one.event, time=one.envelope.time, sequence=one.sequence)
    for fresh in (Site("north"), site):
        for name, kind in COMMANDS.items():
            for message in hostile.spoiled(name, source="hub"):
                command = decoded(message.payload, kind)
                if command is None:
                    continue
                try:
                    said = decide_as_planned(fresh, command, id=hostile.fresh_id(), target=hostile.random.choice(IDS))
                except Exception as error:
                    raise AssertionError(f"seed {seed}: {message.what} {name}: {message.payload[:2000]!r}") from error
                assert isinstance(said, (Problem, list))


def decoded(payload: bytes, kind: type[SiteCommand]) -> SiteCommand | None:
    try:
        whole: Any = json.loads(payload)
        return convert(json.dumps(whole["data"]).encode(), kind)
    except (CalqueError, ValueError, KeyError, TypeError, RecursionError):
        return None


@pytest.mark.parametrize("check", [folds, agent_folds, decides])
@pytest.mark.parametrize("seed", QUICK)
def test_hostile_messages_stop_no_fold_and_no_decision(check: Any, seed: int) -> None:
    check(seed)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("check", [folds, agent_folds, decides])
def test_many_seeds(check: Any) -> None:
    for seed in range(1000, 1100):
        check(seed)
