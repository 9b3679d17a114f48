"""The configurations on real servers, with bare nats-py: what crosses between hub and site, what does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats
import nats.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.servers import HubAndSites, run_hub_and_sites

WAIT_SECONDS = 60.0
SILENCE_SECONDS = 3.0


async def eventually(look: Callable[[], Awaitable[bool]], *, within: float = WAIT_SECONDS) -> None:
    """Look again and again until it is so; fail at the deadline."""
    deadline = asyncio.get_running_loop().time() + within
    while not await look():
        assert asyncio.get_running_loop().time() < deadline, "did not come true in time"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def connected(url: str, seed: str, errors: list[str] | None = None) -> AsyncIterator[Client]:
    async def note(error: Exception) -> None:
        if errors is not None:
            errors.append(str(error))

    client = await nats.connect(url, nkeys_seed=seed, error_cb=note, connect_timeout=5)
    try:
        yield client
    finally:
        await client.close()


async def api(client: Client, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = await client.request(subject, json.dumps(body).encode() if body else b"", timeout=5)
    decoded: dict[str, Any] = json.loads(answer.data)
    assert "error" not in decoded, decoded["error"]
    return decoded


async def make_streams(stack: HubAndSites) -> None:
    """The order of set-up that the durable sourcing needs; each step is safe to repeat."""
    for site in stack.site_urls:
        async with connected(stack.site_urls[site], stack.agent_seed(site)) as agent:
            # A site's outbox takes anything it is told to hold: that is what a forger would use.
            subjects = [f"calque.evt.{site}.>", f"forged.{site}.>"] if site != "north" else ["calque.evt.>"]
            await api(
                agent,
                f"$JS.API.STREAM.CREATE.EVT_{site}",
                {"name": f"EVT_{site}", "subjects": subjects, "max_bytes": 1 << 26, "discard": "new"},
            )
            await api(
                agent,
                f"$JS.API.CONSUMER.DURABLE.CREATE.EVT_{site}.hub",
                {
                    "stream_name": f"EVT_{site}",
                    "config": {
                        "durable_name": "hub",
                        "deliver_subject": f"dlv.evt.{site}",
                        "ack_policy": "flow_control",
                        "flow_control": True,
                        "idle_heartbeat": 1_000_000_000,
                        "max_deliver": -1,
                        "deliver_policy": "all",
                        "max_ack_pending": 20000,
                    },
                },
            )
    async with connected(stack.hub_url, stack.hub_seed) as hub:
        await api(
            hub,
            "$JS.API.STREAM.CREATE.EVT_hub",
            {"name": "EVT_hub", "subjects": ["calque.evt.hub.>"], "max_bytes": 1 << 26},
        )
        for site in stack.site_urls:
            await api(
                hub,
                f"$JS.API.STREAM.CREATE.IN_{site}",
                {
                    "name": f"IN_{site}",
                    "max_bytes": 1 << 26,
                    "sources": [
                        {
                            "name": f"EVT_{site}",
                            "external": {"api": f"$JS.{site}.API", "deliver": ""},
                            "consumer": {"name": "hub", "deliver_subject": f"dlv.evt.{site}"},
                        }
                    ],
                },
            )
        sources: list[dict[str, Any]] = [{"name": "EVT_hub"}]
        sources += [{"name": f"IN_{site}", "filter_subject": f"calque.evt.{site}.>"} for site in stack.site_urls]
        await api(
            hub,
            "$JS.API.STREAM.CREATE.EVENTS",
            {"name": "EVENTS", "max_bytes": 1 << 26, "allow_direct": True, "sources": sources},
        )
        await api(
            hub,
            "$JS.API.STREAM.CREATE.CMD",
            {"name": "CMD", "subjects": ["calque.cmd.site.>"], "max_bytes": 1 << 26},
        )
        for site in stack.site_urls:
            await api(
                hub,
                f"$JS.API.CONSUMER.DURABLE.CREATE.CMD.{site}",
                {
                    "stream_name": "CMD",
                    "config": {
                        "durable_name": site,
                        "ack_policy": "explicit",
                        "filter_subject": f"calque.cmd.site.{site}.>",
                        "max_deliver": -1,
                    },
                },
            )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HubAndSites]:
    """Servers of its own: its streams are made by hand, not as the bus makes them."""
    async with run_hub_and_sites(tmp_path_factory.mktemp("links")) as servers:
        await make_streams(servers)
        yield servers


async def subjects_of(hub: Client, stream: str) -> list[str]:
    info = await api(hub, f"$JS.API.STREAM.INFO.{stream}", {"subjects_filter": ">"})
    return sorted(info["state"].get("subjects") or {})


async def test_events_of_both_sites_arrive_and_forged_ones_do_not(stack: HubAndSites) -> None:
    async with (
        connected(stack.hub_url, stack.hub_seed) as hub,
        connected(stack.site_urls["north"], stack.agent_seed("north")) as north,
        connected(stack.site_urls["south"], stack.agent_seed("south")) as south,
    ):
        for forged in ("calque.evt.south.copy.f1.forged", "calque.evt.hub.image.f2.forged"):
            await north.jetstream().publish(forged, b"{}")
        await north.jetstream().publish("calque.evt.north.copy.c1.prepared", b'{"n":1}')
        await south.jetstream().publish("calque.evt.south.copy.c2.prepared", b'{"n":2}')

        async def arrived() -> bool:
            known = await subjects_of(hub, "EVENTS")
            return {"calque.evt.north.copy.c1.prepared", "calque.evt.south.copy.c2.prepared"} <= set(known)

        await eventually(arrived)
        assert "calque.evt.south.copy.f1.forged" in await subjects_of(hub, "IN_north")
        assert [subject for subject in await subjects_of(hub, "EVENTS") if "forged" in subject] == []


@pytest.mark.full
async def test_events_written_while_the_hub_was_down_arrive_once(stack: HubAndSites) -> None:
    async with connected(stack.site_urls["north"], stack.agent_seed("north")) as north:
        await stack.supervisor.restart("hub-nats")
        for number in range(100):
            await north.jetstream().publish(f"calque.evt.north.copy.many.step{number}", b"{}")
        async with connected(stack.hub_url, stack.hub_seed) as hub:

            async def arrived() -> bool:
                known = [name for name in await subjects_of(hub, "EVENTS") if ".many." in name]
                return len(known) == 100

            await eventually(arrived)
            info = await api(hub, "$JS.API.STREAM.INFO.EVENTS", {"subjects_filter": "calque.evt.north.copy.many.>"})
            assert set(info["state"]["subjects"].values()) == {1}


async def pull(agent: Client, site: str, *, batch: int = 10) -> list[Msg]:
    inbox = agent.new_inbox()
    subscription = await agent.subscribe(inbox)
    request = json.dumps({"batch": batch, "expires": 1_000_000_000}).encode()
    await agent.publish(f"JSHUB.API.CONSUMER.MSG.NEXT.CMD.{site}", request, reply=inbox)
    messages: list[Msg] = []
    try:
        while True:
            message = await subscription.next_msg(timeout=2)
            if message.headers and "Status" in message.headers:
                return messages
            messages.append(message)
    except nats.errors.TimeoutError:
        return messages
    finally:
        await subscription.unsubscribe()


async def test_a_site_pulls_its_own_commands_and_no_others(stack: HubAndSites) -> None:
    refused: list[str] = []
    async with (
        connected(stack.hub_url, stack.hub_seed) as hub,
        connected(stack.site_urls["north"], stack.agent_seed("north"), refused) as north,
    ):
        await hub.jetstream().publish("calque.cmd.site.north.admin.instance.i1.stop", b"for north")
        await hub.jetstream().publish("calque.cmd.site.south.admin.instance.i2.stop", b"for south")

        got: list[Msg] = []

        async def arrived() -> bool:
            got.extend(await pull(north, "north"))
            return bool(got)

        await eventually(arrived)
        assert [message.data for message in got] == [b"for north"]
        await north.publish(got[0].reply, b"+ACK")

        async def acknowledged() -> bool:
            info = await api(hub, "$JS.API.CONSUMER.INFO.CMD.north")
            return (info["num_ack_pending"], info["num_pending"]) == (0, 0)

        await eventually(acknowledged)
        assert await pull(north, "south") == []
        info = await api(hub, "$JS.API.CONSUMER.INFO.CMD.south")
        assert (info["num_pending"], info["num_ack_pending"]) == (1, 0)


@pytest.mark.parametrize(
    "subject",
    [
        "JSHUB.API.CONSUMER.CREATE.CMD",
        "JSHUB.API.CONSUMER.DURABLE.CREATE.CMD.mine",
        "JSHUB.API.STREAM.INFO.EVENTS",
        "JSHUB.API.CONSUMER.INFO.CMD.south",
        "$JS.hub.API.STREAM.INFO.EVENTS",
        "calque.ask.south.key",
        "calque.qry.site",
    ],
)
async def test_a_site_reaches_nothing_else_of_the_hub(stack: HubAndSites, subject: str) -> None:
    async with (
        connected(stack.hub_url, stack.hub_seed) as hub,
        connected(stack.site_urls["north"], stack.agent_seed("north")) as north,
    ):

        async def answer(message: Msg) -> None:
            await message.respond(b"should not be heard")

        await hub.subscribe("calque.>", cb=answer)
        await hub.flush()
        with pytest.raises((nats.errors.NoRespondersError, nats.errors.TimeoutError)):
            await north.request(subject, b"{}", timeout=0.7)


async def heard(listener: Client, subject: str, speaker: Client, said: str, *, within: float = WAIT_SECONDS) -> bool:
    """Whether what the speaker says reaches the listener's subscription; given up after ``within`` seconds."""
    subscription = await listener.subscribe(subject)
    await listener.flush()

    async def once() -> bool:
        await speaker.publish(said, b"beat")
        try:
            return (await subscription.next_msg(timeout=0.2)).subject == said
        except nats.errors.TimeoutError:
            return False

    try:
        deadline = asyncio.get_running_loop().time() + within
        while asyncio.get_running_loop().time() < deadline:
            if await once():
                return True
        return False
    finally:
        await subscription.unsubscribe()


