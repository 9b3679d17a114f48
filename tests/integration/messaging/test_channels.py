"""Channels as apps meet them: what each may say and hear, who never hears whom, and what takes it away."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import RawCredentials
from nats.errors import NoRespondersError

from brokers.testkit.messaging_probe import PROBE
from bus.client import BusClient
from bus.connection import Bus, BusSettings
from schemas.brokers import (
    Bind,
    Bound,
    DataServiceHealth,
    DataServicesDescription,
    Deprovision,
    DescribeDataServices,
    Done,
    Health,
    Provision,
    Provisioned,
    Unbind,
)
from schemas.ids import new_id
from schemas.secrets import Secret
from schemas.values import Channel
from tests.e2e.stack import until
from tests.integration.broker_process import BrokerProcess, eventually
from tests.patience import PATIENCE_SECONDS
from tests.servers import NatsServer, RunningApps, run_apps_server

BOOTH = Channel(sends=("votes.cast", "votes.total"), receives=("votes.counted.*",))
COUNTER = Channel(sends=("votes.counted.*",), receives=("votes.cast", "votes.total"))


class Messaging(BrokerProcess):
    """The broker, with its requests in brief."""

    async def provision(self, service_id: str) -> Provisioned:
        request = Provision(
            id=new_id(),
            service_id=service_id,
            type="messaging",
            plan="small",
            labels={"instance": service_id, "data_service": "events"},
        )
        return await self.run("provision", request, Provisioned)

    async def bind(self, service_id: str, app: str, channel: Channel | None, *, secret: str = "s3cr3t") -> Bound:
        request = Bind(
            id=new_id(),
            service_id=service_id,
            binding_id=f"{service_id}-{app}",
            secret=Secret(value=f"{service_id}-{app}-{secret}"),
            app_service=app,
            channel=channel,
        )
        return await self.ask("bind", request, Bound)

    async def unbind(self, service_id: str, app: str) -> None:
        await self.ask("unbind", Unbind(id=new_id(), service_id=service_id, binding_id=f"{service_id}-{app}"), Done)

    async def deprovision(self, service_id: str) -> None:
        await self.run("deprovision", Deprovision(id=new_id(), service_id=service_id), Done)


class App:
    """One app service on its channel, and what it heard and was refused."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.refused: list[str] = []
        self.cut = 0
        self.client = BusClient()

    async def there(self, *, cuts: int = 0) -> None:
        """Wait until it is connected again after it was cut so often. Before that the client may take a connection
        for alive that the server is about to end, and what is sent then is lost with it."""
        await eventually(
            lambda: self.cut >= cuts and self.client.is_connected, seconds=PATIENCE_SECONDS, what="the app is back"
        )

    async def listen(self, *subjects: str) -> None:
        async def hear(message: Any) -> None:
            self.heard.append((message.subject, message.data))

        for subject in subjects:
            await self.client.subscribe(subject, cb=hear)
        await self.client.flush()

    async def say(self, subject: str, data: bytes = b"1") -> None:
        await self.client.publish(subject, data)
        await self.client.flush()


