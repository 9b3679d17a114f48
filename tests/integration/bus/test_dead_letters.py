"""Dead letters on a real server: kept once, described, tried again with one effect, thrown away, never in the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest_asyncio

from bus.advisories import Advisories
from bus.connection import Bus
from bus.dlq import SETTINGS, DeadLetters, Unhandled
from bus.jetstream import NANOSECONDS, JetStream
from bus.letters import LetterBox
from bus.streams import ADVISORIES, EVENTS, JOBS, JOBS_CONSUMER, LETTERS_CONSUMER, SAGAS_CONSUMER, set_up_hub
from bus.work import Delivery, WorkQueue, enqueue
from schemas.commands import StopInstance
from schemas.envelope import Envelope, decode, encode, unwrap, wrap
from schemas.ids import new_id
from schemas.letters import LetterFilter, LetterView, WholeLetter
from schemas.problems import CalqueError, not_found
from schemas.subjects import hub_command
from tests.integration.bus.conftest import until

SUBJECT = hub_command(principal="admin", aggregate="instance", id="i1", verb="stop")
Handler = Callable[[Delivery], Awaitable[None]]


def command(id: str | None = None) -> Envelope:
    return wrap(StopInstance(), id=id or new_id(), source="admin", time="2030-01-01T00:00:00Z")


@pytest_asyncio.fixture(loop_scope="session")
async def box(bus: Bus) -> AsyncIterator[LetterBox]:
    await set_up_hub(bus)
    for stream in (JOBS, "DLQ", ADVISORIES):
        await JetStream(bus).call(f"STREAM.PURGE.{stream}")
    yield LetterBox(bus, place="hub", sent_again=(JOBS,), into=JOBS)
    await JetStream(bus).call("STREAM.UPDATE.DLQ", SETTINGS)


@contextlib.asynccontextmanager
async def working(
    bus: Bus, handler: Handler, *, stream: str = JOBS, consumer: str = JOBS_CONSUMER
) -> AsyncIterator[None]:
    queue = WorkQueue(bus, stream=stream, consumer=consumer, max_deliveries=3)
    task = asyncio.create_task(queue.run(handler))
    try:
        yield
    finally:
        await queue.stop()
        await task


async def letters(box: LetterBox, *, count: int) -> list[LetterView]:
    found: list[LetterView] = []

    async def there() -> bool:
        found[:] = (await box.list(LetterFilter())).letters
        return len(found) == count

    await until(there, what=f"{count} dead letters")
    return found


class Handled:
    """Refuses what it is told to refuse, has each command's effect once, as every handler must."""

    def __init__(self, *refused: str) -> None:
        self.refused = set(refused)
        self.reason = "no such instance"
        self.came: list[str] = []
        self.effects: list[str] = []

    async def __call__(self, delivery: Delivery) -> None:
        id = decode(delivery.payload).id
        self.came.append(id)
        if id in self.refused:
            raise CalqueError(not_found("instance", self.reason))
        if id not in self.effects:
            self.effects.append(id)


async def test_a_letter_says_what_why_where_when_and_how_often(bus: Bus, box: LetterBox) -> None:
    envelope = command()
    async with working(bus, Handled(envelope.id)):
        sequence = await enqueue(bus, SUBJECT, envelope)
        (letter,) = await letters(box, count=1)
    assert (letter.site, letter.stream, letter.consumer, letter.sequence) == ("hub", JOBS, JOBS_CONSUMER, sequence)
    assert (letter.code, letter.subject, letter.message) == ("not_found", SUBJECT, envelope.id)
    assert letter.type == "calque.command.hub.instance.stop.v1"
    assert (letter.times, letter.delivered, letter.cut) == (1, 1, False)
    assert "no such instance" in letter.reason
    assert letter.first_at == letter.at > "2026"
    whole = await box.whole(letter.id)
    arrived = unwrap(decode(encode(wrap(whole, id="a", source="hub", time="2030-01-01T00:00:00Z"))), WholeLetter)
    assert decode(bytes(arrived.envelope)).id == envelope.id
    assert whole.fault == ""