async def test_heartbeats_progress_and_logs_cross_as_their_own_site_only(stack: HubAndSites) -> None:
    async with (
        connected(stack.hub_url, stack.hub_seed) as hub,
        connected(stack.hub_url, stack.client_seed()) as client,
        connected(stack.site_urls["north"], stack.agent_seed("north")) as north,
        connected(stack.site_urls["south"], stack.agent_seed("south")) as south,
        connected(stack.site_urls["north"], stack.broker_seed("north", "dsb-postgres")) as broker,
    ):
        assert await heard(hub, "calque.beat.*", north, "calque.beat.north")
        assert await heard(client, "calque.beat.*", south, "calque.beat.south")
        assert await heard(client, "calque.progress.>", broker, "calque.progress.north.op1")
        assert await heard(client, "calque.log.>", broker, "calque.log.north.i1.web")
        assert await heard(north, "calque.beat.hub", hub, "calque.beat.hub")
        assert await heard(south, "calque.beat.hub", hub, "calque.beat.hub")
        assert not await heard(hub, "calque.beat.*", north, "calque.beat.south", within=SILENCE_SECONDS)
        assert not await heard(south, "calque.beat.*", north, "calque.beat.north", within=SILENCE_SECONDS)


async def test_rpc_reaches_its_site_and_may_answer_several_times(stack: HubAndSites) -> None:
    async with (
        connected(stack.hub_url, stack.hub_seed) as hub,
        connected(stack.site_urls["north"], stack.agent_seed("north")) as north,
        connected(stack.site_urls["south"], stack.agent_seed("south")) as south,
    ):

        async def answer(message: Msg) -> None:
            for line in (b"one", b"two", b"three"):
                await message.respond(line)

        async def wrong(message: Msg) -> None:
            await message.respond(b"from the wrong site")

        await north.subscribe("calque.rpc.north.>", cb=answer)
        await south.subscribe("calque.rpc.>", cb=wrong)
        await asyncio.gather(north.flush(), south.flush())

        async def answered() -> bool:
            inbox = hub.new_inbox()
            replies = await hub.subscribe(inbox)
            await hub.publish("calque.rpc.north.logs", b"{}", reply=inbox)
            try:
                got = [(await replies.next_msg(timeout=1)).data for _ in range(3)]
            except nats.errors.TimeoutError:
                return False
            finally:
                await replies.unsubscribe()
            return got == [b"one", b"two", b"three"]

        await eventually(answered)


