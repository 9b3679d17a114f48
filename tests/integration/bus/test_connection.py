"""A connection: the first one, requests, and what happens when the server dies or falls silent."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats import errors as nats_errors

from bus.client import BusClient
from bus.connection import Bus, BusSettings, Message
from schemas.envelope import Envelope, encode, timestamp, unwrap, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError
from schemas.signals import Beat
from tests.integration.bus.conftest import Server, until


def beat(sequence: int = 1) -> Envelope:
    data = Beat(sender="north", run="r", sequence=sequence, interval_seconds=1)
    return wrap(data, id=new_id(), source="north", time=timestamp(datetime.now(UTC)))


async def test_nobody_listening_is_told_within_the_deadline() -> None:
    with pytest.raises(CalqueError) as caught:
        await Bus.connect(BusSettings(servers=["nats://127.0.0.1:1"]), deadline_seconds=0.3)
    assert caught.value.problem.code == "unreachable"
    assert "nats://127.0.0.1:1" in caught.value.problem.message
    assert "calque up" in str(caught.value)


async def test_a_missing_seed_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalqueError, match=r"nkey_seed_file: .*none\.nk"):
        await Bus.connect(BusSettings(servers=["nats://127.0.0.1:1"], nkey_seed_file=str(tmp_path / "none.nk")))


async def test_requests_are_answered_or_fail_as_problems(bus: Bus) -> None:
    async def echo(message: Message) -> None:
        assert message.reply
        await bus.send(message.reply, message.payload)

    subscription = await bus.subscribe("t.echo", echo)
    answer = await bus.request("t.echo", beat(7), timeout_seconds=60)
    assert unwrap(answer, Beat).sequence == 7
    data = Beat(sender="a", run="r", sequence=9, interval_seconds=1)
    assert (await bus.ask("t.echo", data, Beat, source="a", timeout_seconds=60)).sequence == 9
    await subscription.stop()

    with pytest.raises(CalqueError) as caught:
        await bus.request("t.echo", beat(), timeout_seconds=60)
    assert caught.value.problem.code == "unavailable"
    assert caught.value.problem.temporary

    async def silent(_: Message) -> None:
        return

    await bus.subscribe("t.silent", silent)
    with pytest.raises(CalqueError) as caught:
        await bus.request("t.silent", beat(), timeout_seconds=0.1)
    assert caught.value.problem.code == "timeout"


async def test_a_handler_that_raises_does_not_end_its_subscription(bus: Bus) -> None:
    seen: list[bytes] = []

    async def handler(message: Message) -> None:
        seen.append(message.payload)
        raise RuntimeError("boom")

    await bus.subscribe("t.raises", handler)
    await bus.publish("t.raises", beat())
    await bus.publish("t.raises", beat())

    async def two() -> bool:
        return len(seen) == 2

    await until(two, what="both messages handled")


async def test_a_message_too_big_is_refused_before_it_is_sent(bus: Bus) -> None:
    with pytest.raises(CalqueError, match="exceed the limit"):
        await bus.send("t.big", b"x" * (bus.max_payload_bytes + 1))


async def test_traffic_counts_payload(bus: Bus) -> None:
    before = bus.traffic()
    payload = encode(beat())
    await bus.send("t.count", payload)
    after = bus.traffic()
    assert after.out_messages - before.out_messages == 1
    assert after.out_bytes - before.out_bytes == len(payload)


async def test_subscriptions_live_on_after_the_server_was_killed(server: Server, bus: Bus) -> None:
    seen: list[bytes] = []
    await bus.listen("t.live", lambda message: seen.append(message.payload))
    server.kill()

    async def disconnected() -> bool:
        return not bus.is_connected

    await until(disconnected, what="the loss is seen")
    with pytest.raises(CalqueError) as caught:
        await bus.call("t.none", b"", timeout_seconds=0.1)
    assert caught.value.problem.code == "unavailable"
    await server.start()
    await bus.wait_connected(60)
    await bus.send("t.live", b"after")

    async def arrived() -> bool:
        return seen == [b"after"]

    await until(arrived, what="a message after the restart")


async def test_an_answer_to_a_flush_that_gave_up_ends_no_connection(server: Server) -> None:
    client, ended = BusClient(), asyncio.Event()

    async def disconnected() -> None:
        ended.set()

    await client.connect(servers=[server.url], disconnected_cb=disconnected)
    flushing = asyncio.create_task(client.flush())
    await asyncio.sleep(0)  # it has asked, and waits
    flushing.cancel()
    await asyncio.wait({flushing})
    await client.flush()
    await client.flush()
    assert not ended.is_set()
    await client.close()


async def test_a_flush_over_a_connection_that_is_lost_ends_with_it(server: Server) -> None:
    client = BusClient()
    await client.connect(servers=[server.url], max_reconnect_attempts=-1, reconnect_time_wait=1)
    os.kill(server.pid, signal.SIGSTOP)
    threads = Path(f"/proc/{server.pid}/task")

    async def stands_still() -> bool:
        found = await asyncio.to_thread(lambda: [each.read_text() for each in threads.glob("*/stat")])
        return all(each.rpartition(")")[2].split()[0] == "T" for each in found)

    await until(stands_still, what="the server answers nothing more")
    flushing = asyncio.create_task(client.flush(timeout=200))

    async def asked() -> bool:
        return bool(client._pongs)

    await until(asked, what="the flush has begun")
    server.kill()
    await server.start()
    with pytest.raises(nats_errors.ConnectionReconnectingError):
        await asyncio.wait_for(flushing, 60)
    await client.flush(timeout=60)
    await client.close()


async def test_the_watchdog_replaces_a_connection_that_only_looks_alive(server: Server) -> None:
    bus = await Bus.connect(BusSettings(servers=[server.url], name="watched", watchdog_seconds=0.2))
    try:
        seen: list[bytes] = []
        await bus.listen("t.zombie", lambda message: seen.append(message.payload))
        reading = bus._client._reading_task
        assert reading is not None
        reading.cancel()  # what an exception in the read loop of the client library leaves: connected, and deaf

        async def hears() -> bool:
            await bus.send("t.zombie", b"x")
            return bool(seen)

        await until(hears, what="messages arrive again")
    finally:
        await bus.close()


async def test_a_server_that_falls_silent_and_comes_back(server: Server) -> None:
    bus = await Bus.connect(BusSettings(servers=[server.url], name="silent", watchdog_seconds=0.3))
    try:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(CalqueError):
                await bus.call("$SRV.PING", b"", timeout_seconds=1.0)
        finally:
            os.kill(server.pid, signal.SIGCONT)

        async def answers() -> bool:
            try:
                await bus.call("t.nobody", b"", timeout_seconds=0.5)
            except CalqueError as error:
                return "no responders" in error.problem.message
            return False

        await until(answers, what="the server answers again")
    finally:
        await bus.close()
