"""A NATS server, two scripted sites, a client, and as many hubs as a test wants: in this process or in others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import pytest_asyncio

from bus.connection import Bus, BusSettings, Message
from bus.ending import end
from bus.jetstream import JetStream
from bus.streams import set_up_hub
from hub.process import Hub, hub
from hub.settings import BusSection, HubSettings
from schemas.commands import Answer, ApplyTemplate, Command, DeployInstance, SaveInstance
from schemas.envelope import decode, encode, timestamp, unwrap, wrap
from schemas.ids import new_id
from schemas.names import template_token
from schemas.queries import (
    AppsQuery,
    AppsView,
    AppView,
    ImagesQuery,
    ImagesView,
    ImageView,
    OperationsQuery,
    OperationsView,
    OperationView,
)
from schemas.signals import Beat
from schemas.subjects import beat, hub_command, query, reply_prefix
from schemas.values import Artifact, DataServiceSpec, ServiceSpec, Template, TemplateRef
from tests.integration.hub.fakes import FakeSite, make_outbox
from tests.patience import patience

T = TypeVar("T", bound=msgspec.Struct)

SITES = ("north", "south")
ANSWER_SECONDS = 60.0
SHOP = Template(
    name="shop",
    version="1",
    services={"web": ServiceSpec(artifact=Artifact(directory="/srv/shop", command=("serve",)), type="public", port=80)},
    data_services={"db": DataServiceSpec(type="database"), "docs": DataServiceSpec(type="objectstore")},
    entrypoint="web",
)


async def until(
    condition: Callable[[], Awaitable[bool]] | Callable[[], bool], *, what: str, deadline_seconds: float = 20.0
) -> None:
    """Poll ``condition``; fail with ``what`` after the deadline."""
    try:
        async with asyncio.timeout(patience(deadline_seconds)):
            while True:
                holds = condition()
                if await holds if isinstance(holds, Awaitable) else holds:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not within {patience(deadline_seconds)} s: {what}")


class Client:
    """Sends commands and queries as the principal ``alice``."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def send(
        self, command: Command, aggregate_id: str, *, id: str | None = None, expirytime: str | None = None
    ) -> tuple[str, asyncio.Future[Answer]]:
        """Queue a command; the future is its answer."""
        id = id or new_id()
        inbox = f"{reply_prefix('alice')}.{new_id()}"
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        async def take(message: Message) -> None:
            if not answer.done():
                answer.set_result(unwrap(decode(message.payload), Answer))

        await self.bus.subscribe(inbox, take)
        envelope = wrap(
            command,
            id=id,
            source="someone-else",
            time=timestamp(datetime.now(UTC)),
            replyto=inbox,
            expirytime=expirytime,
        )
        subject = hub_command(principal="alice", aggregate=command.AGGREGATE, id=aggregate_id, verb=command.VERB)
        # Twice from one id would be stopped by the stream already: the hub itself is to recognise it.
        await JetStream(self.bus).publish(subject, encode(envelope), headers={"Nats-Msg-Id": new_id()})
        return id, answer

    async def ask(self, command: Command, aggregate_id: str, **more: Any) -> Answer:
        """Queue a command and wait for its answer."""
        _, answer = await self.send(command, aggregate_id, **more)
        async with asyncio.timeout(ANSWER_SECONDS):
            return await answer

    async def query(self, what: str, question: msgspec.Struct, reply: type[T]) -> T:
        return await self.bus.ask(query(what), question, reply, source="alice", timeout_seconds=60)

    async def app(self, name: str) -> AppView | None:
        found = (await self.query("apps", AppsQuery(name=name, all=True), AppsView)).apps
        return found[0] if found else None

    async def images(self, id: str | None = None) -> tuple[ImageView, ...]:
        return (await self.query("images", ImagesQuery(name=id, all=True), ImagesView)).images

    async def image(self, id: str) -> ImageView:
        return (await self.images(id))[0]

    async def operation(self, id: str) -> OperationView | None:
        found = (await self.query("operations", OperationsQuery(id=id), OperationsView)).operations
        return found[0] if found else None

    async def ended(self, id: str) -> OperationView:
        async def has_ended() -> bool:
            view = await self.operation(id)
            return view is not None and view.state in ("succeeded", "failed", "cancelled")

        await until(has_ended, what=f"operation {id} has ended")
        view = await self.operation(id)
        assert view is not None
        return view

    # --- what most tests begin with

    async def apply(self, template: Template = SHOP) -> Answer:
        return await self.ask(ApplyTemplate(template=template), template_token(template.name, template.version))

    async def deploy(self, name: str = "shop", *, site: str = "north") -> str:
        """A running instance; returns its id."""
        instance = new_id()
        answer = await self.ask(DeployInstance(name=name, site=site, template=TemplateRef(name="shop")), instance)
        assert answer.state == "accepted", answer
        await self.ended(answer.command)
        return instance

    async def save(self, instance: str, name: str = "golden") -> str:
        """A saved image; returns its id."""
        image = new_id()
        answer = await self.ask(SaveInstance(image=image, name=name), instance)
        assert answer.state == "accepted", answer
        await self.ended(answer.command)

        async def saved() -> bool:
            return (await self.image(image)).state == "saved"

        await until(saved, what="the image is saved")
        return image


