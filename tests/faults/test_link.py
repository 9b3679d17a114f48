"""The link to the hub cut: the site finishes what it was told and takes commands of its own; all arrives later."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from bus.connection import Bus, Message
from bus.work import enqueue
from schemas import commands
from schemas.commands import Answer, SiteCommand
from schemas.envelope import decode, timestamp, unwrap, wrap
from schemas.events import InstanceRunning, OperationSucceeded
from schemas.ids import new_id
from schemas.subjects import site_command
from schemas.values import Requester
from tests.e2e.stack import until
from tests.faults.outbox import read_outbox, site_bus
from tests.faults.world import APP, World

pytestmark = [pytest.mark.full, pytest.mark.stack, pytest.mark.xdist_group("faults")]


async def tell(bus: Bus, command: SiteCommand, *, instance: str) -> str:
    """A local command of the site's own operator; its id, once the agent accepted it."""
    answers: asyncio.Queue[Answer] = asyncio.Queue()

    async def hear(message: Message) -> None:
        answers.put_nowait(unwrap(decode(message.payload), Answer))

    inbox, id = bus.new_inbox(), new_id()
    subscription = await bus.subscribe(inbox, hear)
    try:
        envelope = wrap(
            command, id=id, source="operator", time=timestamp(datetime.now(UTC)), subject=instance, replyto=inbox
        )
        subject = site_command(site="north", principal="operator", aggregate="instance", id=instance, verb=command.VERB)
        await enqueue(bus, subject, envelope)
        answer = await asyncio.wait_for(answers.get(), 60)
    finally:
        await subscription.stop()
    assert answer.state == "accepted", answer.problem
    return id


async def test_site_goes_on_with_the_hub_away_and_all_arrives_once_and_in_order(world: World) -> None:
    app = await world.client.app(APP)
    name, started = await world.save()
    await world.receiving("north", started.command, "copy-rows")
    async with world.hub_away(), site_bus(world.stack.home, "north") as bus:

        async def succeeded(operation: str) -> bool:
            return any(
                each.id == operation and isinstance(each.event, OperationSucceeded)
                for each in await read_outbox(bus, "north")
            )

        await until(lambda: succeeded(started.command), seconds=30, what="the save, with the hub away")
        by = Requester(principal="operator")
        stop = await tell(bus, commands.SiteStopInstance(by=by), instance=app.id)
        await until(lambda: succeeded(stop), seconds=30, what="a stop, with the hub away")
        start = await tell(bus, commands.SiteStartInstance(by=by), instance=app.id)
        await until(lambda: succeeded(start), seconds=30, what="a start, with the hub away")
        assert not any(each.envelope.operationid in (stop, start) for each in world.record.events)
    await world.whole()
    await world.record.wait(
        lambda each: (
            each.id == app.id and each.envelope.operationid == start and isinstance(each.event, InstanceRunning)
        ),
        what="the news of the start",
    )
    await world.must(started)
    assert await world.image_state(name) == ("saved", True)
    await world.judge()


@pytest.mark.full
async def test_hub_that_stands_still_for_half_a_minute(world: World) -> None:
    name, started = await world.save()
    await world.receiving("north", started.command, "copy-rows")
    with world.frozen("hub-nats"):
        async with site_bus(world.stack.home, "north") as bus:

            async def succeeded() -> bool:
                return any(
                    each.id == started.command and isinstance(each.event, OperationSucceeded)
                    for each in await read_outbox(bus, "north")
                )

            await until(succeeded, seconds=40, what="the save, with the hub standing still")
            await world.idle(30)
    await world.judge_save(name, started)
