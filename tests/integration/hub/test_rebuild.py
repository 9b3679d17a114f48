"""``EVENTS`` made anew: the hub knows the same, and whoever keeps a place there misses nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bus.connection import Bus, Message
from bus.jetstream import JetStream
from bus.rebuilding import Rebuilding
from bus.snapshots import Snapshots
from bus.streams import EVENTS
from bus.subscriptions import Places
from hub.projections.dump import dump
from schemas.envelope import decode
from schemas.problems import CalqueError
from tests.integration.hub.conftest import until
from tests.integration.hub.test_snapshots import MORE, Knowing, in_events, knowing, replayed, told_all, write


async def pulled(bus: Bus, consumer: str, count: int, *, acknowledged: bool = True) -> list[str]:
    """The ids of the next events."""
    arrived: list[Message] = []
    inbox = bus.new_inbox()
    listening = await bus.listen(inbox, arrived.append)
    request = b'{"batch":%d,"expires":15000000000}' % count
    await bus.send(f"{JetStream(bus).prefix}.CONSUMER.MSG.NEXT.{EVENTS}.{consumer}", request, reply=inbox)
    await until(lambda: len(arrived) >= count, what=f"{count} events come to {consumer}")
    await listening.drop()
    for message in arrived:
        assert message.reply is not None, message
        if acknowledged:
            await bus.call(message.reply, b"+ACK", timeout_seconds=60)
    return [decode(message.payload).id for message in arrived]


async def ids(bus: Bus) -> list[str]:
    places = Places(bus)
    await places.create("everything", after=0, filters=["calque.evt.>"], notes={"principal": "x"})
    found = await pulled(bus, "everything", await places.last_sequence())
    await places.remove("everything")
    return found


async def test_events_made_anew_mislead_neither_hub_nor_subscribers(bus: Bus) -> None:
    count = await told_all(bus)
    places = Places(bus)
    before_all = await ids(bus)
    notes = {"principal": "billing", "subscription": "bills"}
    await places.create("billing_1", after=0, filters=["calque.evt.>"], notes=notes)
    await places.create("billing_2", after=0, filters=["calque.evt.north.>"], notes=notes)
    await places.create("billing_3", after=count, filters=["calque.evt.>"], notes=notes)
    got = await pulled(bus, "billing_1", 9)
    north = await pulled(bus, "billing_2", 4)
    async with knowing(bus) as one:
        before = one.bytes
        await one.take()

    rebuilding = Rebuilding(bus, run="one")
    await rebuilding.request(id="r", by="alice")
    with pytest.raises(CalqueError, match="already"):
        await rebuilding.request(id="other", by="bob")
    assert await rebuilding.finish()
    state = await rebuilding.state()
    assert state is not None
    assert (state.phase, state.before, state.after) == ("done", count, count)
    assert not await rebuilding.finish()

    async with knowing(bus) as two:
        assert two.bytes == before
        assert (two.snapshots.started_from, two.snapshots.failures) == (0, {"foreign": 1})
    assert sorted(await ids(bus)) == sorted(before_all)
    # each goes on at the first event that it has not acknowledged, of whichever writer
    for consumer, had, filters in (
        ("billing_1", got, ""),
        ("billing_2", north, "north"),
        ("billing_3", before_all, ""),
    ):
        start = state.consumers[consumer]
        left = [each for each in await ids_from(bus, start) if not filters or each in await ids_of(bus, filters)]
        assert set(before_all if not filters else await ids_of(bus, filters)) - set(had) <= set(left), consumer
    assert state.consumers["billing_3"] == count + 1
    await write(bus, "north", MORE)
    assert len(await pulled(bus, "billing_3", len(MORE))) == len(MORE)
    (kept,) = [each for each in await places.all() if each.consumer == "billing_2"]
    assert kept.notes == notes
    rest = await pulled(bus, "billing_2", len(await ids_of(bus, "north")) - len(north))
    assert set(rest) | set(north) == set(await ids_of(bus, "north"))


async def ids_from(bus: Bus, sequence: int) -> list[str]:
    return (await ids(bus))[sequence - 1 :]


async def ids_of(bus: Bus, writer: str) -> set[str]:
    places = Places(bus)
    made = await places.create("of", after=0, filters=[f"calque.evt.{writer}.>"], notes={"principal": "x"})
    assert made is not None
    found = await pulled(bus, "of", int(made.info["num_pending"]))
    await places.remove("of")
    return set(found)


async def test_a_hub_that_was_killed_in_the_middle_goes_on(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every point where it says how far it is."""
    count = await told_all(bus)
    await Snapshots(bus).open()
    wanted = await replayed(bus)
    places = Places(bus)
    await places.create("billing_1", after=5, filters=["calque.evt.>"], notes={"principal": "billing"})
    for steps in range(1, 5):
        one = Rebuilding(bus, run=f"one-{steps}")
        await one.request(id=f"r{steps}", by="alice")
        left = steps
        original = one._js.call

        async def call(operation: str, request: Any = None, *, timeout_seconds: float = 5.0) -> dict[str, Any]:
            nonlocal left
            if operation.startswith(("STREAM.DELETE", "STREAM.CREATE", "STREAM.UPDATE", "CONSUMER.DELETE")):
                left -= 1
                if left == 0:
                    raise asyncio.CancelledError
            return await original(operation, request, timeout_seconds=timeout_seconds)  # noqa: B023 - called at once

        monkeypatch.setattr(one._js, "call", call)
        with pytest.raises(asyncio.CancelledError):
            await one.finish()
        monkeypatch.setattr("bus.rebuilding.STALE_SECONDS", 0.5)
        other = Rebuilding(bus, run=f"two-{steps}")
        assert await other.finish()
        state = await other.state()
        assert state is not None
        assert (state.phase, state.after) == ("done", count)
        assert "billing_1" in state.consumers
        assert await replayed(bus) == wanted