async def test_ask_is_answered_by_the_hub_under_the_sites_own_name(stack: HubAndSites) -> None:
    async with (
        connected(stack.hub_url, stack.hub_seed) as hub,
        connected(stack.site_urls["south"], stack.agent_seed("south")) as south,
    ):
        asked: list[str] = []

        async def answer(message: Msg) -> None:
            asked.append(message.subject)
            await message.respond(b"yes")

        await hub.subscribe("calque.ask.>", cb=answer)
        await hub.flush()

        async def answered() -> bool:
            try:
                return (await south.request("calque.ask.south.grant", b"?", timeout=1)).data == b"yes"
            except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
                return False

        await eventually(answered)
        asked.clear()
        with pytest.raises((nats.errors.NoRespondersError, nats.errors.TimeoutError)):
            await south.request("calque.ask.north.grant", b"?", timeout=0.7)
        assert asked == []


async def test_a_principal_sends_commands_under_its_own_name_only(stack: HubAndSites) -> None:
    refused: list[str] = []
    async with (
        connected(stack.hub_url, stack.hub_seed) as hub,
        connected(stack.hub_url, stack.client_seed(), refused) as client,
    ):
        assert await heard(hub, "calque.cmd.hub.>", client, "calque.cmd.hub.admin.template.t1.apply")
        assert not await heard(
            hub, "calque.cmd.hub.>", client, "calque.cmd.hub.other.template.t1.apply", within=SILENCE_SECONDS
        )
        await client.publish("calque.cmd.site.north.admin.instance.i1.stop", b"")
        await client.publish("calque.evt.hub.image.i1.saved", b"")
        await client.flush()

        async def both_refused() -> bool:
            text = " ".join(refused).lower()
            return "calque.cmd.site.north" in text and "calque.evt.hub" in text

        await eventually(both_refused)
        info = await api(client, "JSHUB.API.STREAM.INFO.EVENTS")
        assert info["config"]["name"] == "EVENTS"


