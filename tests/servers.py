"""Real servers for tests, one set per test session, each stopped by its own process id.

`nats_server`     a single open JetStream server
`hub_and_sites`   the hub's NATS server and those of the sites north and south, with keys and accounts
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from hub.stack.keys import StackKeys, open_keys
from hub.stack.layout import HomeLayout
from hub.stack.nats_parts import hub_nats_part, nats_ports, site_nats_part
from hub.stack.parts import Part
from hub.stack.ports import LOOPBACK, Ports
from hub.stack.servers.nats import nats_part, plain_config
from hub.stack.supervisor import Places, Supervisor

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

    Parts of the supervisor are `hub-nats` and `<site>-nats`.
    """

    home: Path
    keys: StackKeys
    hub_url: str
    site_urls: Mapping[str, str]
    monitor_ports: Mapping[str, int]
    supervisor: Supervisor

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


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hub_and_sites(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HubAndSites]:
    layout = HomeLayout(tmp_path_factory.mktemp("hub-and-sites"))
    keys = open_keys(layout.keys, sites=SITES, brokers=BROKERS, principals=("admin", "other"))
    ports = nats_ports(Ports(layout.ports), sites=SITES)
    parts = [hub_nats_part(layout, keys, ports)]
    parts += [site_nats_part(layout, keys, ports, site=site) for site in SITES]
    supervisor = supervise(layout.home, parts)
    await supervisor.start()
    try:
        yield HubAndSites(
            home=layout.home,
            keys=keys,
            hub_url=ports.hub_url,
            site_urls={site: ports.site_url(site) for site in SITES},
            monitor_ports={"hub": ports.hub_monitor, **ports.site_monitors},
            supervisor=supervisor,
        )
    finally:
        await supervisor.stop()
