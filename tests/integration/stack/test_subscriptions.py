"""Durable subscriptions on real servers with a real hub: places in the record that outlive their readers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from bus.connection import Bus, BusSettings
from bus.events import EventStore, NewEvent
from bus.settings import BusSection
from bus.streams import set_up_site
from hub.client import Client, ConflictError, Context, ForbiddenError, InvalidError
from hub.client.subscriptions import SubscribedEvent, Subscription
from hub.process import hub
from hub.settings import HubSettings
from hub.stack.access import Access
from hub.stack.principals import Role
from schemas.events import CopyPrepared, InstanceStopping, OperationAccepted
from schemas.ids import new_id
from schemas.values import Requester
from tests.servers import SITES, HubAndSites, run_hub_and_sites

pytestmark = pytest.mark.xdist_group("subscriptions")

SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class World:
    servers: HubAndSites
    directory: Path
    stores: dict[str, EventStore]
    connect: Callable[[str], Context]

    async def client(self, principal: str = "billing") -> Client:
        return await Client.connect(self.connect(principal))

    async def write(self, site: str, count: int, *, id: str | None = None) -> str:
        """Events of one new copy at a site; its id."""
        copy = id or new_id()
        events = [NewEvent("copy", copy, CopyPrepared(moment=str(number), level="crash")) for number in range(count)]
        await self.stores[site].append(events, expected={("copy", copy): 0})
        return copy

    async def arrived(self, id: str, count: int) -> None:
        """Return when the hub's record has them."""
        async with await self.client() as client, asyncio.timeout(SECONDS):
            found = 0
            async for event in client.events(after=0, follow=True):
                found += event.id == id
                if found == count:
                    return


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("subscriptions-keys")
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(run_hub_and_sites(tmp_path_factory.mktemp("subscriptions")))
        stores = {}
        for site in SITES:
            settings = BusSettings(servers=[servers.site_urls[site]], nkey_seed_file=servers.agent_seed(site))
            bus = await Bus.connect(settings)
            stack.push_async_callback(bus.close)
            await set_up_site(bus, site=site)
            stores[site] = EventStore(bus, writer=site)
        await stack.enter_async_context(hub(hub_settings(servers)))
        access = Access(servers.home)
        roles: dict[str, Role] = {"billing": "subscriber", "audit": "subscriber", "eye": "viewer", "root": "operator"}
        for name, role in roles.items():
            _, seed = await access.add(name, role=role)
            (directory / f"{name}.nk").write_text(seed or "")

        def connect(principal: str) -> Context:
            return Context(
                servers=(servers.hub_url,), principal=principal, nkey_seed_file=str(directory / f"{principal}.nk")
            )

        yield World(servers=servers, directory=directory, stores=stores, connect=connect)


def hub_settings(servers: HubAndSites) -> HubSettings:
    bus = BusSection(servers=[servers.hub_url], nkey_seed_file=servers.hub_seed, name="hub", inbox_prefix="_HUB")
    return HubSettings(bus=bus, sites=list(SITES))


class InTheMiddleError(Exception):
    """What a body may raise."""


async def take(events: Subscription, count: int) -> list[SubscribedEvent]:
    """The next ones; the last of them is not acknowledged by this."""
    async with asyncio.timeout(SECONDS):
        return [await anext(events) for _ in range(count)]


def moments(events: Sequence[SubscribedEvent], copy: str) -> list[str]:
    return [event.data["moment"] for event in events if event.about == copy]


async def test_a_reader_goes_on_where_the_one_before_had_acknowledged(world: World) -> None:
    copy = await world.write("north", 10)
    async with await world.client() as client:
        async with client.subscribe("place", start="first", types=["copy.prepared"]) as events:
            assert moments(await take(events, 10), copy)[-1] == "9"
        # Left at the tenth, in good order: acknowledged. Now one that fails in the middle of its work.
        again = await world.write("north", 5)
        with suppress(InTheMiddleError):
            async with client.subscribe("place") as events:
                assert moments(await take(events, 3), again) == ["0", "1", "2"]
                raise InTheMiddleError
        async with client.subscribe("place") as events:
            found = await take(events, 3)
        assert moments(found, again) == ["2", "3", "4"]
        assert [event.site for event in found] == ["north"] * 3
        assert await client.unsubscribe("place")
        assert not await client.unsubscribe("place")