async def test_a_broker_hears_its_own_requests_only(stack: HubAndSites) -> None:
    refused: list[str] = []
    url = stack.site_urls["north"]
    async with (
        connected(url, stack.agent_seed("north")) as agent,
        connected(url, stack.broker_seed("north", "dsb-postgres"), refused) as broker,
    ):

        async def answer(message: Msg) -> None:
            await message.respond(b"done")

        await broker.subscribe("calque.req.north.dsb.postgres.>", cb=answer)
        await broker.subscribe("$SRV.>", cb=answer)
        await broker.flush()

        async def answered() -> bool:
            with suppress(nats.errors.NoRespondersError):
                return (await agent.request("calque.req.north.dsb.postgres.bind", b"", timeout=20)).data == b"done"
            return False

        await eventually(answered)
        assert (await agent.request("$SRV.PING", b"", timeout=2)).data == b"done"
        await broker.subscribe("calque.req.north.dsb.s3.>", cb=answer)
        await broker.subscribe("_AGENT.>", cb=answer)  # what brokers answer to the agent may hold secrets
        await broker.publish("calque.evt.north.copy.c1.prepared", b"{}")
        await broker.flush()

        async def all_refused() -> bool:
            text = " ".join(refused).lower()
            return all(subject in text for subject in ("calque.req.north.dsb.s3", "calque.evt.north", "_agent"))

        await eventually(all_refused)


async def test_nobody_without_a_key_can_say_or_hear_anything(stack: HubAndSites) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(stack.site_urls["north"].rpartition(":")[2]))
    await reader.readline()
    writer.write(b'CONNECT {"verbose":true}\r\nPING\r\n')
    assert b"Authorization Violation" in await asyncio.wait_for(reader.readline(), 60)
    writer.close()
    await writer.wait_closed()
    client = await nats.connect(stack.hub_url, connect_timeout=2)
    try:
        with pytest.raises((nats.errors.NoRespondersError, nats.errors.TimeoutError)):
            await client.request("calque.qry.site", b"", timeout=0.5)
    finally:
        await client.close()