class Apps:
    """Connects app services, and ends them with the test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def connect(self, bound: Bound, *, inbox: str | None = None) -> App:
        app = App()

        async def error(said: Exception) -> None:
            app.refused.append(str(said))

        async def disconnected() -> None:
            app.cut += 1

        await app.client.connect(
            servers=[bound.attributes["url"]],
            user_credentials=RawCredentials(bound.secrets["creds"].value),
            inbox_prefix=inbox or bound.attributes["inbox_prefix"],
            error_cb=error,
            disconnected_cb=disconnected,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
        )
        self._stack.push_async_callback(app.client.close)
        return app


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    connected = await Bus.connect(BusSettings(servers=[nats_server.url], name="messaging-tests"))
    yield connected
    await connected.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(
    apps_server: RunningApps, nats_server: NatsServer, bus: Bus, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Messaging]:
    made = started(apps_server, nats_server, bus, tmp_path_factory.mktemp("messaging"), name="nats")
    await made.start()
    yield made
    assert await made.stop() == 0
    assert "Traceback" not in made.log.read_text()


@pytest.fixture
async def apps() -> AsyncIterator[Apps]:
    async with AsyncExitStack() as stack:
        yield Apps(stack)


def started(server: RunningApps, nats_server: NatsServer, bus: Bus, directory: Path, *, name: str) -> Messaging:
    return Messaging(
        "brokers.messaging",
        bus=bus,
        nats_url=nats_server.url,
        kind="dsb",
        name=name,
        directory=directory,
        **server.settings,
    )


async def pair(broker: Messaging, apps: Apps, service_id: str) -> tuple[App, App]:
    """A booth and a counter of one instance, both listening."""
    await broker.provision(service_id)
    booth = await apps.connect(await broker.bind(service_id, "booth", BOOTH))
    counter = await apps.connect(await broker.bind(service_id, "counter", COUNTER))
    await booth.listen("votes.counted.*")
    await counter.listen("votes.cast")
    return booth, counter


async def test_two_copies_of_one_app_never_hear_each_other(broker: Messaging, apps: Apps) -> None:
    first, second = await pair(broker, apps, new_id()), await pair(broker, apps, new_id())
    await first[0].say("votes.cast", b"tea")
    await first[1].say("votes.counted.tea", b"1")
    await eventually(
        lambda: bool(first[0].heard and first[1].heard), seconds=PATIENCE_SECONDS, what="the first copy hears itself"
    )
    assert first[1].heard == [("votes.cast", b"tea")]
    assert first[0].heard == [("votes.counted.tea", b"1")]
    for app in second:
        await app.client.flush()
        assert app.heard == []


@pytest.mark.parametrize("subject", ["votes.counted.tea", "votes", "$SYS.REQ.SERVER.PING", "$JS.API.INFO"])
async def test_what_is_not_declared_can_not_be_sent(broker: Messaging, apps: Apps, subject: str) -> None:
    booth, _ = await pair(broker, apps, new_id())
    await booth.say(subject)
    await eventually(lambda: bool(booth.refused), seconds=PATIENCE_SECONDS, what="the refusal")
    assert "permissions violation for publish" in booth.refused[0].lower()
    assert booth.cut == 0


@pytest.mark.parametrize("subject", ["votes.cast", ">", "votes.>", "_INBOX.>", "_INBOX_counter.>", "$SYS.>"])
async def test_what_is_not_declared_can_not_be_heard(broker: Messaging, apps: Apps, subject: str) -> None:
    booth, _ = await pair(broker, apps, new_id())
    await booth.listen(subject)
    await eventually(lambda: bool(booth.refused), seconds=PATIENCE_SECONDS, what="the refusal")
    assert "permissions violation for subscription" in booth.refused[0].lower()


async def test_a_request_is_answered_without_a_declaration_of_the_reply(broker: Messaging, apps: Apps) -> None:
    booth, counter = await pair(broker, apps, new_id())

    async def total(message: Any) -> None:
        await message.respond(b"42")

    await counter.client.subscribe("votes.total", cb=total)
    await counter.client.flush()
    answers: list[bytes] = []

    async def answered() -> bool:  # while a server reads its settings again, who listens may be on the way back
        with contextlib.suppress(NoRespondersError):
            answers.append((await booth.client.request("votes.total", b"", timeout=PATIENCE_SECONDS)).data)
        return bool(answers)

    await until(answered, seconds=PATIENCE_SECONDS, what="the answer")
    assert answers == [b"42"]
    assert (booth.refused, counter.refused) == ([], [])


async def test_a_binding_without_a_channel_may_log_in_and_nothing_else(broker: Messaging, apps: Apps) -> None:
    service = new_id()
    await broker.provision(service)
    mute = await apps.connect(await broker.bind(service, "mute", None))
    await mute.say("votes.cast")
    await mute.listen("_INBOX_mute.x")
    await eventually(lambda: len(mute.refused) == 2, seconds=PATIENCE_SECONDS, what="the refusals")


async def test_unbind_cuts_who_is_connected_and_nobody_else(broker: Messaging, apps: Apps) -> None:
    service = new_id()
    booth, counter = await pair(broker, apps, service)
    credentials = await broker.bind(service, "booth", BOOTH)
    await broker.unbind(service, "booth")
    await eventually(lambda: booth.cut > 0, seconds=PATIENCE_SECONDS, what="the booth is cut")
    assert not await PROBE.opens(credentials)
    await counter.client.flush()
    assert (counter.cut, counter.refused) == (0, [])


async def test_the_old_secret_opens_nothing_once_there_is_a_new_one(broker: Messaging, apps: Apps) -> None:
    service = new_id()
    booth, _ = await pair(broker, apps, service)
    await broker.bind(service, "booth", BOOTH, secret="another")
    await eventually(lambda: booth.cut > 0, seconds=PATIENCE_SECONDS, what="who has the old secret is cut")


async def test_another_channel_for_the_same_binding_takes_effect_at_once(broker: Messaging, apps: Apps) -> None:
    service = new_id()
    booth, counter = await pair(broker, apps, service)
    await broker.bind(service, "booth", Channel(sends=("votes.withdrawn",)))
    await booth.there(cuts=1)
    await booth.say("votes.cast", b"late")
    await eventually(lambda: bool(booth.refused), seconds=PATIENCE_SECONDS, what="the old channel is refused")
    await counter.client.flush()
    assert counter.cut == 0


async def test_deprovision_cuts_all_and_the_account_is_gone(
    broker: Messaging, apps: Apps, apps_server: RunningApps
) -> None:
    service, other = new_id(), new_id()
    booth, counter = await pair(broker, apps, service)
    spared, _ = await pair(broker, apps, other)
    await broker.deprovision(service)
    await eventually(lambda: booth.cut > 0 and counter.cut > 0, seconds=PATIENCE_SECONDS, what="all are cut")
    shown = await broker.ask("describe", DescribeDataServices(), DataServicesDescription)
    known = {each.labels["service_id"] for each in shown.resources}
    assert service not in known
    assert other in known
    assert spared.cut == 0
    said = await broker.ask("health", DataServiceHealth(service_id=service), Health)
    assert not said.healthy


async def test_a_data_service_made_again_by_its_id_is_open_to_new_credentials_alone(
    broker: Messaging, apps: Apps
) -> None:
    service = new_id()
    booth, _ = await pair(broker, apps, service)
    await broker.deprovision(service)
    await eventually(lambda: booth.cut > 0, seconds=PATIENCE_SECONDS, what="the booth is cut")
    await broker.provision(service)
    new = await apps.connect(await broker.bind(service, "booth", BOOTH, secret="new"))
    await new.say("votes.cast")
    assert new.refused == []
    await eventually(
        # the server may end it with another reason than that it knows it no more, after which a client gives up
        lambda: booth.client.is_closed or any("uthorization" in said for said in booth.refused),
        seconds=PATIENCE_SECONDS,
        what="the booth is refused when it comes",
    )
    assert not booth.client.is_connected


async def test_channels_outlive_a_kill_of_server_and_broker(
    nats_server: NatsServer, bus: Bus, apps: Apps, tmp_path: Path
) -> None:
    async with run_apps_server(tmp_path / "home") as server:
        broker = started(server, nats_server, bus, tmp_path / "broker", name="own-nats")
        await broker.start()
        try:
            service = new_id()
            booth, counter = await pair(broker, apps, service)
            before = await broker.bind(service, "booth", BOOTH)
            await server.restart()
            await broker.kill()
            for app in (booth, counter):
                await app.there(cuts=1)
            await booth.say("votes.cast", b"after")
            await eventually(lambda: bool(counter.heard), seconds=PATIENCE_SECONDS, what="the vote arrives")
            await broker.start()
            assert await broker.bind(service, "booth", BOOTH) == before
            assert [said for app in (booth, counter) for said in app.refused if "violation" in said] == []
        finally:
            await broker.stop()


async def test_a_server_that_is_away_is_a_temporary_problem(nats_server: NatsServer, bus: Bus, tmp_path: Path) -> None:
    async with run_apps_server(tmp_path / "home") as server:
        broker = started(server, nats_server, bus, tmp_path / "broker", name="lone-nats")
    await broker.start()
    try:
        request = Provision(id=new_id(), service_id=new_id(), type="messaging", plan="small")
        problem = await broker.fails("provision", request)
        assert problem.temporary, problem
        said = await broker.ask("health", DataServiceHealth(), Health)
        assert not said.healthy
    finally:
        await broker.stop()
    assert "Traceback" not in broker.log.read_text()
