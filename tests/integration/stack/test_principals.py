"""Principals on real servers, with bare nats-py: let in at once, held to what they may do, cut off at once."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from bus.connection import Bus, BusSettings
from bus.streams import set_up_hub
from hub.stack.access import Access
from hub.stack.errors import StackError
from hub.stack.principals import OPEN_QUERIES, OPERATORS_QUERIES, PRIVATE_QUERIES, Role
from hub.stack.probes import http_body
from schemas.problems import CalqueError
from schemas.queries import QUERIES, WEBHOOK_QUERIES
from schemas.subjects import subscription_consumers
from tests.integration.stack.test_nats_links import SILENCE_SECONDS, api, connected, eventually, heard
from tests.servers import SITES, HubAndSites, run_hub_and_sites

pytestmark = pytest.mark.xdist_group("principals")


@dataclass(frozen=True, kw_only=True)
class World:
    """Servers with the hub's streams, and one principal of each role; `cut` names those that were disconnected."""

    servers: HubAndSites
    access: Access
    seeds: dict[str, str] = field(repr=False)
    directory: Path

    def seed_file(self, name: str, seed: str | None = None) -> str:
        file = self.directory / f"{name}.nk"
        if seed is not None or not file.exists():
            file.write_text(seed or self.seeds[name])
        return str(file)

    @asynccontextmanager
    async def speaking_as(self, name: str, refused: list[str] | None = None) -> AsyncIterator[Client]:
        async with connected(self.servers.hub_url, self.seed_file(name), refused) as client:
            yield client


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with run_hub_and_sites(tmp_path_factory.mktemp("principals")) as servers:
        bus = await Bus.connect(BusSettings(servers=[servers.hub_url], nkey_seed_file=servers.hub_seed))
        try:
            await set_up_hub(bus, sites=SITES)
        finally:
            await bus.close()
        access = Access(servers.home)
        seeds: dict[str, str] = {}
        roles: dict[str, Role] = {"billing": "subscriber", "audit": "subscriber", "eye": "viewer", "root": "operator"}
        for name, role in roles.items():
            seeds[name] = (await access.add(name, role=role))[1] or ""
        seeds["ci"] = (await access.add("ci", role="publisher", verbs=("save", "image.run")))[1] or ""
        limited = await access.add("limited", role="publisher", verbs=("save", "instance.stop"), apps=("app-1",))
        seeds["limited"] = limited[1] or ""
        yield World(servers=servers, access=access, seeds=seeds, directory=tmp_path_factory.mktemp("principals-seeds"))


REFUSED = [
    ("ci", "calque.cmd.hub.ci.instance.i1.delete", "another verb"),
    ("ci", "calque.cmd.hub.ci.image.i1.delete", "another verb"),
    ("ci", "calque.cmd.hub.admin.instance.i1.save", "another principal's token"),
    ("ci", "calque.cmd.site.north.ci.instance.i1.save", "a command to a site"),
    ("ci", "JSHUB.API.DIRECT.GET.EVENTS", "the record of events"),
    ("ci", "JSHUB.API.STREAM.INFO.EVENTS", "the record of events"),
    ("ci", "calque.act.ci.subscribe", "a subscription"),
    ("ci", "calque.qry.binding", "secrets"),
    ("ci", "calque.qry.logs", "logs of apps"),
    ("ci", "_INBOX.billing.x", "another one's inbox"),
    ("limited", "calque.cmd.hub.limited.instance.app-2.save", "another app"),
    ("billing", "calque.cmd.hub.billing.instance.i1.save", "a command"),
    ("billing", "calque.act.audit.subscribe", "another one's subscriptions"),
    ("billing", "calque.act.billing.subscriptions_of", "another one's subscriptions"),
    ("billing", "calque.act.billing.secret_set", "secrets of a site"),
    ("billing", "JSHUB.API.CONSUMER.MSG.NEXT.EVENTS.audit_1", "pulling from another one's consumer"),
    ("billing", "JSHUB.API.CONSUMER.MSG.NEXT.EVENTS.sagas", "pulling from the hub's own consumer"),
    ("billing", "JSHUB.API.CONSUMER.INFO.EVENTS.sagas", "looking at the hub's own consumer"),
    ("billing", "JSHUB.API.CONSUMER.CREATE.EVENTS.billing_1", "a consumer of its own making"),
    ("billing", "JSHUB.API.CONSUMER.RESET.EVENTS.billing_1", "resetting a consumer"),
    ("billing", "JSHUB.API.CONSUMER.DELETE.EVENTS.billing_1", "deleting a consumer"),
    ("billing", "$JS.ACK.EVENTS.audit_1.1.1.1.1.0", "acknowledging for another one"),
    ("billing", "$JS.ACK.EVENTS.sagas.1.1.1.1.0", "acknowledging for the hub"),
    ("billing", "$JS.API.STREAM.DELETE.EVENTS", "deleting a stream"),
    ("billing", "calque.evt.hub.image.i1.saved", "an event"),
    ("billing", "calque.qry.logs", "logs of apps"),
    ("eye", "calque.cmd.hub.eye.instance.i1.save", "a command"),
    ("eye", "calque.act.eye.subscribe", "a subscription"),
    ("eye", "calque.qry.binding", "secrets"),
    ("root", "calque.cmd.hub.admin.instance.i1.save", "another principal's token"),
    ("root", "calque.act.billing.subscribe", "opening another one's subscription"),
    ("root", "JSHUB.API.CONSUMER.MSG.NEXT.EVENTS.sagas", "pulling from the hub's own consumer"),
    ("root", "JSHUB.API.CONSUMER.DELETE.EVENTS.sagas", "deleting the hub's own consumer"),
    ("root", "$JS.API.CONSUMER.DELETE.EVENTS.sagas", "deleting the hub's own consumer"),
    ("root", "$JS.ACK.EVENTS.sagas.1.1.1.1.0", "acknowledging for the hub"),
    ("root", "$JS.API.STREAM.DELETE.EVENTS", "deleting a stream"),
    ("root", "calque.evt.hub.image.i1.saved", "an event"),
]


