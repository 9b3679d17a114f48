"""The event store: guarded appends, all or nothing, found again after a lost acknowledgement; load and replay."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from bus.connection import Bus, BusSettings, Message
from bus.errors import timed_out
from bus.events import MAX_BATCH, Conflict, EventStore, NewEvent, UnknownEvent
from bus.jetstream import JetStream
from bus.streams import set_up_site
from schemas.envelope import MAX_EVENT_BYTES, encode, wrap
from schemas.events import CopyPrepared, CopyPreparing, InstanceDegraded, InstanceStarting, InstanceStopping
from schemas.ids import new_id
from schemas.problems import CalqueError
from tests.integration.bus.conftest import Server


def stopping(id: str) -> NewEvent:
    return NewEvent("instance", id, InstanceStopping())


def starting(id: str) -> NewEvent:
    return NewEvent("instance", id, InstanceStarting(), operation="op-1", causation="c-1")


@pytest.fixture
async def store(bus: Bus) -> EventStore:
    await set_up_site(bus, site="north")
    return EventStore(bus, writer="north")


async def test_what_was_appended_is_loaded_in_order(store: EventStore) -> None:
    id = new_id()
    assert await store.load("instance", id) == []
    first = await store.append([stopping(id)], expected={("instance", id): 0})
    more = await store.append(
        [starting(id), stopping(id), starting(id)], expected={("instance", id): first[-1].sequence}
    )
    loaded = await store.load("instance", id)
    assert loaded == [*first, *more]
    assert [type(one.event) for one in loaded] == [
        InstanceStopping,
        InstanceStarting,
        InstanceStopping,
        InstanceStarting,
    ]
    envelope = loaded[1].envelope
    assert envelope.source == "north"
    assert envelope.id.startswith("north/")
    assert (envelope.operationid, envelope.causationid) == ("op-1", "c-1")
    assert await store.load("instance", id, after=first[-1].sequence) == more


@pytest.mark.parametrize("id", ["a b", "x" * 1000, ""])
async def test_an_id_that_nothing_can_have_is_refused(store: EventStore, id: str) -> None:
    with pytest.raises(CalqueError, match="id") as refused:
        await store.append([stopping(id)], expected={("instance", id): 0})
    assert not refused.value.problem.temporary
    with pytest.raises(CalqueError, match="id"):
        await store.load("instance", id)


async def test_a_stale_append_is_a_conflict_and_stores_nothing(store: EventStore) -> None:
    one, other = new_id(), new_id()
    first = await store.append([stopping(one)], expected={("instance", one): 0})
    with pytest.raises(Conflict, match=one):
        await store.append([starting(one)], expected={("instance", one): 0})
    # A batch whose second aggregate is stale stores nothing of its first either.
    with pytest.raises(Conflict):
        await store.append([stopping(other), starting(one)], expected={("instance", other): 0, ("instance", one): 0})
    assert await store.load("instance", other) == []
    assert await store.load("instance", one) == first


async def test_of_writers_at_once_one_wins(store: EventStore) -> None:
    id = new_id()

    async def write() -> bool:
        try:
            await store.append([stopping(id), starting(id)], expected={("instance", id): 0})
        except Conflict:
            return False
        return True

    assert sum(await asyncio.gather(*(write() for _ in range(20)))) == 1
    assert len(await store.load("instance", id)) == 2


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("stored", [True, False])
async def test_a_lost_acknowledgement_is_cleared_up(
    bus: Bus, store: EventStore, monkeypatch: pytest.MonkeyPatch, count: int, stored: bool
) -> None:
    """Whether the events were stored before the acknowledgement was lost or not: they are stored once."""
    id = new_id()
    real = bus.call
    lost = 0

    async def call(
        subject: str, payload: bytes, *, timeout_seconds: float, headers: Mapping[str, str] | None = None
    ) -> Message:
        nonlocal lost
        if subject.startswith("calque.evt.") and not lost:
            lost += 1
            if stored:
                await real(subject, payload, timeout_seconds=timeout_seconds, headers=headers)
            raise timed_out(subject, seconds=timeout_seconds)
        return await real(subject, payload, timeout_seconds=timeout_seconds, headers=headers)

    monkeypatch.setattr(bus, "call", call)
    recorded = await store.append([stopping(id)] * count, expected={("instance", id): 0})
    assert lost == 1
    assert await store.load("instance", id) == recorded
    assert len(recorded) == count


@pytest.mark.parametrize("count", [1, 3])
async def test_a_retry_that_comes_after_its_own_first_try_is_no_conflict(
    bus: Bus, store: EventStore, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """A request that timed out lies in a buffer and is stored only when the retry is already under way."""
    id = new_id()
    real = bus.call
    calls = 0

    async def call(
        subject: str, payload: bytes, *, timeout_seconds: float, headers: Mapping[str, str] | None = None
    ) -> Message:
        nonlocal calls
        if subject.startswith("calque.evt."):
            calls += 1
            if calls == 1:
                await real(subject, payload, timeout_seconds=timeout_seconds, headers=headers)
        return await real(subject, payload, timeout_seconds=timeout_seconds, headers=headers)

    monkeypatch.setattr(bus, "call", call)
    recorded = await store.append([stopping(id)] * count, expected={("instance", id): 0})
    assert await store.load("instance", id) == recorded


async def test_a_batch_that_broke_off_is_stored_whole_or_not_at_all(
    bus: Bus, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message of a batch is lost on its way: the server takes none of it, and all of it when it comes again."""
    one, other = new_id(), new_id()
    real = bus.send
    lost: list[str] = []

    async def send(subject: str, payload: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        if headers is not None and headers.get("Nats-Batch-Sequence") == "2" and not lost:
            lost.append(subject)
            assert await store.load("instance", one) == []  # the first of them is with the server, and not stored
            return
        await real(subject, payload, reply=reply, headers=headers)

    monkeypatch.setattr(bus, "send", send)
    events = [stopping(one), starting(one), stopping(other), starting(other)]
    recorded = await store.append(events, expected={("instance", one): 0, ("instance", other): 0})
    assert len(lost) == 1
    assert [each.id for each in recorded] == [one, one, other, other]
    assert [each.sequence for each in recorded] == sorted({each.sequence for each in recorded})
    assert await store.load("instance", one) == recorded[:2]
    assert await store.load("instance", other) == recorded[2:]


async def test_a_decision_of_more_events_than_a_batch_holds_is_refused_and_the_largest_is_stored(
    store: EventStore,
) -> None:
    id = new_id()
    with pytest.raises(CalqueError, match=f"{MAX_BATCH + 1} events in one append exceed {MAX_BATCH}") as caught:
        await store.append([stopping(id)] * (MAX_BATCH + 1), expected={("instance", id): 0})
    assert not caught.value.problem.temporary
    assert await store.load("instance", id) == []
    assert len(await store.append([stopping(id)] * MAX_BATCH, expected={("instance", id): 0})) == MAX_BATCH


async def test_an_event_too_big_is_refused_before_anything_is_sent(store: EventStore) -> None:
    id = new_id()
    big = NewEvent("instance", id, InstanceDegraded(message="x" * MAX_EVENT_BYTES))
    with pytest.raises(CalqueError, match=r"instance\.degraded has \d+ bytes, more than the 65536"):
        await store.append([stopping(id), big], expected={("instance", id): 0})
    assert await store.load("instance", id) == []


async def test_an_append_names_its_aggregates(store: EventStore) -> None:
    with pytest.raises(ValueError, match="expected sequence"):
        await store.append([stopping("a")], expected={})
    with pytest.raises(ValueError, match="is an event of copy"):
        await store.append(
            [NewEvent("instance", "a", CopyPrepared(moment="m", level="crash"))], expected={("instance", "a"): 0}
        )


async def test_an_aggregate_is_not_mixed_up_with_its_neighbours(store: EventStore) -> None:
    id = new_id()
    await store.append([stopping(id + "x")], expected={("instance", id + "x"): 0})
    copy = CopyPreparing(instance="i", data_service="d", image="m", broker="b")
    await store.append([NewEvent("copy", id, copy)], expected={("copy", id): 0})
    assert await store.load("instance", id) == []
    await store.append([stopping(id)], expected={("instance", id): 0})
    assert len(await store.load("instance", id)) == 1


async def test_unknown_events_are_kept_raw_and_count_for_the_guard(bus: Bus, store: EventStore) -> None:
    id = new_id()
    newer = wrap(InstanceStopping(), id=f"north/{new_id()}", source="north", time="2030-01-01T00:00:00Z")
    payload = encode(newer).replace(b"calque.event.instance.stopping.v1", b"calque.event.instance.frozen.v2")
    subject = f"calque.evt.north.instance.{id}.frozen"
    await bus.call(subject, payload, timeout_seconds=60)
    await bus.call(subject, b"no envelope", timeout_seconds=60, headers={"Status": "404"})
    loaded = await store.load("instance", id)
    assert [type(one.event) for one in loaded] == [UnknownEvent, UnknownEvent]
    assert loaded[0].event == UnknownEvent("calque.event.instance.frozen.v2", b"{}")
    assert loaded[0].refused is None
    assert loaded[1].refused is not None
    await store.append([stopping(id)], expected={("instance", id): loaded[-1].sequence})


async def test_a_long_aggregate_is_loaded_whole(store: EventStore) -> None:
    id = new_id()
    last = 0
    for _ in range(3):
        last = (await store.append([stopping(id)] * 800, expected={("instance", id): last}))[-1].sequence
    loaded = await store.load("instance", id)
    assert len(loaded) == 2400
    assert [one.sequence for one in loaded] == sorted({one.sequence for one in loaded})


async def test_replay_gives_the_whole_stream_up_to_its_present_end(bus: Bus, store: EventStore) -> None:
    id = new_id()
    await store.append([stopping(id)] * 1000, expected={("instance", id): 0})
    last = await JetStream(bus).last_sequence("EVT_north")
    replayed = [one.sequence async for batch in store.replay() for one in batch]
    assert replayed == list(range(1, last + 1))
    tail = [one.sequence async for batch in store.replay(after=last - 10) for one in batch]
    assert tail == list(range(last - 9, last + 1))
    assert [batch async for batch in store.replay(after=last)] == []


async def test_a_full_outbox_refuses_and_says_so(bus: Bus, store: EventStore) -> None:
    js = JetStream(bus)
    info = await js.stream("EVT_north")
    assert info is not None
    await js.call("STREAM.UPDATE.EVT_north", {**info["config"], "max_bytes": info["state"]["bytes"] + 10})
    id = new_id()
    try:
        for count in (1, 3):
            with pytest.raises(CalqueError) as caught:
                await store.append([stopping(id)] * count, expected={("instance", id): 0})
            assert caught.value.problem.code == "stream_full"
            assert caught.value.problem.temporary
    finally:
        await js.call("STREAM.UPDATE.EVT_north", info["config"])
    assert await store.load("instance", id) == []


async def test_appends_go_through_a_killed_server(server: Server) -> None:
    """kill -9 in the middle of appends: each one either stored once or told as unknown, none twice."""
    bus = await Bus.connect(BusSettings(servers=[server.url], name="appender"))
    await set_up_site(bus, site="north")
    store = EventStore(bus, writer="north")
    ids = [new_id() for _ in range(200)]
    stored = asyncio.Event()

    async def write(id: str) -> None:
        recorded = await store.append([stopping(id), starting(id)], expected={("instance", id): 0})
        assert len(recorded) == 2
        stored.set()

    async def write_all() -> None:
        for at in range(0, len(ids), 10):
            await asyncio.gather(*(write(id) for id in ids[at : at + 10]))

    writing = asyncio.create_task(write_all())
    await stored.wait()
    server.kill()
    await server.start()
    await writing
    for id in ids:
        assert len(await store.load("instance", id)) == 2
    await bus.close()
