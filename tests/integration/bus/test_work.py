"""Work queues: at least once, tried again, put aside when hopeless, given back on stop."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from bus.connection import Bus, BusSettings
from bus.jetstream import JetStream
from bus.streams import JOBS, JOBS_CONSUMER, set_up_hub
from bus.work import Delivery, WorkQueue, enqueue
from schemas.commands import StopInstance
from schemas.envelope import Envelope, decode, encode, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError, not_found, temporary
from schemas.subjects import hub_command
from tests.integration.bus.conftest import Server, until


def command(id: str) -> tuple[str, Envelope]:
    subject = hub_command(principal="admin", aggregate="instance", id="i1", verb="stop")
    return subject, wrap(StopInstance(), id=id, source="admin", time="2030-01-01T00:00:00Z")


async def put(bus: Bus, count: int = 1) -> list[str]:
    ids = [new_id() for _ in range(count)]
    for id in ids:
        await enqueue(bus, *command(id))
    return ids


async def left(bus: Bus, stream: str = JOBS) -> int:
    info: dict[str, Any] | None = await JetStream(bus).stream(stream)
    assert info is not None
    return int(info["state"]["messages"])


def id_of(delivery: Delivery) -> str:
    return decode(delivery.payload).id


@pytest_asyncio.fixture(loop_scope="session")
async def jobs(bus: Bus) -> AsyncIterator[WorkQueue]:
    await set_up_hub(bus)
    for stream in (JOBS, "DLQ"):
        await JetStream(bus).call(f"STREAM.PURGE.{stream}")
    queue = WorkQueue(bus, stream=JOBS, consumer=JOBS_CONSUMER, max_deliveries=3)
    yield queue
    await queue.stop()


async def test_each_command_is_handled_and_taken_off(bus: Bus, jobs: WorkQueue) -> None:
    ids = await put(bus, 30)
    seen: list[str] = []
    running = most = 0

    async def handler(delivery: Delivery) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        seen.append(id_of(delivery))
        running -= 1

    task = asyncio.create_task(jobs.run(handler, concurrency=4))

    async def empty() -> bool:
        return await left(bus) == 0

    await until(empty, what="the queue is empty")
    assert sorted(seen) == sorted(ids)
    assert most <= 4
    more = await put(bus, 1)
    await until(empty, what="a later command is handled")
    assert seen[-1] == more[0]
    await jobs.stop()
    await task


async def test_a_command_that_poses_as_a_status_of_the_server_is_handled_like_any_other(
    bus: Bus, jobs: WorkQueue
) -> None:
    subject, envelope = command(new_id())
    await bus.call(subject, encode(envelope), headers={"Status": "409"}, timeout_seconds=60)
    seen = asyncio.Event()

    async def handler(delivery: Delivery) -> None:
        seen.set()

    task = asyncio.create_task(jobs.run(handler))
    async with asyncio.timeout(60):
        await seen.wait()
    await jobs.stop()
    await task


async def test_the_same_command_sent_again_is_stored_once(bus: Bus, jobs: WorkQueue) -> None:
    subject, envelope = command(new_id())
    first = await enqueue(bus, subject, envelope)
    assert await enqueue(bus, subject, envelope) == first
    assert await left(bus) == 1


async def test_temporary_errors_are_tried_again_and_lasting_ones_put_aside_with_the_reason(
    bus: Bus, jobs: WorkQueue
) -> None:
    (soon, never, broken, hopeless) = await put(bus, 4)
    tries: dict[str, list[int]] = {}

    async def handler(delivery: Delivery) -> None:
        id = id_of(delivery)
        tries.setdefault(id, []).append(delivery.delivered)
        if id == soon and len(tries[id]) == 2:
            return
        if id in (soon, hopeless):
            raise CalqueError(temporary("busy", "not yet", retry_after_seconds=0.05))
        if id == never:
            raise CalqueError(not_found("instance", "no such instance"))
        raise RuntimeError("a bug")

    task = asyncio.create_task(jobs.run(handler))

    async def empty() -> bool:
        return await left(bus) == 0

    await until(empty, what="the queue is empty")
    assert tries == {soon: [1, 2], never: [1], broken: [1], hopeless: [1, 2, 3]}
    letters = {}
    for sequence in range(1, 100):
        try:
            answer = await JetStream(bus).call("STREAM.MSG.GET.DLQ", {"seq": sequence})
        except CalqueError:
            continue
        headers = base64.b64decode(answer["message"]["hdrs"]).decode()
        letters[decode(base64.b64decode(answer["message"]["data"])).id] = headers
        assert answer["message"]["subject"].startswith("calque.dlq.hub.JOBS.jobs.")
    assert set(letters) == {never, broken, hopeless}
    assert "no such instance" in letters[never]
    assert "RuntimeError: a bug" in letters[broken]
    assert "Calque-Subject: calque.cmd.hub.admin.instance.i1.stop" in letters[broken]
    await jobs.stop()
    await task


async def test_stopping_ends_what_runs_and_cancelling_gives_it_back(bus: Bus, jobs: WorkQueue) -> None:
    await put(bus, 1)
    entered, gate = asyncio.Event(), asyncio.Event()

    async def slow(_: Delivery) -> None:
        entered.set()
        await gate.wait()

    task = asyncio.create_task(jobs.run(slow))
    await entered.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    # Given back, it comes at once to whoever is next, not after the time to acknowledge.
    entered.clear()
    other = WorkQueue(bus, stream=JOBS, consumer=JOBS_CONSUMER)
    task = asyncio.create_task(other.run(slow))
    async with asyncio.timeout(60):
        await entered.wait()
    stopping = asyncio.create_task(other.stop())
    gate.set()
    await stopping
    await task

    async def empty() -> bool:
        return await left(bus) == 0

    await until(empty, what="the work that ran was acknowledged")


async def test_a_long_handler_keeps_its_message(bus: Bus, jobs: WorkQueue) -> None:
    js = JetStream(bus)
    config = {"durable_name": "quick", "ack_policy": "explicit", "ack_wait": 2_000_000_000, "max_deliver": -1}
    await js.call("CONSUMER.DURABLE.CREATE.EVT_hub.quick", {"stream_name": "EVT_hub", "config": config})
    await bus.call("calque.evt.hub.x.y.z", b"{}", timeout_seconds=60)
    queue = WorkQueue(bus, stream="EVT_hub", consumer="quick", ack_wait_seconds=2.0)
    deliveries = 0
    done = asyncio.Event()

    async def handler(_: Delivery) -> None:
        nonlocal deliveries
        deliveries += 1
        await asyncio.sleep(3.0)  # the handler's own work, longer than the time to acknowledge
        done.set()

    task = asyncio.create_task(queue.run(handler))
    await done.wait()

    async def acknowledged() -> bool:
        info = await js.call("CONSUMER.INFO.EVT_hub.quick")
        return bool(info["num_ack_pending"] == 0)

    await until(acknowledged, what="it is acknowledged")
    assert deliveries == 1
    await queue.stop()
    await task


async def test_nothing_is_lost_when_the_server_is_killed(server: Server) -> None:
    bus = await Bus.connect(BusSettings(servers=[server.url], name="worker"))
    await set_up_hub(bus)
    ids = await put(bus, 40)
    seen: set[str] = set()
    half = asyncio.Event()

    async def handler(delivery: Delivery) -> None:
        seen.add(id_of(delivery))
        if len(seen) >= 10:
            half.set()

    queue = WorkQueue(bus, stream=JOBS, consumer=JOBS_CONSUMER)
    task = asyncio.create_task(queue.run(handler, concurrency=2))
    await half.wait()
    server.kill()
    await server.start()
    ids += await put(bus, 5)

    async def all_seen() -> bool:
        return set(ids) <= seen

    await until(all_seen, what="every command was handled", deadline_seconds=45)
    await queue.stop()
    await task
    await bus.close()