@pytest.mark.parametrize("name", sorted({name for name, _, _ in REFUSED}))
async def test_what_a_principal_may_not_do_is_refused_by_the_server(world: World, name: str) -> None:
    wanted = [subject for who, subject, _ in REFUSED if who == name]
    refused: list[str] = []
    async with world.speaking_as(name, refused) as client:
        for subject in wanted:
            await client.publish(subject, b"{}")
        await client.flush()

        async def all_refused() -> bool:
            return all(f'publish to "{subject.lower()}"' in " ".join(refused).lower() for subject in wanted)

        await eventually(all_refused)


async def test_what_a_principal_may_do_it_can(world: World) -> None:
    async with (
        connected(world.servers.hub_url, world.servers.hub_seed) as hub,
        world.speaking_as("ci") as publisher,
        world.speaking_as("limited") as limited,
        world.speaking_as("billing") as subscriber,
        world.speaking_as("eye") as viewer,
        world.speaking_as("root") as operator,
    ):
        for client, subject in (
            (publisher, "calque.cmd.hub.ci.instance.i1.save"),
            (publisher, "calque.cmd.hub.ci.image.i1.run"),
            (limited, "calque.cmd.hub.limited.instance.app-1.stop"),
            (operator, "calque.cmd.hub.root.template.t1.apply"),
        ):
            assert (await api(client, subject))["stream"] == "JOBS"
        for client in (subscriber, viewer, operator):
            assert (await api(client, "JSHUB.API.STREAM.INFO.EVENTS"))["config"]["name"] == "EVENTS"
        assert await heard(hub, "calque.qry.status", publisher, "calque.qry.status")
        assert await heard(hub, "calque.act.>", subscriber, "calque.act.billing.subscribe")
        assert await heard(hub, "calque.act.>", operator, "calque.act.root.secret_set")
        assert await heard(viewer, "calque.progress.>", hub, "calque.progress.hub.op1")
        assert await heard(operator, "calque.beat.>", hub, "calque.beat.hub")


async def test_answers_reach_the_inbox_of_the_one_they_are_for_and_nobody_else(world: World) -> None:
    async with (
        connected(world.servers.hub_url, world.servers.hub_seed) as hub,
        world.speaking_as("billing") as billing,
        world.speaking_as("audit") as audit,
    ):
        assert await heard(audit, "_INBOX.audit.>", hub, "_INBOX.audit.answer")
        assert not await heard(billing, "_INBOX.>", hub, "_INBOX.audit.answer", within=SILENCE_SECONDS)


async def test_no_reply_is_sent_where_a_principal_wants_it_but_may_not_publish_itself(world: World) -> None:
    """Within one account, the empty status of a pull deletes the stream that the reply subject names."""
    async with (
        connected(world.servers.hub_url, world.servers.hub_seed) as hub,
        world.speaking_as("billing") as billing,
    ):
        await api(hub, "$JS.API.STREAM.CREATE.VICTIM", {"name": "VICTIM", "subjects": ["victim"], "max_bytes": 1 << 20})
        consumer = {"durable_name": "billing_1", "ack_policy": "explicit", "filter_subject": "calque.evt.none.>"}
        await api(
            hub, "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.billing_1", {"stream_name": "EVENTS", "config": consumer}
        )
        jobs = await api(hub, "$JS.API.STREAM.INFO.JOBS")
        pull, get = b'{"batch":1,"no_wait":true}', b'{"seq":1,"next_by_subj":"calque.evt.none.>"}'
        for target in ("$JS.API.STREAM.DELETE.VICTIM", "calque.cmd.hub.admin.instance.i1.delete"):
            await billing.publish("JSHUB.API.CONSUMER.MSG.NEXT.EVENTS.billing_1", pull, reply=target)
            await billing.publish("JSHUB.API.DIRECT.GET.EVENTS", get, reply=target)
        # The same with a reply that it may hear, to know when the ones before have been handled.
        answer = await billing.request("JSHUB.API.DIRECT.GET.EVENTS", get, timeout=5)
        assert answer.headers is not None
        assert answer.headers["Status"] == "404"
        assert (await api(hub, "$JS.API.STREAM.INFO.VICTIM"))["config"]["name"] == "VICTIM"
        after = await api(hub, "$JS.API.STREAM.INFO.JOBS")
        assert after["state"]["last_seq"] == jobs["state"]["last_seq"]
        await api(hub, "$JS.API.CONSUMER.DELETE.EVENTS.billing_1")
        await api(hub, "$JS.API.STREAM.DELETE.VICTIM")


