"""Snapshots: they save time, and whatever is wrong with them changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import bus.pieces as bus_pieces
from bus.connection import Bus
from bus.feed import EventsFeed
from bus.jetstream import JetStream
from bus.snapshots import MANIFEST, STREAM, Contended, Manifest, Snapshots
from bus.streams import EVENTS
from hub.application.projector import Projector
from hub.application.snapshots import Policy, Snapshotter
from hub.projections.dump import dump, load_pieces
from hub.projections.moving import MovingDump
from schemas import events as ev
from schemas.envelope import encode, timestamp, wrap
from schemas.ids import new_id
from schemas.subjects import event as event_subject
from schemas.subjects import snapshot
from tests.integration.hub.conftest import SITES, Client, HubProcess, Server, until
from tests.integration.hub.fakes import FakeSite
from tests.unit.hub.scenes import HUB, NORTH, SOUTH, Told


class Knowing:
    """The projections as a hub keeps them, without the rest of a hub."""

    def __init__(self, connection: Bus, **settings: Any) -> None:
        self.store = Snapshots(connection)
        self.snapshots = Snapshotter(
            self.store, JetStream(connection), name="test", clock=lambda: datetime.now(UTC), **settings
        )
        self.projector = Projector(EventsFeed(connection), start=self.snapshots.start)

    async def take(self) -> Manifest:
        return await self.snapshots.take(self.projector)

    @property
    def bytes(self) -> bytes:
        return dump(self.projector.state)


@contextlib.asynccontextmanager
async def knowing(connection: Bus, **settings: Any) -> AsyncIterator[Knowing]:
    """Started as a hub starts, and caught up."""
    one = Knowing(connection, **settings)
    await one.store.open()
    reading = asyncio.create_task(one.projector.run())
    try:
        await one.projector.caught_up(timeout_seconds=60)
        yield one
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def write(connection: Bus, writer: str, told: Sequence[Told]) -> None:
    js = JetStream(connection)
    for aggregate, id, event in told:
        envelope = wrap(event, id=new_id(), source=writer, time=timestamp(datetime.now(UTC)), causationid=new_id())
        subject = event_subject(writer=writer, aggregate=aggregate, id=id, event=event.EVENT)
        await js.publish(subject, encode(envelope), headers={})


async def in_events(connection: Bus, count: int) -> None:
    async def there() -> bool:
        return await JetStream(connection).last_sequence(EVENTS) >= count

    await until(there, what=f"{count} events are in {EVENTS}")


async def told_all(connection: Bus) -> int:
    for writer, told in (("north", NORTH), ("hub", HUB), ("south", SOUTH)):
        await write(connection, writer, told)
    count = len(NORTH) + len(HUB) + len(SOUTH)
    await in_events(connection, count)
    return count


async def replayed(connection: Bus) -> bytes:
    """What the events make, snapshots aside."""
    projector = Projector(EventsFeed(connection))
    reading = asyncio.create_task(projector.run())
    try:
        await projector.caught_up(timeout_seconds=60)
        return dump(projector.state)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


MORE: list[Told] = [
    ("instance", "i1", ev.InstanceStopping()),
    ("instance", "i1", ev.InstanceStopped()),
    ("instance", "i9", ev.ServiceDeployed(service="web", broker="process")),
]


async def test_a_start_from_a_snapshot_and_the_tail_is_a_start_from_zero(bus: Bus) -> None:
    count = await told_all(bus)
    async with knowing(bus) as first:
        manifest = await first.take()
        assert (manifest.mark.sequence, sum(manifest.taken.values())) == (count, count)
        assert manifest.taken == {"north": len(NORTH), "hub": len(HUB), "south": len(SOUTH)}
    await write(bus, "north", MORE)
    await in_events(bus, count + len(MORE))
    async with knowing(bus) as again:
        assert again.snapshots.started_from == count
        assert again.projector.state.position == count + len(MORE)
        assert again.bytes == await replayed(bus)
        assert not again.snapshots.failures
        await again.take()
    # nothing new since: what was loaded is written again, the same
    async with knowing(bus) as third:
        manifest = await third.take()
        assert third.bytes == await replayed(bus)
        assert manifest.mark.sequence == count + len(MORE)
    await JetStream(bus).call(f"STREAM.PURGE.{STREAM}")
    async with knowing(bus) as fresh:
        assert fresh.snapshots.started_from == 0
        assert fresh.bytes == await replayed(bus)


async def test_events_are_taken_in_while_a_snapshot_is_written(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    count = await told_all(bus)
    taken_in = threading.Event()
    write_rows = MovingDump.write

    def write_slowly(dumping: MovingDump) -> None:
        write_rows(dumping)
        assert taken_in.wait(60), "nothing was taken in meanwhile"

    async with knowing(bus) as one:
        monkeypatch.setattr(MovingDump, "write", write_slowly)
        taking = asyncio.create_task(one.take())
        await write(bus, "north", MORE)
        await in_events(bus, count + len(MORE))
        await one.projector.caught_up(timeout_seconds=60)
        taken_in.set()
        manifest = await taking
        assert manifest.mark.sequence == count + len(MORE)
    async with knowing(bus) as two:
        assert two.snapshots.started_from == count + len(MORE)
        assert two.bytes == await replayed(bus)


async def flip(connection: Bus, subject: str) -> None:
    js = JetStream(connection)
    message = await connection.call(f"{js.prefix}.DIRECT.GET.{STREAM}.{subject}", b"", timeout_seconds=60)
    payload = bytearray(message.payload)
    payload[len(payload) // 2] ^= 1
    await js.publish(subject, bytes(payload), headers={})


async def lose(connection: Bus, subject: str) -> None:
    await JetStream(connection).call(f"STREAM.PURGE.{STREAM}", {"filter": subject})


DAMAGE: dict[str, tuple[str, Callable[[Bus, int], Awaitable[None]]]] = {
    "a part is missing": ("torn", lambda one, n: lose(one, snapshot(n, "1"))),
    "the last part is missing": ("torn", lambda one, n: lose(one, snapshot(n, "2"))),
    "no manifest": ("torn", lambda one, n: lose(one, snapshot(n, MANIFEST))),
    "a flipped bit": ("corrupt", lambda one, n: flip(one, snapshot(n, "1"))),
    "a flipped bit of the manifest": ("corrupt", lambda one, n: flip(one, snapshot(n, MANIFEST))),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_what_is_damaged_is_passed_over(bus: Bus, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(bus_pieces, "PART_BYTES", 500)
    reason, do = DAMAGE[damage]
    count = await told_all(bus)
    async with knowing(bus) as one:
        older = await one.take()
        await write(bus, "north", MORE)
        await in_events(bus, count + len(MORE))
        await one.projector.caught_up(timeout_seconds=60)
        newer = await one.take()
    wanted = await replayed(bus)
    await do(bus, newer.generation)
    async with knowing(bus) as two:
        assert two.snapshots.started_from == older.mark.sequence
        assert two.snapshots.failures == {reason: 1}
        assert two.bytes == wanted
        conditions = {each.found.generation: each.reason for each in await two.snapshots.checked()}
        assert conditions == {newer.generation: reason, older.generation: ""}
    await do(bus, older.generation)
    async with knowing(bus) as three:
        assert three.snapshots.started_from == 0
        assert three.snapshots.failures == {reason: 2}
        assert three.bytes == wanted
        sound = await three.take()
        # what is damaged does not stay
        assert [each.found.generation for each in await three.snapshots.checked()] == [sound.generation]


async def test_what_other_code_made_is_passed_over(bus: Bus) -> None:
    await told_all(bus)
    async with knowing(bus, make="older") as one:
        await one.take()
    async with knowing(bus, make="newer") as two:
        assert (two.snapshots.started_from, two.snapshots.failures) == (0, {"other_make": 1})
        assert two.bytes == await replayed(bus)


async def rebuilt(connection: Bus, *, first: str) -> None:
    """``EVENTS`` made anew: one writer's events before all others', so every sequence means something else."""
    js = JetStream(connection)
    info = await js.call(f"STREAM.INFO.{EVENTS}")
    sources = info["config"].pop("sources")
    count = info["state"]["messages"]
    await js.call(f"STREAM.DELETE.{EVENTS}")
    early = [source for source in sources if source["name"] == first]
    await js.call(f"STREAM.CREATE.{EVENTS}", {**info["config"], "sources": early})
    alone = (await js.call(f"STREAM.INFO.{first}"))["state"]["messages"]
    await in_events(connection, alone)
    config = (await js.call(f"STREAM.INFO.{EVENTS}"))["config"]
    await js.call(f"STREAM.UPDATE.{EVENTS}", {**config, "sources": sources})
    await in_events(connection, count)


async def test_a_snapshot_of_an_events_that_was_rebuilt_does_not_mislead(bus: Bus) -> None:
    await told_all(bus)
    async with knowing(bus) as one:
        before = one.bytes
        await one.take()
    await rebuilt(bus, first="EVT_south")
    async with knowing(bus) as two:
        assert (two.snapshots.started_from, two.snapshots.failures) == (0, {"foreign": 1})
        assert two.bytes == before == await replayed(bus)
        manifest = await two.take()
        assert [each.found.generation for each in await two.snapshots.checked()] == [manifest.generation]


async def test_a_hub_whose_events_are_replaced_writes_no_snapshot_of_what_it_knew(bus: Bus) -> None:
    await told_all(bus)
    async with knowing(bus) as one:
        await rebuilt(bus, first="EVT_south")
        with pytest.raises(Exception, match="not the stream that was read"):
            await one.take()
        assert await one.store.all() == []


async def test_a_snapshot_of_events_that_are_not_there_is_passed_over(bus: Bus) -> None:
    """``EVENTS`` came back from an older backup."""
    count = await told_all(bus)
    async with knowing(bus) as one:
        await one.take()
        (found,) = await one.store.all()
        assert found.manifest is not None
        ahead = msgspec.structs.replace(found.manifest.mark, sequence=count + 1)
        packed = bus_pieces.pack([])
        await one.store.write(packed, make=found.manifest.make, by="x", written_at="", taken={}, mark=ahead)
    async with knowing(bus) as two:
        assert (two.snapshots.started_from, two.snapshots.failures) == (count, {"ahead": 1})
        assert two.bytes == await replayed(bus)


async def test_the_newest_three_stay(bus: Bus) -> None:
    await told_all(bus)
    async with knowing(bus) as one:
        written = [await one.take() for _ in range(5)]
        assert [each.found.generation for each in await one.snapshots.checked()] == [
            each.generation for each in reversed(written[-3:])
        ]


async def test_several_that_write_at_once_do_no_harm(bus: Bus) -> None:
    count = await told_all(bus)
    async with contextlib.AsyncExitStack() as stack:
        hubs = [await stack.enter_async_context(knowing(bus, policy=Policy(keep=2))) for _ in range(3)]
        outcomes = await asyncio.gather(*(each.take() for each in hubs for _ in range(3)), return_exceptions=True)
        assert all(isinstance(each, (Manifest, Contended)) for each in outcomes)
        await hubs[0].take()
        conditions = await hubs[0].snapshots.checked()
        assert [each.reason for each in conditions] == ["", ""]
    async with knowing(bus) as again:
        assert again.snapshots.started_from == count
        assert again.bytes == await replayed(bus)


async def test_a_hub_writes_snapshots_by_itself_and_starts_from_them(
    nats: Server, bus: Bus, sites: dict[str, FakeSite], client: Client, tmp_path: Path
) -> None:
    settings = {"sites": list(SITES), "snapshots": {"events": 5}}
    one = HubProcess(nats, tmp_path / "one", **settings)
    try:
        await one.wait_ready()
        await client.apply()
        await client.save(await client.deploy())
        store = Snapshots(bus)

        async def written() -> bool:
            return any(each.manifest is not None for each in await store.all())

        await until(written, what=f"a snapshot is written; see {one.log.read_text()}")
        before = (await client.images(), await client.app("shop"))
    finally:
        one.kill()
    two = HubProcess(nats, tmp_path / "two", **settings)
    try:
        await two.wait_ready()
        assert "start from snapshot" in two.log.read_text()
        assert (await client.images(), await client.app("shop")) == before
        (newest, *_) = await store.all()
        assert newest.manifest is not None
        state = load_pieces(await store.pieces(newest.manifest))
        assert [row.state.entered.name for row in state.images.entries.values()] == ["golden"]
    finally:
        two.kill()
