"""How far the hub is behind a site, on real servers joined by a leaf connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus.connection import Bus, BusSettings
from bus.events import EventStore, NewEvent
from bus.jetstream import JetStream
from bus.streams import EVENTS, set_up_site
from hub.client import Client
from hub.process import hub
from hub.settings import BusSection, HubSettings
from schemas.envelope import timestamp, wrap
from schemas.events import CommandAccepted
from schemas.ids import new_id
from schemas.queries import SiteView
from schemas.signals import Beat
from schemas.subjects import beat
from site_agent.adapters.condition import Conditions
from site_agent.domain.site import Site
from tests.e2e.stack import until
from tests.servers import HubAndSites, run_hub_and_sites

SITE = "north"


@dataclass
class Outbox:
    """What an agent does for this: it stores events, and tells its condition with each heartbeat."""

    bus: Bus
    store: EventStore
    conditions: Conditions
    last: int = 0

    async def write(self, number: int) -> None:
        for _ in range(number):
            new = NewEvent(aggregate="command", id="a", event=CommandAccepted(kind="x"))
            stored = await self.store.append([new], expected={("command", "a"): self.last})
            self.last = stored[-1].sequence

    async def beat(self) -> None:
        sequence = 0
        while True:
            sequence += 1
            await self.conditions.look()
            said = self.conditions.latest
            data = Beat(sender=SITE, run="r", sequence=sequence, interval_seconds=0.2, condition=said)
            await self.bus.publish(beat(SITE), wrap(data, id=new_id(), source=SITE, time=timestamp(datetime.now(UTC))))
            await asyncio.sleep(0.2)


@asynccontextmanager
async def joined(servers: HubAndSites, home: Path) -> AsyncIterator[tuple[Outbox, Client, Bus]]:
    """A hub, and a site that has joined it."""
    at_hub = BusSettings(servers=[servers.hub_url], nkey_seed_file=servers.hub_seed, inbox_prefix="_HUB")
    at_site = BusSettings(
        servers=[servers.site_urls[SITE]], nkey_seed_file=servers.agent_seed(SITE), inbox_prefix="_AGENT"
    )
    section = BusSection(servers=[servers.hub_url], nkey_seed_file=servers.hub_seed, name="hub", inbox_prefix="_HUB")
    site, beside = await Bus.connect(at_site), await Bus.connect(at_hub)
    await set_up_site(site, site=SITE)
    box = Outbox(site, EventStore(site, writer=SITE), Conditions(site, lambda: Site(SITE), state_dir=home))
    beating = asyncio.create_task(box.beat())
    try:
        async with hub(HubSettings(bus=section, sites=[SITE])):
            yield box, Client(beside, principal="admin"), beside
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        await site.close()
        await beside.close()


async def north(client: Client) -> SiteView:
    [found] = [site for site in await client.sites() if site.name == SITE]
    return found


async def lagging(client: Client, number: int | None) -> bool:
    return (await north(client)).lag == number


async def test_the_lag_of_a_site_is_what_the_hub_has_not_projected(tmp_path: Path) -> None:
    async with run_hub_and_sites(tmp_path / "home") as servers, joined(servers, tmp_path) as (box, client, bus):
        await box.write(5)
        await until(lambda: lagging(client, 0), seconds=20, what="no lag")
        js = JetStream(bus)
        config = (await js.call(f"STREAM.INFO.{EVENTS}"))["config"]
        less = [source for source in config["sources"] if source["name"] != f"IN_{SITE}"]
        await box.write(7)

        async def held() -> bool:
            # again, since a hub that has just been joined looks whether its source has stayed
            await js.call(f"STREAM.UPDATE.{EVENTS}", {**config, "sources": less})
            return await lagging(client, box.last)

        await until(held, seconds=20, what="a lag of all that is sourced no more")
        await js.call(f"STREAM.UPDATE.{EVENTS}", config)
        await until(lambda: lagging(client, 0), seconds=20, what="no lag")
        told = (await north(client)).condition
        assert told is not None
        assert told.position == box.last
        assert told.outbox_limit_bytes
        assert told.disk_free_bytes


@pytest.mark.full
async def test_after_a_cut_the_lag_is_told_and_goes_away(tmp_path: Path) -> None:
    async with run_hub_and_sites(tmp_path / "home") as servers, joined(servers, tmp_path) as (box, client, _):
        await box.write(3)
        await until(lambda: lagging(client, 0), seconds=20, what="no lag")
        await servers.supervisor._keepers["north-nats"].stop(deadline=asyncio.get_running_loop().time() + 5)
        await until(lambda: lagging(client, None), seconds=40, what="that nothing is known of the site")
        await servers.supervisor._keepers["north-nats"].start()
        await box.write(40)
        await until(lambda: lagging(client, 0), seconds=60, what="no lag")
        view = await north(client)
        assert view.condition is not None
        assert view.condition.position == box.last
