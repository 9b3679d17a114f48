"""Following a stream: in order, without gaps and repeats, over kills of the server; forged events left out."""

from __future__ import annotations

import asyncio

import pytest

from bus.connection import Bus, BusSettings, Message, Sink, Subscription
from bus.events import EventStore, NewEvent
from bus.feed import EventsFeed
from bus.jetstream import JetStream
from bus.streams import set_up_hub
from schemas.envelope import encode, wrap
from schemas.events import InstanceStopping, SiteJoined, SiteOnline
from schemas.ids import new_id
from tests.integration.bus.conftest import Server, until


async def test_the_feed_goes_on_without_gap_or_repeat_when_the_server_is_killed(server: Server, bus: Bus) -> None:
    await set_up_hub(bus)
    store = EventStore(bus, writer="hub")
    id = new_id()
    last = 0
    written = 0

    async def write(count: int) -> None:
        nonlocal last, written
        for _ in range(count):
            event = NewEvent("membership", id, SiteOnline())
            last = (await store.append([event], expected={("membership", id): last}))[-1].sequence
            written += 1

    follower = await Bus.connect(BusSettings(servers=[server.url], name="follower"))
    feed = EventsFeed(follower)
    seen: list[int] = []
    sources: list[int] = []

    async def follow() -> None:
        async for batch in feed.read():
            seen.extend(one.sequence for one in batch)
            sources.extend(1 for one in batch if one.id == id)

    async def caught_up() -> bool:
        return len(sources) == written

    following = asyncio.create_task(follow())
    await write(50)
    await until(caught_up, what="the first events")
    for _ in range(2):
        writing = asyncio.create_task(write(50))
        server.kill()
        await server.start()
        await writing
        await until(caught_up, what="the events after the kill")
    assert seen == list(range(1, len(seen) + 1))
    assert feed.position == await feed.last_sequence()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await follower.close()


@pytest.mark.parametrize("dropped", [{1}, {5, 6}, {900}])
async def test_messages_that_a_slow_consumer_dropped_are_read_again(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, dropped: set[int]
) -> None:
    await set_up_hub(bus)
    store = EventStore(bus, writer="hub")
    id = new_id()
    start = await EventsFeed(bus).last_sequence()
    await store.append([NewEvent("membership", id, SiteOnline())] * 900, expected={("membership", id): 0})
    feed = EventsFeed(bus)

    async def stored() -> bool:
        return await feed.last_sequence() == start + 900

    await until(stored, what="all events are sourced")
    real = bus.listen
    arrived = 0

    async def listen(subject: str, sink: Sink) -> Subscription:
        def lossy(message: Message) -> None:
            nonlocal arrived
            arrived += 1
            if arrived not in dropped:
                sink(message)

        return await real(subject, lossy)

    monkeypatch.setattr(bus, "listen", listen)
    seen: list[int] = []
    async with asyncio.timeout(60):
        async for batch in feed.read(after=start):
            seen.extend(one.sequence for one in batch)
            if feed.position >= start + 900:
                break
    assert seen == list(range(start + 1, start + 901))
    assert arrived > 900


async def test_events_that_their_writer_may_not_write_are_refused_and_counted(bus: Bus) -> None:
    await set_up_hub(bus)
    store = EventStore(bus, writer="hub")
    feed = EventsFeed(bus)
    start = await feed.last_sequence()
    id = new_id()

    async def put(subject: str, *, source: str, event: SiteJoined | InstanceStopping) -> None:
        envelope = wrap(event, id=new_id(), source=source, time="2030-01-01T00:00:00Z")
        await bus.call(subject, encode(envelope), timeout_seconds=60)

    await put(f"calque.evt.hub.membership.{id}.joined", source="north", event=SiteJoined())
    await put(f"calque.evt.hub.membership.{id}.joined", source="hub", event=InstanceStopping())
    await bus.call(f"calque.evt.hub.membership.{id}.joined", b"\xff\xfe", timeout_seconds=60)
    loaded = await store.load("membership", id)
    assert len(loaded) == 3
    await store.append([NewEvent("membership", id, SiteOnline())], expected={("membership", id): loaded[-1].sequence})
    seen: list[type] = []
    async for batch in feed.read(after=start):
        seen.extend(type(one.event) for one in batch)
        if feed.position >= start + 4:
            break
    assert seen == [SiteOnline]
    assert feed.refused == 3


async def test_readers_leave_no_consumer_behind(bus: Bus) -> None:
    await set_up_hub(bus)
    js = JetStream(bus)

    async def readers() -> int:
        names = (await js.call("CONSUMER.NAMES.EVENTS"))["consumers"] or []
        return sum(name.startswith("reader-") for name in names)

    async def none_left() -> bool:
        return await readers() == 0

    batches = EventsFeed(bus).read()
    await anext(batches)
    assert await readers() >= 1
    await batches.aclose()
    await until(none_left, what="the consumer is gone")
