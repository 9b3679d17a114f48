"""Real servers for tests, one set per test session, each stopped by its own process id.

`nats_server`     a single open JetStream server
`hub_and_sites`   the hub's NATS server and those of the sites north and south, with keys and accounts
`postgres_server` PostgreSQL 18, reached as superuser (`run_postgres(home)` for one of one's own)
`apps_server`     a NATS server for apps, as the messaging broker manages it
`s3_server`       SeaweedFS, reached as administrator (`run_s3(home)` for one of one's own)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hub.stack.apps_nats import apps_nats_part
from hub.stack.keys import AppsKeys, StackKeys, open_keys
from hub.stack.layout import HomeLayout
from hub.stack.nats_parts import hub_nats_part, nats_ports, site_nats_part
from hub.stack.parts import Part
from hub.stack.ports import LOOPBACK, Ports
from hub.stack.servers.nats import nats_part, plain_config
from hub.stack.servers.postgres import PostgresServer, postgres_part
from hub.stack.servers.postgres import postgres_server as postgres_address
from hub.stack.servers.seaweed import S3Server, s3_part, s3_ports
from hub.stack.servers.seaweed import s3_server as s3_address
from hub.stack.settings import messaging_settings
from hub.stack.supervisor import Places, Supervisor
from tests.cutting import Relay, relay

SITES = ("north", "south")
BROKERS = ("dsb-postgres", "dsb-s3", "psb-process", "crb-filesystem")


def supervise(home: Path, parts: list[Part]) -> Supervisor:
    """A supervisor that keeps its files below the home."""
    return Supervisor(parts, places=Places(logs=home / "logs", run=home / "run"))


@dataclass(frozen=True, kw_only=True)
class NatsServer:
    """A plain server with JetStream; no login."""

    url: str
    monitor_url: str
    supervisor: Supervisor

    async def restart(self) -> None:
        """Stop and start it again on the same store."""
        await self.supervisor.restart("nats")


@dataclass(frozen=True, kw_only=True)
class HubAndSites:
    """NATS servers as `calque up` runs them. No stream is made yet.

    Parts of the supervisor are `hub-nats` and `<site>-nats`; of a hub with several servers `hub-nats-2`, ... as well.
    """

    home: Path
    keys: StackKeys
    hub_urls: Sequence[str]
    site_urls: Mapping[str, str]
    monitor_ports: Mapping[str, int]
    relays: Mapping[str, Sequence[Relay]]
    supervisor: Supervisor

    @property
    def hub_url(self) -> str:
        return self.hub_urls[0]

    @property
    def hub_seed(self) -> str:
        """Path of the hub service's seed file, for `nats.connect(nkeys_seed=...)`."""
        return str(self.keys.hub.service.seed_file)

    def client_seed(self, principal: str = "admin") -> str:
        return str(self.keys.hub.principals[principal].seed_file)

    def agent_seed(self, site: str) -> str:
        return str(self.keys.sites[site].agent.seed_file)

    def broker_seed(self, site: str, broker: str) -> str:
        """`broker` is `<kind>-<name>`, for example `dsb-postgres`."""
        return str(self.keys.sites[site].brokers[broker].seed_file)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    home = tmp_path_factory.mktemp("nats")
    ports = Ports(home / "ports.json")
    port, monitor = ports.pick("client"), ports.pick("monitor")
    store = home / "store"
    part = nats_part(
        "nats",
        config_file=home / "nats.conf",
        config=plain_config(port=port, monitor_port=monitor, store_dir=store),
        monitor_port=monitor,
        store_dir=store,
    )
    supervisor = supervise(home, [part])
    await supervisor.start()
    try:
        yield NatsServer(
            url=f"nats://{LOOPBACK}:{port}",
            monitor_url=f"http://{LOOPBACK}:{monitor}",
            supervisor=supervisor,
        )
    finally:
        await supervisor.stop()


