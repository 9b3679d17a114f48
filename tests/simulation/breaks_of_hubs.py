"""Deliberate breaks of the hub and of what hubs and agents share: streams, queues, events, snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest

from bus import records
from bus.events import NewEvent
from bus.records import Recorded, UnknownEvent
from hub.application import instances
from hub.application.commands import DECISIONS
from hub.application.commands import CommandHandler as HubCommands
from hub.application.reactor import Reactor
from hub.application.sagas import Sagas
from hub.application.snapshots import Snapshotter
from hub.domain import catalog, children, claim, received
from hub.projections.state import Projections
from schemas import events as ev
from schemas import saga
from tests.simulation.storage import SimStore
from tests.simulation.streams import Key, Stream

Patch = pytest.MonkeyPatch


def appends_are_not_guarded(patch: Patch) -> None:
    def mismatch(self: Stream, expected: Mapping[Key, int]) -> None:
        return None

    patch.setattr(Stream, "mismatch", mismatch)


def events_of_a_decision_are_stored_one_by_one(patch: Patch) -> None:
    real = SimStore.append

    async def append(self: SimStore, events: Sequence[NewEvent], *, expected: Mapping[Key, int]) -> list[Recorded]:
        stored: list[Recorded] = []
        last = dict(expected)
        for event in events:
            key = (event.aggregate, event.id)
            stored += await real(self, [event], expected={key: last[key]})
            last[key] = stored[-1].sequence
        return stored

    patch.setattr(SimStore, "append", append)


def hub_carries_out_what_has_expired(patch: Patch) -> None:
    patch.setattr(received, "expired", lambda *_arguments, **_named: None)


def hub_does_not_withdraw(patch: Patch) -> None:
    async def nothing(self: Reactor, *arguments: Any, **named: Any) -> None:
        return None

    patch.setattr(Reactor, "_withdraw", nothing)


def hub_ignores_claims(patch: Patch) -> None:
    patch.setattr(claim, "evolve", lambda state, event: claim.ClaimState())


def hub_believes_that_a_child_is_undone(patch: Patch) -> None:
    def undone(operation: saga.Operation, state: saga.StepState, *arguments: Any) -> list[ev.Event]:
        return saga.undone(operation, state.step.id)

    patch.setattr(children, "_undone", undone)


def hub_forgets_what_it_passed_on(patch: Patch) -> None:
    real = HubCommands._record

    async def record(self: HubCommands, envelope: Any, event: Any) -> bool:
        return isinstance(event, ev.CommandForwarded) or await real(self, envelope, event)

    patch.setattr(HubCommands, "_record", record)


def hub_has_no_timers(patch: Patch) -> None:
    async def run(self: Sagas) -> None:
        return None

    patch.setattr(Sagas, "run", run)


def hub_acknowledges_before_storing(patch: Patch) -> None:
    real = HubCommands.handle
    kept: list[asyncio.Task[None]] = []

    async def handle(self: HubCommands, delivery: Any) -> None:
        kept.append(asyncio.create_task(real(self, delivery)))

    patch.setattr(HubCommands, "handle", handle)


def hub_acknowledges_events_before_it_reacts(patch: Patch) -> None:
    real = Reactor.handle
    kept: list[asyncio.Task[None]] = []

    async def handle(self: Reactor, delivery: Any) -> None:
        kept.append(asyncio.create_task(real(self, delivery)))

    patch.setattr(Reactor, "handle", handle)


def hub_skips_its_dedupe_check(patch: Patch) -> None:
    async def became(self: HubCommands, id: str) -> None:
        return None

    async def answer(self: HubCommands, id: str, became: Any) -> None:
        return None

    patch.setattr(HubCommands, "_became", became)
    patch.setattr(HubCommands, "_answer", answer)


def hub_decides_names_by_its_catalog(patch: Patch) -> None:
    """Whether a name is free is read from a projection, which may lag behind, instead of from the claim itself."""
    names: ContextVar[dict[str, str]] = ContextVar("names")
    real = catalog.enter

    def enter(entry: Any, _taken: Any, command: Any, **named: Any) -> Any:
        return real(entry, claim.ClaimState(owner=names.get().get(command.name)), command, **named)

    save = instances.save

    async def with_names(context: Any, received: Any) -> Any:
        rows = context.state.images.entries.items()
        names.set({row.state.entered.name: id for id, row in rows if row.state.status == "entered"})
        return await save(context, received)

    patch.setattr(instances, "catalog", SimpleNamespace(**vars(catalog) | {"enter": enter}))
    patch.setitem(DECISIONS, "instance.save", with_names)


def hub_sends_each_attempt_under_one_id(patch: Patch) -> None:
    patch.setattr(children, "effect_id", lambda operation, step, attempt: f"{operation}/{step}/1")


def forged_events_count(patch: Patch) -> None:
    patch.setattr(records, "_refusal", lambda *arguments: None)


def an_unknown_event_stops_the_stream(patch: Patch) -> None:
    real = Projections.apply

    def apply(self: Projections, batch: Any) -> None:
        for recorded in batch:
            if isinstance(recorded.event, UnknownEvent):
                raise ValueError(recorded.envelope.type)
            real(self, [recorded])

    patch.setattr(Projections, "apply", apply)


def a_snapshot_begins_one_event_late(patch: Patch) -> None:
    real = Snapshotter._load

    async def load(self: Snapshotter, manifest: Any) -> Any:
        state = await real(self, manifest)
        if state is not None:
            state.position += 1
        return state

    patch.setattr(Snapshotter, "_load", load)


def a_snapshot_begins_one_event_early(patch: Patch) -> None:
    real = Snapshotter._load

    async def load(self: Snapshotter, manifest: Any) -> Any:
        state = await real(self, manifest)
        if state is not None:
            state.position -= 1
        return state

    patch.setattr(Snapshotter, "_load", load)
