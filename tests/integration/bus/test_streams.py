"""Streams of hub and sites on the servers as they are run: set up in any order, events once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import NamedTuple

import pytest
import pytest_asyncio

from bus.connection import Bus, BusSettings
from bus.events import EventStore, NewEvent
from bus.feed import EventsFeed
from bus.jetstream import JetStream
from bus.records import Recorded
from bus.service import Service, discover
from bus.streams import COMMANDS, EVENTS, add_site, set_up_hub, set_up_site
from bus.work import SITE_PREFIX, Delivery, WorkQueue, enqueue
from schemas.commands import SiteStopInstance, StopInstance
from schemas.envelope import Envelope, decode, encode, wrap
from schemas.events import ClaimTaken, InstanceStopping, SiteJoined
from schemas.ids import new_id
from schemas.problems import CalqueError
from schemas.signals import Beat
from schemas.subjects import HUB_JETSTREAM, broker_request, hub_command, site_command
from schemas.values import Requester
from tests.integration.bus.conftest import found as services_found
from tests.integration.bus.conftest import until
from tests.servers import SITES, HubAndSites


class Buses(NamedTuple):
    hub: Bus
    north: Bus
    south: Bus


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def buses(hub_and_sites: HubAndSites) -> AsyncIterator[Buses]:
    async def connect(url: str, seed: str, name: str) -> Bus:
        return await Bus.connect(BusSettings(servers=[url], nkey_seed_file=seed, name=name))

    hub = await connect(hub_and_sites.hub_url, hub_and_sites.hub_seed, "hub")
    sites = [await connect(hub_and_sites.site_urls[site], hub_and_sites.agent_seed(site), site) for site in SITES]
    joined = Buses(hub, *sites)
    await set_up_hub(hub, sites=["north"])
    joining = asyncio.create_task(add_site(hub, "north"))  # before the site has anything
    await set_up_site(joined.north, site="north")
    await joining
    await set_up_site(joined.south, site="south")  # before the hub knows of it
    await add_site(hub, "south")
    yield joined
    for bus in joined:
        await bus.close()


async def write(bus: Bus, writer: str, id: str, count: int) -> None:
    store = EventStore(bus, writer=writer)
    last = 0
    for number in range(count):
        event = InstanceStopping() if writer != "hub" else SiteJoined()
        new = NewEvent(event.AGGREGATE, id, event, operation=str(number))
        last = (await store.append([new], expected={(event.AGGREGATE, id): last}))[-1].sequence


async def read_until(feed: EventsFeed, *, after: int, id: str, count: int) -> list[Recorded]:
    found: list[Recorded] = []
    async with asyncio.timeout(120):
        async for batch in feed.read(after=after):
            found += [one for one in batch if one.id == id]
            if len(found) >= count:
                break
    return found


async def test_events_of_all_writers_arrive_once_and_in_order(buses: Buses) -> None:
    feed = EventsFeed(buses.hub)
    start = await feed.last_sequence()
    id = new_id()
    await asyncio.gather(
        write(buses.hub, "hub", id, 50), write(buses.north, "north", id, 50), write(buses.south, "south", id, 50)
    )
    found = await read_until(feed, after=start, id=id, count=150)
    for writer in ("hub", "north", "south"):
        numbers = [one.envelope.operationid for one in found if one.writer == writer]
        assert numbers == [str(number) for number in range(50)]


async def test_what_a_site_forges_does_not_reach_the_events(hub_and_sites: HubAndSites, buses: Buses) -> None:
    """South's outbox takes subjects of others when its operator lets it; they stay in IN_south."""
    js = JetStream(buses.south)
    info = await js.stream("EVT_south")
    assert info is not None
    opened = {**info["config"], "subjects": ["calque.evt.>"]}
    await js.call("STREAM.UPDATE.EVT_south", opened)
    id = new_id()
    for writer, event in (("north", InstanceStopping()), ("hub", ClaimTaken(owner="me"))):
        envelope = wrap(event, id=f"{writer}/{new_id()}", source=writer, time="2030-01-01T00:00:00Z")
        subject = f"calque.evt.{writer}.{event.AGGREGATE}.{id}.{event.EVENT}"
        await buses.south.call(subject, encode(envelope), timeout_seconds=60)
    await js.call("STREAM.UPDATE.EVT_south", info["config"])
    feed = EventsFeed(buses.hub)
    before = await feed.last_sequence()
    await write(buses.south, "south", id, 1)
    found = await read_until(feed, after=0, id=id, count=1)
    assert [one.writer for one in found] == ["south"]
    assert await feed.last_sequence() == before + 1
    received = await JetStream(buses.hub).call("STREAM.INFO.IN_south", {"subjects_filter": f"calque.evt.*.*.{id}.>"})
    assert len(received["state"]["subjects"]) == 3