@asynccontextmanager
async def run_hub_and_sites(home: Path, *, servers: int = 1, relayed: bool = False) -> AsyncIterator[HubAndSites]:
    """The hub's NATS servers and those of the sites north and south, of one's own. No stream is made yet.

    With ``relayed``, each site reaches the hub through relays of its own, one per server of the hub.
    """
    layout = HomeLayout(home)
    keys = open_keys(layout.keys, sites=SITES, brokers=BROKERS, principals=("admin", "other"))
    ports = nats_ports(Ports(layout.ports), sites=SITES, servers=servers)
    parts = [hub_nats_part(layout, keys, ports, number=number) for number in range(1, servers + 1)]
    async with AsyncExitStack() as links:
        relays = {
            site: [await links.enter_async_context(relay(each.leaf)) for each in ports.hubs if relayed]
            for site in SITES
        }
        parts += [
            site_nats_part(layout, keys, ports, site=site, leaf_ports=[each.port for each in relays[site]])
            for site in SITES
        ]
        supervisor = supervise(layout.home, parts)
        links.push_async_callback(supervisor.stop)
        await supervisor.start()
        yield HubAndSites(
            home=layout.home,
            keys=keys,
            relays=relays,
            hub_urls=ports.hub_urls,
            site_urls={site: ports.site_url(site) for site in SITES},
            monitor_ports={
                "hub": ports.hubs[0].monitor,
                **{each.name: each.monitor for each in ports.hubs},
                **ports.site_monitors,
            },
            supervisor=supervisor,
        )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hub_and_sites(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HubAndSites]:
    async with run_hub_and_sites(tmp_path_factory.mktemp("hub-and-sites")) as running:
        yield running


@dataclass(frozen=True, kw_only=True)
class RunningApps:
    """A NATS server for apps; `settings` is what the messaging broker is told of it."""

    url: str
    keys: AppsKeys
    settings: Mapping[str, Any]
    supervisor: Supervisor

    async def restart(self) -> None:
        await self.supervisor.restart("north-apps-nats")


@asynccontextmanager
async def run_apps_server(home: Path) -> AsyncIterator[RunningApps]:
    """A server of one's own, for tests that kill it."""
    layout = HomeLayout(home)
    keys = open_keys(layout.keys, sites=("north",)).sites["north"].apps
    ports = Ports(layout.ports)
    port = ports.pick("apps")
    part = apps_nats_part(layout, keys, site="north", port=port, monitor_port=ports.pick("monitor"))
    supervisor = supervise(home, [part])
    await supervisor.start()
    try:
        yield RunningApps(
            url=f"nats://{LOOPBACK}:{port}",
            keys=keys,
            settings=messaging_settings(keys, port=port),
            supervisor=supervisor,
        )
    finally:
        await supervisor.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def apps_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningApps]:
    async with run_apps_server(tmp_path_factory.mktemp("apps-nats")) as running:
        yield running


@dataclass(frozen=True, kw_only=True)
class RunningPostgres:
    """PostgreSQL 18; `server` says how to reach it as superuser."""

    server: PostgresServer
    supervisor: Supervisor

    @property
    def password(self) -> str:
        return self.server.password_file.read_text().strip()

    async def restart(self) -> None:
        await self.supervisor.restart("postgres")


@dataclass(frozen=True, kw_only=True)
class RunningS3:
    """SeaweedFS; `server` says how to reach it as administrator."""

    server: S3Server
    supervisor: Supervisor

    @property
    def access_key(self) -> str:
        return self.server.access_key_file.read_text().strip()

    @property
    def secret_key(self) -> str:
        return self.server.secret_key_file.read_text().strip()


@asynccontextmanager
async def run_postgres(home: Path, *, bin_dir: Path | None = None) -> AsyncIterator[RunningPostgres]:
    """A server of one's own, for tests that kill it."""
    port = Ports(home / "ports.json").pick("postgres")
    part = postgres_part("postgres", directory=home / "postgres", port=port, bin_dir=bin_dir)
    supervisor = supervise(home, [part])
    await supervisor.start()
    try:
        yield RunningPostgres(server=postgres_address(directory=home / "postgres", port=port), supervisor=supervisor)
    finally:
        await supervisor.stop()


@asynccontextmanager
async def run_s3(home: Path) -> AsyncIterator[RunningS3]:
    """A server of one's own, for tests that kill it."""
    ports = s3_ports(Ports(home / "ports.json"), prefix="s3")
    supervisor = supervise(home, [s3_part("s3", directory=home / "s3", ports=ports)])
    await supervisor.start()
    try:
        yield RunningS3(server=s3_address(directory=home / "s3", ports=ports), supervisor=supervisor)
    finally:
        await supervisor.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningPostgres]:
    async with run_postgres(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def s3_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningS3]:
    async with run_s3(tmp_path_factory.mktemp("s3")) as running:
        yield running