async def test_begins_at_any_point_in_the_past(world: World) -> None:
    first = await world.write("north", 3)
    await world.arrived(first, 3)
    between = datetime.now(UTC)
    second = await world.write("north", 3)
    await world.arrived(second, 3)
    async with await world.client() as client:
        async with client.subscribe("since", since=between, types=["copy"], follow=False) as events:
            since = [event async for event in events]
        assert {event.about for event in since} == {second}
        async with client.subscribe("sequence", sequence=since[1].sequence, follow=False) as events:
            found = [event.sequence async for event in events]
            assert found[0] == since[1].sequence
        async with client.subscribe("new", types=["copy"]) as events:
            third = await world.write("north", 2)
            assert {event.about for event in await take(events, 2)} == {third}
        async with client.subscribe("all", start="first", types=["copy"], follow=False) as events:
            assert {first, second, third} <= {event.about async for event in events}
        names = [place.name for place in await client.subscriptions()]
        assert names == ["all", "new", "sequence", "since"]
        for name in names:
            await client.unsubscribe(name)
        assert await client.subscriptions() == ()


async def test_filters_by_site_and_type(world: World) -> None:
    async with await world.client() as client:
        async with (
            client.subscribe("south", sites=["south"], types=["copy.prepared"]) as south,
            client.subscribe("stopping", types=["instance", "instance.stopping"]) as stopping,
        ):
            await world.write("north", 2)
            there = await world.write("south", 2)
            instance = new_id()
            await world.stores["north"].append(
                [NewEvent("instance", instance, InstanceStopping())], expected={("instance", instance): 0}
            )
            assert {event.about for event in await take(south, 2)} == {there}
            assert [event.about for event in await take(stopping, 1)] == [instance]
        for name in ("south", "stopping"):
            await client.unsubscribe(name)


async def test_an_app_is_its_own_events_and_what_operations_on_it_wrote(world: World) -> None:
    app, other, operation = new_id(), new_id(), new_id()
    image, copy, foreign = new_id(), new_id(), new_id()
    store = world.stores["north"]

    def accepted(target: str) -> OperationAccepted:
        return OperationAccepted(kind="save", target=target, name="x", by=Requester(principal="p"), steps=())

    async def write(aggregate: str, id: str, event: object, *, by: str | None = None, after: int = 0) -> None:
        new = NewEvent(aggregate, id, event, operation=by)  # type: ignore[arg-type]
        await store.append([new], expected={(aggregate, id): after})

    async with await world.client() as client, client.subscribe("app", apps=[app]) as events:
        assert events.place.apps == (app,)
        await write("operation", operation, accepted(app))
        await write("operation", foreign, accepted(other))
        await write("instance", other, InstanceStopping(), by=foreign)
        await write("copy", new_id(), CopyPrepared(moment="m", level="crash"), by=foreign)
        await write("copy", copy, CopyPrepared(moment="m", level="crash"), by=operation)
        await write("instance", app, InstanceStopping())
        assert [event.about for event in await take(events, 3)] == [operation, copy, app]
        assert (await client.subscriptions())[0].apps == (app,)
    async with await world.client() as client:
        # The operation was read before: what it is about is asked of the hub.
        async with client.subscribe("app") as events:
            await write("copy", image, CopyPrepared(moment="m", level="crash"), by=operation)
            assert [event.about for event in await take(events, 1)] == [image]
        await client.unsubscribe("app")