async def test_an_id_used_by_two_sites_suppresses_nothing(buses: Buses) -> None:
    feed = EventsFeed(buses.hub)
    start = await feed.last_sequence()
    aggregate, shared = new_id(), new_id()
    for bus, site in ((buses.north, "north"), (buses.south, "south")):
        envelope = wrap(InstanceStopping(), id=shared, source=site, time="2030-01-01T00:00:00Z")
        subject = f"calque.evt.{site}.instance.{aggregate}.stopping"
        await JetStream(bus).publish(subject, encode(envelope), headers={"Nats-Msg-Id": shared})
    found = await read_until(feed, after=start, id=aggregate, count=2)
    assert {one.writer for one in found} == {"north", "south"}


async def test_setting_up_again_changes_nothing(buses: Buses) -> None:
    js = JetStream(buses.hub)

    async def state() -> dict[str, object]:
        names = (await js.call("STREAM.NAMES"))["streams"]
        infos = {name: await js.call(f"STREAM.INFO.{name}") for name in names}
        return {name: (info["created"], info["config"], info["state"]["last_seq"]) for name, info in infos.items()}

    before = await state()
    await set_up_hub(buses.hub, sites=SITES)
    for site, bus in zip(SITES, (buses.north, buses.south), strict=True):
        await set_up_site(bus, site=site)
        await add_site(buses.hub, site)
    assert await state() == before
    sources = (await js.call(f"STREAM.INFO.{EVENTS}"))["config"]["sources"]
    assert [source["name"] for source in sources] == ["EVT_hub", "IN_north", "IN_south"]
    for name in (EVENTS, "IN_north", "IN_south"):
        assert (await js.call(f"STREAM.INFO.{name}"))["config"].get("duplicate_window", 0) == 0


async def test_a_site_that_is_not_there_is_told_at_the_deadline(buses: Buses) -> None:
    with pytest.raises(CalqueError, match="outbox of site nowhere"):
        await add_site(buses.hub, "nowhere", deadline_seconds=0.1)
    await JetStream(buses.hub).call(f"CONSUMER.DELETE.{COMMANDS}.nowhere")


async def test_a_site_pulls_its_own_commands_over_the_leaf_and_puts_aside_what_is_hopeless(buses: Buses) -> None:
    seen: dict[str, list[str]] = {"north": [], "south": []}
    queues = []
    tasks = []
    for site, bus in (("north", buses.north), ("south", buses.south)):

        async def handler(delivery: Delivery, site: str = site) -> None:
            envelope = decode(delivery.payload)
            seen[site].append(delivery.subject)
            if envelope.operationid == "bad":
                raise ValueError("hopeless")

        queue = WorkQueue(bus, stream=COMMANDS, consumer=site, prefix=SITE_PREFIX)
        queues.append(queue)
        tasks.append(asyncio.create_task(queue.run(handler)))

    async def send(site: str, operation: str) -> str:
        subject = site_command(site=site, principal="hub", aggregate="instance", id="i1", verb="stop")
        data = SiteStopInstance(by=Requester(principal="admin"))
        envelope = wrap(data, id=new_id(), source="hub", time="2030-01-01T00:00:00Z", operationid=operation)
        await enqueue(buses.hub, subject, envelope)
        return subject

    to_north = [await send("north", "good"), await send("north", "bad")]
    to_south = [await send("south", "good")]
    js = JetStream(buses.hub)

    async def done() -> bool:
        infos = [await js.call(f"CONSUMER.INFO.{COMMANDS}.{site}") for site in SITES]
        return all(info["num_pending"] == 0 and info["num_ack_pending"] == 0 for info in infos)

    await until(done, what="all commands are acknowledged at the hub")
    assert seen == {"north": to_north, "south": to_south}
    letters = await JetStream(buses.north).call("STREAM.INFO.DLQ", {"subjects_filter": ">"})
    assert [subject.rpartition(".")[0] for subject in letters["state"]["subjects"]] == ["calque.dlq.hub.CMD.north"]
    for queue in queues:
        await queue.stop()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("part", ["hub-nats", "north-nats"])