@pytest.mark.parametrize(
    "payload", [b'{"x":' * 5000 + b"1" + b"}" * 5000, b"\xff\xfe", b'{"id":'], ids=["deep", "bytes", "cut"]
)
async def test_an_event_that_nobody_can_read_does_not_stop_it(bus: Bus, payload: bytes) -> None:
    count = await told_all(bus)
    await JetStream(bus).publish("calque.evt.north.copy.odd.prepared", payload, headers={})
    await in_events(bus, count + 1)
    await Snapshots(bus).open()
    places = Places(bus)
    await places.create("late_1", after=count, filters=["calque.evt.>"], notes={"principal": "x"})
    rebuilding = Rebuilding(bus, run="one")
    await rebuilding.request(id="r", by="alice")
    assert await rebuilding.finish()
    state = await rebuilding.state()
    assert state is not None
    assert (state.phase, state.after) == ("done", count + 1)


async def test_two_hubs_do_it_once(bus: Bus) -> None:
    await told_all(bus)
    await Snapshots(bus).open()
    wanted = await replayed(bus)
    await Rebuilding(bus, run="a").request(id="r", by="alice")
    await asyncio.gather(*(Rebuilding(bus, run=run).finish() for run in "abc"))
    assert await replayed(bus) == wanted


async def test_a_hub_that_runs_meanwhile_notices(bus: Bus) -> None:
    count = await told_all(bus)
    one = Knowing(bus)
    await one.store.open()
    reading = asyncio.create_task(one.projector.run())
    await one.projector.caught_up(timeout_seconds=60)
    rebuilding = Rebuilding(bus, run="other")
    await rebuilding.request(id="r", by="alice")
    await rebuilding.finish()
    await in_events(bus, count)
    with pytest.raises(Exception, match="not the stream"):
        await asyncio.wait_for(reading, 60)
    assert dump(one.projector.state) == await replayed(bus)