async def test_nothing_is_missed_nor_out_of_order_over_reconnects_and_restarts_of_the_server(world: World) -> None:
    async with await world.client() as client:
        async with client.subscribe("steady", types=["copy.prepared"]) as events:
            copy = await world.write("north", 500)
            found = await take(events, 100)
            await world.servers.supervisor.restart("hub-nats")
            found += await take(events, 400)
        # What was acknowledged just when the server went may come again, and is dropped by its sequence here.
        assert moments(found, copy) == [str(number) for number in range(500)]
        assert len({event.id for event in found}) == 500
        await client.unsubscribe("steady")


async def test_who_opens_takes_over_and_the_one_before_is_told(world: World) -> None:
    async with await world.client() as one, await world.client() as two:
        async with one.subscribe("shared", types=["copy.prepared"]) as former:
            first = await world.write("north", 1)
            assert [event.about for event in await take(former, 1)] == [first]
            async with two.subscribe("shared") as latter:
                assert [event.about for event in await take(latter, 1)] == [first]
                second = await world.write("north", 1)
                with pytest.raises(ConflictError, match="taken over"):
                    await take(former, 100)
                assert [event.about for event in await take(latter, 1)] == [second]
        await two.unsubscribe("shared")


async def test_other_filters_for_a_name_that_is_there_are_refused(world: World) -> None:
    async with await world.client() as client:
        async with client.subscribe("fixed", sites=["north"]):
            pass
        with pytest.raises(ConflictError, match="has other sites: north"):
            async with client.subscribe("fixed", sites=["south"]):
                pass
        for wrong in ({"types": ["copy.eaten"]}, {"types": ["cake"]}, {"sites": ["a.b"]}):
            with pytest.raises(InvalidError):
                async with client.subscribe("wrong", **wrong):  # type: ignore[arg-type]
                    pass
        with pytest.raises(InvalidError, match="is not a name"):
            async with client.subscribe("not a name"):
                pass
        await client.unsubscribe("fixed")


async def test_the_names_of_two_principals_are_two_subscriptions_and_an_operator_sees_both(world: World) -> None:
    async with await world.client("billing") as billing, await world.client("audit") as audit:
        async with billing.subscribe("same"), audit.subscribe("same", sites=["north"]):
            assert len(await billing.subscriptions()) == 1
        with pytest.raises(ForbiddenError):
            await billing.subscriptions(principal="audit")
        async with await world.client("root") as operator:
            found = await operator.subscriptions(everybody=True)
            assert [(place.principal, place.name) for place in found] == [("audit", "same"), ("billing", "same")]
            assert await operator.unsubscribe("same", principal="audit")
        assert await audit.subscriptions() == ()
        await billing.unsubscribe("same")
    async with await world.client("eye") as viewer:
        with pytest.raises(ForbiddenError):
            async with viewer.subscribe("any"):
                pass
        assert [event async for event in viewer.events(after=0)] != []


async def test_there_is_a_bound_to_what_one_principal_may_keep(world: World) -> None:
    async with await world.client("audit") as client:
        for number in range(16):
            async with client.subscribe(f"s{number}"):
                pass
        with pytest.raises(ConflictError, match="16 subscriptions"):
            async with client.subscribe("one-more"):
                pass
        await client.unsubscribe("s7")
        async with client.subscribe("one-more"):
            pass
        for place in await client.subscriptions():
            await client.unsubscribe(place.name)


@pytest.mark.full
async def test_replay_is_quick(world: World) -> None:
    count = 20
    copies = [await world.write("south", 1000) for _ in range(count)]
    await world.arrived(copies[-1], 1000)
    async with await world.client() as client:
        began = time.process_time()
        async with client.subscribe("replay", start="first", types=["copy.prepared"], follow=False) as events:
            found = [event.sequence async for event in events]
        took = time.process_time() - began
        await client.unsubscribe("replay")
    assert found == sorted(set(found))
    assert len(found) / took > 2000, f"{len(found) / took:.0f} events per second of CPU"