async def test_a_letter_that_is_tried_again_has_its_one_effect_and_is_gone(bus: Bus, box: LetterBox) -> None:
    envelope = command()
    handled = Handled(envelope.id)
    async with working(bus, handled):
        await enqueue(bus, SUBJECT, envelope)
        (letter,) = await letters(box, count=1)
        handled.refused.clear()
        # Within the window in which the stream drops what has an id that it saw.
        (outcome,) = (await box.retry([letter.id])).outcomes
        assert outcome.state == "sent", outcome

        async def had_effect() -> bool:
            return handled.effects == [envelope.id]

        await until(had_effect, what="the command had its effect")
        await letters(box, count=0)
        (outcome,) = (await box.retry([letter.id])).outcomes
        assert (outcome.state, outcome.problem and outcome.problem.code) == ("kept", "not_found")
    assert handled.came == [envelope.id] * 2


async def test_what_fails_again_is_the_same_letter_with_the_new_reason(bus: Bus, box: LetterBox) -> None:
    envelope = command()
    handled = Handled(envelope.id)
    async with working(bus, handled):
        await enqueue(bus, SUBJECT, envelope)
        (first,) = await letters(box, count=1)
        handled.reason = "still none"
        await box.retry([first.id])

        async def back() -> bool:
            found = (await box.list(LetterFilter())).letters
            return len(found) == 1 and "still none" in found[0].reason

        await until(back, what="the letter is back")
    (letter,) = (await box.list(LetterFilter())).letters
    assert (letter.id, letter.times, letter.first_at) == (first.id, 2, first.first_at)
    assert letter.sequence > first.sequence


async def test_a_repeated_delivery_of_a_letter_is_not_counted_twice(bus: Bus, box: LetterBox) -> None:
    kept = DeadLetters(bus, place="hub")
    failure = Unhandled(JOBS, JOBS_CONSUMER, 7, SUBJECT, b"{}", "invalid", "no id")
    await kept.bury(failure)
    await kept.bury(failure._replace(delivered=2))
    assert [letter.times for letter in await letters(box, count=1)] == [1]
    await kept.bury(failure._replace(sequence=8))
    assert [letter.times for letter in await letters(box, count=1)] == [2]


async def test_an_event_is_handed_to_its_handler_again(bus: Bus, box: LetterBox) -> None:
    taken: list[int] = []
    broken = True

    async def handler(delivery: Delivery) -> None:
        if broken:
            raise RuntimeError("not yet")
        taken.append(delivery.sequence)

    hub = LetterBox(bus, place="hub", sent_again=(JOBS,), into=JOBS, handlers={(EVENTS, SAGAS_CONSUMER): handler})
    await DeadLetters(bus, place="hub").bury(
        Unhandled(EVENTS, SAGAS_CONSUMER, 12, "calque.evt.hub.claim.c.taken", b"{}", "internal", "a bug")
    )
    (letter,) = await letters(box, count=1)
    (outcome,) = (await hub.retry([letter.id])).outcomes
    assert outcome.state == "kept"
    (letter,) = await letters(box, count=1)
    assert (letter.times, letter.reason.partition(";")[0]) == (2, "RuntimeError: not yet")
    broken = False
    (outcome,) = (await hub.retry([letter.id])).outcomes
    assert (outcome.state, taken) == ("handled", [12])
    await letters(box, count=0)