class Server:
    """A NATS server of one test."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self.url = f"nats://127.0.0.1:{port}"
        config = home / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{port}"\n'
            "feature_flags { js_ack_fc_v2: false }\n"
            f'jetstream {{ store_dir: "{home}/store", max_file_store: 8G, strict: true }}\n'
        )
        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        with (home / "nats.log").open("ab") as log:
            self.process = subprocess.Popen([program, "-c", config], stdout=log, stderr=log)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)


class HubProcess:
    """``python -m hub``"""

    def __init__(self, server: Server, home: Path, **settings: Any) -> None:
        home.mkdir(parents=True)
        config, self.ready = home / "hub.json", home / "ready"
        bus = {"servers": [server.url], "name": home.name}
        config.write_text(json.dumps({"bus": bus, "sites": list(SITES), **settings}))
        environment = {**os.environ, "CALQUE_CONFIG": str(config), "CALQUE_READY_FILE": str(self.ready)}
        self.log = home / "hub.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "hub"], env=environment, stdout=log, stderr=log)

    async def wait_ready(self) -> None:
        await until(self.ready.exists, what=f"the hub is ready; see {self.log.read_text()}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        await until(lambda: self.process.poll() is not None, what="the hub stops", deadline_seconds=60)
        return self.process.returncode


@pytest.fixture
def nats(tmp_path: Path) -> Any:
    server = Server(tmp_path)
    try:
        yield server
    finally:
        server.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def bus(nats: Server) -> AsyncIterator[Bus]:
    connection = await Bus.connect(BusSettings(servers=[nats.url], name="test"), deadline_seconds=60)
    await set_up_hub(connection, sites=SITES)
    for site in SITES:
        await make_outbox(connection, site)
    try:
        yield connection
    finally:
        await connection.close()


def hub_settings(nats: Server, *, name: str = "hub") -> HubSettings:
    return HubSettings(bus=BusSection(servers=[nats.url], name=name), sites=list(SITES))


@pytest_asyncio.fixture(loop_scope="session")
async def running_hub(nats: Server, bus: Bus) -> AsyncIterator[Hub]:
    async with hub(hub_settings(nats)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def sites(bus: Bus) -> AsyncIterator[dict[str, FakeSite]]:
    """Both sites, at work and beating."""
    found = {name: FakeSite(bus, name) for name in SITES}
    async with contextlib.AsyncExitStack() as stack:
        for site in found.values():
            await site.start()
            stack.push_async_callback(site.stop)
        beating = asyncio.create_task(_beat(bus, found))
        try:
            yield found
        finally:
            await end([beating])


async def _beat(bus: Bus, sites: dict[str, FakeSite]) -> None:
    sequence = 0
    while True:
        sequence += 1
        for name, site in sites.items():
            if site.beating:
                data = Beat(sender=name, run="run", sequence=sequence, interval_seconds=0.5)
                await bus.publish(beat(name), wrap(data, id=new_id(), source=name, time=timestamp(datetime.now(UTC))))
        await asyncio.sleep(0.5)


@pytest_asyncio.fixture(loop_scope="session")
async def client(bus: Bus) -> Client:
    return Client(bus)
