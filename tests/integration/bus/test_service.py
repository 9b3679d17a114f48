"""Services: requests at once and in turn, errors as problems, stopping without losing a request, discovery."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import msgspec
import pytest

from bus.connection import Bus, BusSettings
from bus.service import Service, discover
from schemas.envelope import Envelope, encode, timestamp, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError, not_found
from schemas.signals import Beat, LogLine
from schemas.subjects import events_of_aggregate
from tests.integration.bus.conftest import Server, found


def question(sequence: int = 1) -> Beat:
    return Beat(sender="north", run="r", sequence=sequence, interval_seconds=1)


def service(bus: Bus, name: str = "echo") -> Service:
    return Service(
        bus,
        name=name,
        version="1.2.3",
        description="answers",
        source="north",
        metadata={"calque.kind": "dsb", "calque.site": "north", "calque.broker": name},
    )


async def test_requests_run_at_once_up_to_the_limit(bus: Bus) -> None:
    running = most = 0
    gate = asyncio.Event()

    async def handler(request: Beat, _: Envelope) -> Beat:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 4:
            gate.set()
        await gate.wait()
        running -= 1
        return request

    one = service(bus)
    one.endpoint("echo", "t.svc.limit", Beat, Beat, handler, concurrency=4)
    await one.start()
    answers = await asyncio.gather(
        *(bus.ask("t.svc.limit", question(n), Beat, source="x", timeout_seconds=60) for n in range(12))
    )
    assert [answer.sequence for answer in answers] == list(range(12))
    assert most == 4
    await one.stop()


async def test_errors_reach_the_caller_as_problems_without_details(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Beat, _: Envelope) -> Beat:
        if request.sequence == 1:
            raise CalqueError(not_found("copy", "there is no copy 'c'"))
        if request.sequence == 3:
            events_of_aggregate(writer="hub", aggregate="operation", id="a b")
        raise RuntimeError("password=hunter2")

    one = service(bus)
    one.endpoint("fail", "t.svc.fail", Beat, Beat, handler)
    await one.start()

    with pytest.raises(CalqueError) as caught:
        await bus.ask("t.svc.fail", question(1), Beat, source="x", timeout_seconds=60)
    assert caught.value.problem.code == "not_found"
    assert caught.value.problem.field == "copy"

    with pytest.raises(CalqueError) as caught:
        await bus.ask("t.svc.fail", question(2), Beat, source="x", timeout_seconds=60)
    assert caught.value.problem.code == "internal"
    assert not caught.value.problem.temporary
    assert "hunter2" not in str(caught.value)
    assert "hunter2" in caplog.text
    caplog.clear()

    with pytest.raises(CalqueError) as caught:
        await bus.ask("t.svc.fail", question(3), Beat, source="x", timeout_seconds=60)
    assert (caught.value.problem.code, "a b" in caught.value.problem.message) == ("invalid", True)
    assert not caplog.records

    with pytest.raises(CalqueError) as caught:
        await bus.ask("t.svc.fail", LogLine(instance="i", service="s", line="l"), Beat, source="x", timeout_seconds=60)
    assert caught.value.problem.field == "type"

    raw = await bus.call(
        "t.svc.fail",
        encode(wrap(question(1), id=new_id(), source="x", time=timestamp(datetime.now(UTC)))),
        timeout_seconds=60,
    )
    assert raw.headers is not None
    assert raw.headers["Nats-Service-Error-Code"] == "404"
    assert "no copy" in raw.headers["Nats-Service-Error"]
    garbage = await bus.call("t.svc.fail", b"garbage", timeout_seconds=60)
    assert b"CloudEvents" in garbage.payload
    await one.stop()


async def test_what_a_caller_sends_can_not_break_the_headers_of_its_answer(bus: Bus) -> None:
    """A problem quotes it: a huge value made the answer bigger than the server takes, which then cut the connection
    of the whole service. Line breaks stay out too, whatever the client library does about them."""

    async def refuse(request: Beat, _: Envelope) -> Beat:
        raise CalqueError(not_found("sender", f"no {request.sender} is here"))

    one = service(bus)
    one.endpoint("quote", "t.svc.quote", Beat, Beat, refuse)
    await one.start()
    for sender in ("x" * 600_000, "a\r\nStolen: header\r\n\r\n"):
        beat = msgspec.structs.replace(question(1), sender=sender)
        envelope = wrap(beat, id=new_id(), source="x", time=timestamp(datetime.now(UTC)))
        answer = await bus.call("t.svc.quote", encode(envelope), timeout_seconds=60)
        assert answer.headers is not None
        assert "Stolen" not in answer.headers
        assert answer.headers["Nats-Service-Error-Code"] == "404"
        assert sender[0] in answer.headers["Nats-Service-Error"]
    assert bus.traffic().reconnects == 0
    await one.stop()


async def test_stopping_answers_what_came_and_takes_nothing_new(server: Server, bus: Bus) -> None:
    caller = await Bus.connect(BusSettings(servers=[server.url], name="caller"))
    entered = asyncio.Event()
    gate = asyncio.Event()

    async def handler(request: Beat, _: Envelope) -> Beat:
        entered.set()
        await gate.wait()
        return request

    one = service(bus)
    one.endpoint("slow", "t.svc.slow", Beat, Beat, handler, concurrency=1)
    await one.start()
    asked = [
        asyncio.create_task(caller.ask("t.svc.slow", question(n), Beat, source="x", timeout_seconds=60))
        for n in range(3)
    ]
    await entered.wait()
    # The server has passed on all three: the caller's round trip comes after them, then the service's own.
    with pytest.raises(CalqueError, match="no responders"):
        await caller.call("t.nobody", b"", timeout_seconds=60)
    with pytest.raises(CalqueError, match="no responders"):
        await bus.call("t.nobody", b"", timeout_seconds=60)
    stopping = asyncio.create_task(one.stop())
    gate.set()
    assert [answer.sequence for answer in await asyncio.gather(*asked)] == [0, 1, 2]
    await stopping
    with pytest.raises(CalqueError, match="no responders"):
        await caller.ask("t.svc.slow", question(), Beat, source="x", timeout_seconds=60)
    assert await discover(caller, name="echo", wait_seconds=0.1) == []
    await caller.close()


async def test_services_are_found_as_adr_32_says(bus: Bus) -> None:
    async def handler(request: Beat, _: Envelope) -> Beat:
        return request

    both = [service(bus, "finder"), service(bus, "finder")]
    for one in both:
        one.endpoint("echo", "t.svc.find", Beat, Beat, handler)
        await one.start()
    await bus.ask("t.svc.find", question(), Beat, source="x", timeout_seconds=60)

    infos = await found(bus, name="finder", count=2)
    assert {info.id for info in infos} == {one.id for one in both}
    info = infos[0]
    assert (info.name, info.version) == ("finder", "1.2.3")
    assert info.metadata["calque.broker"] == "finder"
    assert info.endpoints[0].subject == "t.svc.find"
    assert info.endpoints[0].metadata["calque.request"] == "urn:calque:schema:signal.beat.v1"

    ping = json.loads((await bus.call(f"$SRV.PING.finder.{both[0].id}", b"", timeout_seconds=60)).payload)
    assert ping["type"] == "io.nats.micro.v1.ping_response"
    counts = 0
    for one in both:
        stats = json.loads((await bus.call(f"$SRV.STATS.finder.{one.id}", b"", timeout_seconds=60)).payload)
        assert stats["type"] == "io.nats.micro.v1.stats_response"
        counts += stats["endpoints"][0]["num_requests"]
    assert counts == 1
    for one in both:
        await one.stop()