async def test_hostile_bytes_are_shown_escaped_and_can_be_thrown_away(bus: Bus, box: LetterBox) -> None:
    payload = b"\xff\x00{\r\nNats-Sequence: 9\r\n"
    await DeadLetters(bus, place="hub").bury(
        Unhandled(
            JOBS,
            JOBS_CONSUMER,
            1,
            "calque.cmd.hub.admin.\N{SNOWMAN}.x.y",
            payload,
            "invalid",
            "line\r\nbreak \N{SNOWMAN}",
        )
    )
    (letter,) = await letters(box, count=1)
    assert letter.reason == "line break \N{SNOWMAN}"
    assert letter.subject.endswith("\N{SNOWMAN}.x.y")
    whole = await box.whole(letter.id)
    assert bytes(whole.envelope) == b"null"
    assert whole.text.startswith("\\xff\x00{")
    assert "not a CloudEvents" in whole.fault
    (outcome,) = (await box.discard([letter.id])).outcomes
    assert outcome.state == "discarded"
    await letters(box, count=0)


async def test_a_full_store_of_letters_drops_the_oldest_and_stops_nothing(bus: Bus, box: LetterBox) -> None:
    await JetStream(bus).call("STREAM.UPDATE.DLQ", {**SETTINGS, "max_bytes": 20_000})
    good = command()
    handled = Handled()

    async def refuses(delivery: Delivery) -> None:
        if delivery.subject == SUBJECT:
            return await handled(delivery)
        raise CalqueError(not_found("instance", "x" * 400))

    other = hub_command(principal="admin", aggregate="instance", id="i2", verb="stop")
    async with working(bus, refuses):
        for _ in range(60):
            await enqueue(bus, other, command())
        await enqueue(bus, SUBJECT, good)

        async def empty() -> bool:
            info = await JetStream(bus).stream(JOBS)
            return info is not None and info["state"]["messages"] == 0

        await until(empty, what="the queue is empty")
    assert handled.effects == [good.id]
    left = (await box.list(LetterFilter())).letters
    assert 5 < len(left) < 60
    sequences = [letter.sequence for letter in left]
    assert max(sequences) - min(sequences) == len(left) - 1, "the newest are kept"


async def test_what_a_server_gives_up_becomes_a_letter(bus: Bus, box: LetterBox) -> None:
    js = JetStream(bus)
    name = f"T{new_id()}"
    await js.call(
        f"STREAM.CREATE.{name}",
        {"name": name, "subjects": [f"test.{name}"], "retention": "workqueue", "storage": "memory"},
    )
    config = {"durable_name": "c", "ack_policy": "explicit", "max_deliver": 1, "ack_wait": NANOSECONDS // 10}
    await js.call(f"CONSUMER.DURABLE.CREATE.{name}.c", {"stream_name": name, "config": config})
    await js.publish(f"test.{name}", b"nobody acknowledges", headers={})
    queue = WorkQueue(bus, stream=name, consumer="c", max_deliveries=None, ack_wait_seconds=60.0)
    held = asyncio.Event()

    async def never(_delivery: Delivery) -> None:
        await held.wait()

    task = asyncio.create_task(queue.run(never))
    try:
        async with working(bus, Advisories(bus, place="hub").handle, stream=ADVISORIES, consumer=LETTERS_CONSUMER):
            # The server notices that it has delivered often enough when it is asked for the next.
            async def given_up() -> bool:
                inbox = bus.new_inbox()
                await bus.send(f"$JS.API.CONSUMER.MSG.NEXT.{name}.c", b'{"batch":1,"no_wait":true}', reply=inbox)
                return bool((await box.list(LetterFilter())).letters)

            await until(given_up, what="a letter of what was given up")
        (letter,) = (await box.list(LetterFilter())).letters
        assert (letter.stream, letter.consumer, letter.code) == (name, "c", "max_deliveries")
        info = await js.stream(name)
        assert info is not None
        assert info["state"]["messages"] == 0
        (outcome,) = (await box.retry([letter.id])).outcomes
        assert outcome.problem is not None
        assert "not this one's to feed" in outcome.problem.message
    finally:
        held.set()
        await queue.stop()
        await task
        await js.call(f"STREAM.DELETE.{name}")
