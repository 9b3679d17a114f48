"""Full streams on a real server: refused with the stream's name, room made where something can go, kept when given."""

from __future__ import annotations

import asyncio

import pytest

from bus.connection import Bus
from bus.jetstream import JetStream
from bus.room import HubRoom, fill_of
from bus.streams import COMMANDS, JOBS, set_up_hub
from bus.work import Delivery, WorkQueue, enqueue
from schemas.commands import ApplyTemplate, SiteDeleteInstance, StopInstance
from schemas.envelope import Envelope, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError
from schemas.subjects import hub_command, site_command
from schemas.values import Requester, Template

NOW = "2030-01-01T00:00:00Z"
SUBJECT = hub_command(principal="admin", aggregate="instance", id="i1", verb="stop")


async def limited(bus: Bus, stream: str, max_bytes: int) -> None:
    js = JetStream(bus)
    info = await js.call(f"STREAM.INFO.{stream}")
    await js.call(f"STREAM.UPDATE.{stream}", {**info["config"], "max_bytes": max_bytes})


def command(site: str) -> tuple[str, Envelope]:
    data = SiteDeleteInstance(by=Requester(principal="admin"))
    subject = site_command(site=site, principal="admin", aggregate="instance", id="i1", verb=data.VERB)
    return subject, wrap(data, id=new_id(), source="hub", time=NOW)


async def many(bus: Bus, to: str) -> None:
    """More commands than there is room for."""
    for _ in range(200):
        subject, envelope = command(to)
        await enqueue(bus, SUBJECT if to == "hub" else subject, envelope)


async def taken(bus: Bus, site: str, count: int) -> None:
    """The site takes so many of its commands, and holds the next."""
    done = asyncio.Event()
    handled = 0

    async def handler(_delivery: Delivery) -> None:
        nonlocal handled
        if handled == count:
            done.set()
            await asyncio.Event().wait()
        handled += 1

    queue = WorkQueue(bus, stream=COMMANDS, consumer=site)
    task = asyncio.create_task(queue.run(handler, concurrency=1))
    async with asyncio.timeout(60):
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_full_queue_refuses_commands_and_names_itself(bus: Bus) -> None:
    await set_up_hub(bus)
    await JetStream(bus).call(f"STREAM.PURGE.{JOBS}")
    await limited(bus, JOBS, 2000)
    try:
        with pytest.raises(CalqueError) as caught:
            await many(bus, "hub")
        problem = caught.value.problem
        assert problem.code == "stream_full"
        assert problem.temporary
        assert "stream JOBS is full" in problem.message
        assert "max_bytes" in (problem.remedy or "")
    finally:
        await limited(bus, JOBS, 128 << 20)
        await JetStream(bus).call(f"STREAM.PURGE.{JOBS}")
    await enqueue(bus, SUBJECT, wrap(StopInstance(), id=new_id(), source="admin", time=NOW))
    await JetStream(bus).call(f"STREAM.PURGE.{JOBS}")


async def test_commands_that_their_sites_have_make_room_and_others_stay(bus: Bus) -> None:
    await set_up_hub(bus, sites=("north", "south"))
    js = JetStream(bus)
    await js.call(f"STREAM.PURGE.{COMMANDS}")
    await limited(bus, COMMANDS, 8000)
    try:
        for number in range(12):
            await enqueue(bus, *command("north" if number % 2 else "south"))
        await taken(bus, "north", 5)  # of its six
        room = HubRoom(js, sites=("north", "south"))
        await room.look()
        info = await js.call(f"STREAM.INFO.{COMMANDS}", {"subjects_filter": ">"})
        left = info["state"]["subjects"]
        assert {subject.split(".")[3]: count for subject, count in left.items()} == {"north": 1, "south": 6}
        assert room.full() is None
        with pytest.raises(CalqueError, match="stream CMD is full"):
            await many(bus, "south")  # nothing of south is dropped for something new
        await room.look()
        full = room.full()
        assert full is not None
        assert "stream CMD at hub is full" in full.problem().message
    finally:
        await js.call(f"STREAM.PURGE.{COMMANDS}")
        await limited(bus, COMMANDS, 256 << 20)


async def test_a_stream_that_was_given_more_room_keeps_it(bus: Bus) -> None:
    await set_up_hub(bus)
    await limited(bus, JOBS, 200 << 20)
    await set_up_hub(bus)
    assert (await fill_of(JetStream(bus), JOBS)).limit == 200 << 20
    await limited(bus, JOBS, 1 << 20)
    await set_up_hub(bus)
    assert (await fill_of(JetStream(bus), JOBS)).limit == 128 << 20


async def test_a_command_that_is_too_large_is_refused_before_it_is_sent_and_by_the_stream(bus: Bus) -> None:
    await set_up_hub(bus)
    subject = hub_command(principal="admin", aggregate="template", id="t@1", verb="apply")
    template = Template(name="t", version="1", services={}, description="x" * 70_000)
    with pytest.raises(CalqueError) as caught:
        await enqueue(bus, subject, wrap(ApplyTemplate(template=template), id=new_id(), source="admin", time=NOW))
    assert (caught.value.problem.code, caught.value.problem.field) == ("invalid", "template.description")
    with pytest.raises(CalqueError) as caught:
        await JetStream(bus).publish(subject, b"x" * (200 << 10), headers={})
    assert caught.value.problem.code == "invalid"
    assert "stream JOBS takes no message this large" in caught.value.problem.message
