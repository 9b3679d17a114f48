"""The NATS servers of a stack as parts: keys, ports and paths put into their configurations.

The hub has one server, or several that form a cluster: `hub-nats`, `hub-nats-2`, ... Each site has one, `<site>-nats`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.stack.access import configuration, keep_server
from hub.stack.files import private_directory
from hub.stack.keys import StackKeys, TlsFiles, read_seed
from hub.stack.layout import HomeLayout
from hub.stack.names import HUB
from hub.stack.nats_config import Cluster, HubServer, SiteLogin, SiteServer, TlsPaths, site_config
from hub.stack.parts import Part
from hub.stack.ports import LOOPBACK, Ports
from hub.stack.principals import Principal
from hub.stack.servers.nats import nats_part

SEED_VARIABLE = "LEAF_SEED"


@dataclass(frozen=True, kw_only=True)
class HubPorts:
    """Ports of one server of the hub, the part `name`: for clients, HTTP, sites, and the other servers if there are."""

    name: str
    client: int
    monitor: int
    leaf: int
    cluster: int | None = None

    @property
    def url(self) -> str:
        return f"nats://{LOOPBACK}:{self.client}"


@dataclass(frozen=True, kw_only=True)
class NatsPorts:
    """Ports of all NATS servers of a stack."""

    hubs: Sequence[HubPorts]
    sites: Mapping[str, int]
    site_monitors: Mapping[str, int]

    @property
    def hub_url(self) -> str:
        """The hub's server, or the first of them."""
        return self.hubs[0].url

    @property
    def hub_urls(self) -> list[str]:
        """All servers of the hub."""
        return [each.url for each in self.hubs]

    @property
    def replicas(self) -> int:
        """How many servers keep each stream of the hub."""
        return min(len(self.hubs), MOST_REPLICAS)

    def site_url(self, site: str) -> str:
        return f"nats://{LOOPBACK}:{self.sites[site]}"


MOST_REPLICAS = 5


def numbered(name: str, count: int) -> tuple[str, ...]:
    """The names of several parts of one kind: the first is called as if it were the only one."""
    return (name, *(f"{name}-{number}" for number in range(2, count + 1)))


def nats_ports(ports: Ports, *, sites: Sequence[str], servers: int = 1) -> NatsPorts:
    """Pick or recall the ports. Call it while the servers are stopped."""
    return NatsPorts(
        hubs=[
            HubPorts(
                name=name,
                client=ports.pick(name),
                monitor=ports.pick(f"{name}-monitor"),
                leaf=ports.pick(f"{name}-leaf"),
                cluster=ports.pick(f"{name}-cluster") if servers > 1 else None,
            )
            for name in numbered("hub-nats", servers)
        ],
        sites={site: ports.pick(f"{site}-nats") for site in sites},
        site_monitors={site: ports.pick(f"{site}-nats-monitor") for site in sites},
    )


def hub_nats_part(
    layout: HomeLayout, keys: StackKeys, ports: NatsPorts, *, number: int = 1, program: Path | None = None
) -> Part:
    """A server of the hub, which knows every site and principal of the keys, and those principals that were added."""
    own = ports.hubs[number - 1]
    store = layout.hub / own.name.removeprefix("hub-")
    private_directory(layout.config)
    routes = [f"tls://localhost:{each.cluster}" for each in ports.hubs if each != own]
    keep_server(
        layout,
        own.name,
        HubServer(
            # No site can be called so.
            name=HUB if number == 1 else f"{HUB}_{number}",
            port=own.client,
            monitor_port=own.monitor,
            leaf_port=own.leaf,
            cluster=None
            if own.cluster is None
            else Cluster(port=own.cluster, routes=routes, tls=_paths(keys.hub.routes_tls)),
            store_dir=str(store),
            tls=_paths(keys.hub.leaf_tls),
            system_nkey=keys.hub.system.public,
            service_nkey=keys.hub.service.public,
            webhooks_nkey=keys.hub.webhooks.public,
            principals=[Principal(name=name, nkey=key.public) for name, key in keys.hub.principals.items()],
            sites=[SiteLogin(site=site, leaf_nkey=own.leaf.public) for site, own in keys.sites.items()],
        ),
    )
    return nats_part(
        own.name,
        config_file=layout.server_config(own.name),
        config=lambda: configuration(layout, own.name),
        monitor_port=own.monitor,
        store_dir=store,
        program=program,
    )


def site_nats_part(
    layout: HomeLayout,
    keys: StackKeys,
    ports: NatsPorts,
    *,
    site: str,
    program: Path | None = None,
    leaf_ports: Sequence[int] = (),
) -> Part:
    """A site's server. It starts and is ready with the hub away. ``leaf_ports`` are where it finds the hub, if that is
    not where the hub's servers listen."""
    own = keys.sites[site]
    store = layout.site(site) / "nats"
    config = site_config(
        SiteServer(
            site=site,
            port=ports.sites[site],
            monitor_port=ports.site_monitors[site],
            hub_leaf_urls=[f"tls://localhost:{port}" for port in leaf_ports or [each.leaf for each in ports.hubs]],
            store_dir=str(store),
            tls=_paths(own.leaf_tls),
            system_nkey=own.system.public,
            agent_nkey=own.agent.public,
            brokers={name: key.public for name, key in own.brokers.items()},
            seed_variable=SEED_VARIABLE,
        )
    )
    private_directory(layout.config)
    return nats_part(
        f"{site}-nats",
        config_file=layout.nats_config(site),
        config=config,
        monitor_port=ports.site_monitors[site],
        store_dir=store,
        env={SEED_VARIABLE: read_seed(own.leaf.seed_file)},
        program=program,
    )


def _paths(files: TlsFiles) -> TlsPaths:
    return TlsPaths(cert=str(files.cert), key=str(files.key), ca=str(files.ca))