async def test_events_arrive_once_and_in_order_when_a_server_restarts(
    hub_and_sites: HubAndSites, buses: Buses, part: str
) -> None:
    feed = EventsFeed(buses.hub)
    start = await feed.last_sequence()
    id = new_id()
    writing = asyncio.create_task(write(buses.north, "north", id, 100))
    await hub_and_sites.supervisor.restart(part)
    await writing
    found = await read_until(feed, after=start, id=id, count=100)
    assert [one.envelope.operationid for one in found] == [str(number) for number in range(100)]


async def test_a_client_with_its_own_credentials_follows_events_and_sends_commands_as_itself_only(
    hub_and_sites: HubAndSites, buses: Buses
) -> None:
    seed = hub_and_sites.client_seed("admin")
    settings = BusSettings(
        servers=[hub_and_sites.hub_url], nkey_seed_file=seed, name="client", jetstream_prefix=HUB_JETSTREAM
    )
    client = await Bus.connect(settings)
    feed = EventsFeed(client)
    start = await feed.last_sequence()
    id = new_id()
    await write(buses.north, "north", id, 3)
    found: list[Recorded] = []
    async with asyncio.timeout(60), aclosing(feed.read_direct(after=start, follow=True)) as batches:
        async for batch in batches:
            found += [each for each in batch if each.id == id]
            if len(found) == 3:
                break

    envelope = wrap(StopInstance(), id=new_id(), source="admin", time="2030-01-01T00:00:00Z")
    own = hub_command(principal="admin", aggregate="instance", id="i1", verb="stop")
    assert await enqueue(client, own, envelope) > 0
    foreign = hub_command(principal="other", aggregate="instance", id="i1", verb="stop")
    with pytest.raises(CalqueError, match="do not allow to publish"):
        await enqueue(client, foreign, envelope, timeout_seconds=60)
    await client.close()


async def test_a_broker_with_its_own_credentials_is_found_and_answers(hub_and_sites: HubAndSites, buses: Buses) -> None:
    seed = hub_and_sites.broker_seed("north", "dsb-postgres")
    url = hub_and_sites.site_urls["north"]
    broker = await Bus.connect(BusSettings(servers=[url], nkey_seed_file=seed, name="broker"))

    async def echo(request: Beat, _: Envelope) -> Beat:
        return request

    service = Service(broker, name="dsb-postgres", version="1.0.0", description="", source="dsb-postgres")
    subject = broker_request(site="north", kind="dsb", broker="postgres", operation="info")
    service.endpoint("info", subject, Beat, Beat, echo)
    await service.start()
    [info] = await services_found(buses.north, count=1)
    assert info.name == "dsb-postgres"
    data = Beat(sender="x", run="r", sequence=4, interval_seconds=1)
    answer = await buses.north.ask(info.endpoints[0].subject, data, Beat, source="north", timeout_seconds=60)
    assert answer.sequence == 4
    assert await discover(buses.south, wait_seconds=0.2) == []
    assert await discover(buses.hub, wait_seconds=0.2) == []
    await service.stop()
    await broker.close()