async def connections(world: World) -> tuple[set[int], set[int]]:
    """The ids of all connections to the hub's server, of clients and of leaf nodes."""
    port = world.servers.monitor_ports["hub"]
    clients = json.loads(await http_body(port, "/connz?limit=1000"))["connections"]
    leafs = json.loads(await http_body(port, "/leafz"))["leafs"]
    return {each["cid"] for each in clients}, {each["id"] for each in leafs}


async def test_letting_in_changing_and_removing_one_cuts_off_nobody_else(world: World) -> None:
    async with (
        connected(world.servers.hub_url, world.servers.hub_seed) as hub,
        world.speaking_as("eye") as eye,
        connected(world.servers.site_urls["north"], world.servers.agent_seed("north")) as north,
    ):
        assert await heard(hub, "calque.beat.*", north, "calque.beat.north")
        clients, leafs = await connections(world)
        _, seed = await world.access.add("visitor", role="viewer")
        async with connected(world.servers.hub_url, world.seed_file("visitor", seed)):
            await world.access.add("visitor", role="subscriber", replace=True)
            await world.access.rotate("visitor")
            await world.access.remove("visitor")
        after, leafs_after = await connections(world)
        assert clients <= after
        assert leafs == leafs_after
        assert await heard(hub, "calque.beat.*", north, "calque.beat.north")
        assert await heard(eye, "calque.progress.>", north, "calque.progress.north.op1")


async def test_who_is_removed_or_has_an_old_key_is_cut_off_and_let_in_no_more(world: World) -> None:
    _, first = await world.access.add("guest", role="viewer")
    ended = asyncio.Event()

    async def closed() -> None:
        ended.set()

    async def ignored(_: Exception) -> None:
        return

    async def enter(seed: str | None) -> Client:
        return await nats.connect(
            world.servers.hub_url,
            nkeys_seed=world.seed_file("guest", seed),
            allow_reconnect=False,
            closed_cb=closed,
            error_cb=ignored,
        )

    async def turned_away(seed: str | None) -> None:
        settings = BusSettings(servers=[world.servers.hub_url], nkey_seed_file=world.seed_file("guest", seed))
        with pytest.raises(CalqueError, match="does not accept the credentials"):
            await Bus.connect(settings, deadline_seconds=60)

    await enter(first)
    _, second = await world.access.rotate("guest")
    await asyncio.wait_for(ended.wait(), 60)
    await turned_away(first)
    ended.clear()
    await enter(second)
    await world.access.remove("guest")
    await asyncio.wait_for(ended.wait(), 60)
    await turned_away(second)
    with pytest.raises(StackError, match="there is no principal 'guest'"):
        await world.access.remove("guest")


async def test_principals_are_there_after_a_restart_of_the_server(world: World) -> None:
    await world.servers.supervisor.restart("hub-nats")
    async with world.speaking_as("billing") as billing:
        assert (await api(billing, "JSHUB.API.STREAM.INFO.EVENTS"))["config"]["name"] == "EVENTS"
    registry = world.servers.home / "keys" / "principals.json"
    assert stat.S_IMODE(registry.stat().st_mode) == 0o600
    assert not any(seed in registry.read_text() for seed in world.seeds.values())


@pytest.mark.parametrize(
    ("role", "verbs", "apps", "said"),
    [
        ("publisher", (), (), "name the verbs"),
        ("publisher", ("explode",), (), "there is no such command"),
        ("publisher", ("deploy",), ("a",), "can't be limited to apps"),
        ("viewer", ("save",), (), "verbs and apps are for publishers"),
    ],
)
async def test_what_can_not_be_is_said_and_nothing_is_changed(
    world: World, role: Role, verbs: tuple[str, ...], apps: tuple[str, ...], said: str
) -> None:
    with pytest.raises(StackError, match=said):
        await world.access.add("odd", role=role, verbs=verbs, apps=apps)
    assert "odd" not in world.access.principals()


def test_somebody_decided_for_every_query_who_may_ask_it() -> None:
    decided = [OPEN_QUERIES, PRIVATE_QUERIES, OPERATORS_QUERIES]
    assert frozenset().union(*decided) == frozenset(QUERIES | WEBHOOK_QUERIES)
    assert sum(map(len, decided)) == len(QUERIES | WEBHOOK_QUERIES)


def test_consumers_of_two_principals_never_have_the_same_name() -> None:
    assert not set(subscription_consumers("a")) & set(subscription_consumers("a-1"))
