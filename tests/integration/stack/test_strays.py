"""What a site forges, repeats or garbles, on servers as ``calque up`` runs them: kept out of the record, counted, and
nothing of others is held up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest_asyncio

from bus.connection import CONTENT_HEADERS, Bus, BusSettings
from bus.events import Recorded
from bus.feed import EventsFeed
from bus.jetstream import JetStream
from bus.strays import forged
from bus.streams import EVENTS, add_site, set_up_hub, set_up_site
from hub.stack.nats_config import AGENT_INBOX, HUB_INBOX
from schemas.envelope import encode, timestamp, wrap
from schemas.events import CopyCopying, Event, SiteAnnounced, TemplateApplied
from schemas.ids import new_id
from schemas.subjects import HUB, event, outbox
from schemas.values import Requester, Template
from tests.servers import SITES, run_hub_and_sites

DEADLINE_SECONDS = 60.0


@dataclass
class Joined:
    """A hub's bus, those of the agents of both sites, and what a hub reads from the record."""

    hub: Bus
    agents: dict[str, Bus]
    feed: EventsFeed
    read: list[Recorded]

    async def say(self, by: str, subject: str, data: Event | bytes, *, source: str, id: str = "") -> str:
        """Store something in the outbox of site ``by``; returns its id."""
        id = id or f"{source}/{new_id()}"
        if isinstance(data, Event):
            data = encode(wrap(data, id=id, source=source, time=timestamp(datetime.now(UTC))))
        await JetStream(self.agents[by]).publish(subject, data, headers={**CONTENT_HEADERS, "Nats-Msg-Id": id})
        return id

    async def arrived(self, id: str, *, writer: str) -> None:
        await until(lambda: any((one.envelope.id, one.writer) == (id, writer) for one in self.read))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not holds():  # noqa: ASYNC110 - it is another process that changes
            await asyncio.sleep(0.05)


async def counted(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await look():  # noqa: ASYNC110 - it is another process that changes
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def joined(tmp_path_factory: object) -> AsyncIterator[Joined]:
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(run_hub_and_sites(tmp_path_factory.mktemp("strays")))  # type: ignore[attr-defined]
        hub = await Bus.connect(
            BusSettings(servers=[servers.hub_url], nkey_seed_file=servers.hub_seed, inbox_prefix=HUB_INBOX)
        )
        stack.push_async_callback(hub.close)
        agents = {}
        for site in SITES:
            settings = BusSettings(
                servers=[servers.site_urls[site]], nkey_seed_file=servers.agent_seed(site), inbox_prefix=AGENT_INBOX
            )
            agents[site] = await Bus.connect(settings)
            stack.push_async_callback(agents[site].close)
            await set_up_site(agents[site], site=site)
        await set_up_hub(hub, sites=SITES)
        for site in SITES:
            await add_site(hub, site, deadline_seconds=DEADLINE_SECONDS)
        # A site does with its own server what it likes: its outbox takes what it has no business with.
        js = JetStream(agents["north"])
        info = await js.call(f"STREAM.INFO.{outbox('north')}")
        wide = {**info["config"], "subjects": ["calque.evt.>"], "max_msg_size": -1}
        await js.call(f"STREAM.UPDATE.{outbox('north')}", wide)
        feed, read = EventsFeed(hub), []

        async def follow() -> None:
            async for batch in feed.read():
                read.extend(batch)

        following = asyncio.create_task(follow())
        try:
            yield Joined(hub, agents, feed, read)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def test_what_a_site_forges_stays_out_of_the_record_and_is_counted(joined: Joined) -> None:
    template = Template(name="forged", version="1", services={})
    applied = TemplateApplied(template=template, digest="d", by=Requester(principal="admin"))
    of_hub = event(writer=HUB, aggregate="template", id="forged@1", event="applied")
    of_south = event(writer="south", aggregate="site", id="south", event="announced")
    await joined.say("north", of_hub, applied, source=HUB)
    await joined.say("north", of_south, SiteAnnounced(version="1", seal_key="north's"), source="south")
    own = event(writer="north", aggregate="copy", id="c1", event="copying")
    after = await joined.say("north", own, CopyCopying(repository="north/main"), source="north")
    await joined.arrived(after, writer="north")
    assert {(one.writer, one.aggregate) for one in joined.read} == {("north", "copy")}

    async def both() -> bool:
        found = await forged(JetStream(joined.hub), "north", others=[HUB, "south"])
        return found is not None and found.count == 2

    await counted(both)
    found = await forged(JetStream(joined.hub), "north", others=[HUB, "south"])
    assert found is not None
    assert [example.partition(" ")[0] for example in found.examples] == [of_hub, of_south]
    assert await forged(JetStream(joined.hub), "south", others=[HUB, "north"]) is None


async def test_an_id_that_another_site_has_used_suppresses_nothing(joined: Joined) -> None:
    id = f"south/{new_id()}"
    for writer in SITES:
        subject = event(writer=writer, aggregate="copy", id="same", event="copying")
        await joined.say(writer, subject, CopyCopying(repository=f"{writer}/main"), source=writer, id=id)
    for writer in SITES:
        await joined.arrived(id, writer=writer)


async def test_what_is_of_no_use_is_set_apart_by_reason_and_what_follows_arrives(joined: Joined) -> None:
    copying = CopyCopying(repository="north/main")
    own = event(writer="north", aggregate="copy", id="c2", event="copying")
    other = event(writer="north", aggregate="copy", id="c2", event="expired")
    of_south = event(writer="south", aggregate="copy", id="c3", event="copying")
    await joined.say("north", own, copying, source="south")
    await joined.say("north", own, copying, source="hub")
    await joined.say("north", other, copying, source="north")
    await joined.say("north", own, b"\xff{", source="north")
    await joined.say("north", own, b"{" + b" " * (200 << 10) + b"}", source="north")
    await joined.say("north", "calque.evt.north.copy.a.b.c", b"{}", source="north")
    applied = TemplateApplied(
        template=Template(name="t", version="1", services={}), digest="d", by=Requester(principal="admin")
    )
    await joined.say(
        "north", event(writer="north", aggregate="template", id="t@1", event="applied"), applied, source="north"
    )
    after = await joined.say("south", of_south, copying, source="south")
    last = await joined.say("north", own, copying, source="north")
    await joined.arrived(after, writer="south")
    await joined.arrived(last, writer="north")
    counts = joined.feed.strays.counts()
    assert counts == {
        ("north", "source"): 2,
        ("north", "type"): 1,
        ("north", "unreadable"): 1,
        ("north", "size"): 1,
        ("", "subject"): 1,
        ("north", "owner"): 1,
    }
    shown = {(view.writer, view.reason): view for view in joined.feed.strays.views()}
    assert "'south' in the stream of 'north'" in shown["north", "source"].examples[0]
    assert f"{EVENTS} " in shown["north", "size"].examples[0]
    assert joined.feed.refused == 7
