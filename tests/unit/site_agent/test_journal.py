"""Deciding and storing at a site: conflicts, what can't be stored, aggregates that a newer agent has written to."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from bus.connection import Bus
from bus.events import EventStore, NewEvent
from bus.records import record
from bus.work import Delivery
from schemas import commands as cmd
from schemas import events as ev
from schemas.envelope import Envelope, encode, timestamp, wrap
from schemas.problems import CalqueError, invalid
from schemas.subjects import site_command
from site_agent.adapters import journal as journals
from site_agent.adapters.journal import Journal
from site_agent.application.commands import CommandHandler
from site_agent.application.runner import Runner
from site_agent.domain.site import Draft, Site
from tests.unit.site_agent.memory_store import MemoryStore
from tests.unit.site_agent.world import BROKERS, BY, TEMPLATE

NEWER = "calque.event.instance.frozen.v2"


class Answers:
    """The bus, of which these parts need the answers alone."""

    def __init__(self) -> None:
        self.said: list[cmd.Answer] = []

    async def publish(self, subject: str, envelope: Envelope) -> None:
        """An answer."""
        self.said.append(msgspec.json.decode(envelope.data, type=cmd.Answer))


class Idle:
    """A runner that starts nothing."""

    def drive(self, id: str) -> None:
        """Nothing happens."""


class Parts:
    """A journal with its command handler."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.bus = Answers()
        self.restart()

    def restart(self) -> None:
        """The agent anew, on the same stream."""
        self.journal = Journal(cast(EventStore, self.store), site="north")
        self.handler = CommandHandler(
            self.journal, cast(Runner, Idle()), cast(Bus, self.bus), clock=lambda: self.store.now
        )

    async def begin(self) -> Parts:
        for draft in BROKERS:
            self.store.put(NewEvent(draft.aggregate, draft.id, draft.event))
        await self.journal.load()
        return self

    async def send(self, command: cmd.SiteCommand, target: str, *, id: str, **extensions: Any) -> cmd.Answer:
        subject = site_command(
            site="north", principal="admin", aggregate=command.AGGREGATE, id=target, verb=command.VERB
        )
        now = self.store.now
        time = extensions.pop("time", timestamp(now))
        envelope = wrap(command, id=id, source="hub", time=time, replyto="_INBOX.x", **extensions)
        stored_at = extensions.pop("stored_at", now.timestamp())
        await self.handler.handle(Delivery(subject, encode(envelope), 1, 1, stored_at, cast(Bus, self.bus), "ack"))
        return self.bus.said[-1]


DEPLOY = cmd.SiteDeployInstance(by=BY, name="shop", template=TEMPLATE)


def degraded(_: Site) -> list[Draft]:
    return [Draft("instance", "i1", ev.InstanceDegraded(message="m"))]


async def test_a_conflict_is_decided_anew_from_what_the_other_writer_stored() -> None:
    parts = await Parts().begin()
    seen: list[int] = []

    def decide(site: Site) -> list[Draft]:
        seen.append(site.last_sequence)
        return degraded(site)

    def once() -> None:
        parts.store.before = lambda: None
        parts.store.put(NewEvent("instance", "i1", ev.InstanceStopping()))

    parts.store.before = once
    await parts.journal.record(decide)
    assert seen == [5, 6]
    assert [one.event for one in await parts.store.load("instance", "i1")] == [
        ev.InstanceStopping(),
        ev.InstanceDegraded(message="m"),
    ]


async def test_conflicts_without_an_end_are_given_up_for_now_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "CONFLICTS", 3)
    parts = await Parts().begin()
    tries = 0

    def faster() -> None:
        nonlocal tries
        tries += 1
        parts.store.put(NewEvent("instance", "i1", ev.InstanceStopping()))

    parts.store.before = faster
    with pytest.raises(CalqueError, match="another writer to the stream of site north was faster 3 times") as caught:
        await parts.journal.record(degraded)
    assert caught.value.problem.temporary
    assert tries == 3


async def test_a_command_whose_events_can_never_be_stored_is_rejected() -> None:
    """It went to the dead letters, and its sender waited in vain."""
    parts = await Parts().begin()
    parts.store.refuse = [CalqueError(invalid("instance.deploying", "the event has 70000 bytes, more than 65536"))]
    answer = await parts.send(DEPLOY, "i1", id="c1")
    assert (answer.state, answer.problem and answer.problem.field) == ("rejected", "instance.deploying")
    assert (await parts.send(DEPLOY, "i1", id="c1")).problem == answer.problem


async def test_an_aggregate_of_a_newer_agent_is_stopped_and_the_rest_goes_on() -> None:
    parts = await Parts().begin()
    assert (await parts.send(DEPLOY, "i1", id="c1")).state == "accepted"
    parts.store.put_unknown("instance", "i1", type=NEWER)
    parts.store.put(NewEvent("instance", "i1", ev.InstanceRunning(url="u")))
    parts.restart()
    await parts.journal.load()
    site = parts.journal.site
    assert site.instances["i1"].state == "deploying"  # as it was before, whatever came later
    assert site.stopped == {("instance", "i1"): NEWER}
    stop = await parts.send(cmd.SiteStopInstance(by=BY), "i1", id="c2")
    assert stop.state == "rejected"
    assert stop.problem is not None
    assert (stop.problem.code, stop.problem.remedy) == ("unknown_event", "upgrade the agent of site north")
    other = cmd.SiteDeployInstance(by=BY, name="other", template=TEMPLATE)
    assert (await parts.send(other, "i2", id="c3")).state == "accepted"


async def test_nothing_of_an_operation_on_a_stopped_instance_is_performed_or_recorded() -> None:
    parts = await Parts().begin()
    await parts.send(DEPLOY, "i1", id="c1")
    parts.store.put_unknown("instance", "i1", type=NEWER)
    await parts.journal.load()
    performed: list[str] = []

    class Performer:
        async def perform(self, *_: Any) -> dict[str, Any]:
            performed.append("step")
            return {}

        async def undo(self, *_: Any) -> None:
            performed.append("undo")

        async def stop_attempts(self, *_: Any) -> None:
            performed.append("stop")

    runner = Runner(parts.journal, Performer(), clock=lambda: parts.store.now)
    runner.resume()
    await runner.stop()
    assert performed == []
    with pytest.raises(CalqueError, match=r"instance i1 of site north holds .*frozen\.v2"):
        await parts.journal.record(degraded)
    both = [*degraded(parts.journal.site), Draft("site", "north", ev.SiteAnnounced(version="1", seal_key="00"))]
    [stored] = await parts.journal.record(lambda _: both, each=True)
    assert stored.aggregate == "site"


async def test_what_another_wrote_into_the_stream_under_our_name_is_left_out() -> None:
    parts = await Parts().begin()
    envelope = wrap(ev.InstanceDegraded(message="forged"), id="south/1", source="south", time="2026-01-01T00:00:00Z")
    parts.store.stored.append(
        record(sequence=6, subject="calque.evt.north.instance.i1.degraded", payload=encode(envelope))
    )
    await parts.journal.load()
    assert parts.journal.site.stopped == {}
    assert parts.journal.site.last_sequence == 6
    await parts.journal.record(degraded)  # guarded by its sequence all the same
