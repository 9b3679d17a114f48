"""The NATS servers of a stack as parts: keys, ports and paths put into their configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.stack.access import configuration, keep_server
from hub.stack.files import private_directory
from hub.stack.keys import StackKeys, TlsFiles, read_seed
from hub.stack.layout import HomeLayout
from hub.stack.nats_config import HubServer, SiteLogin, SiteServer, TlsPaths, site_config
from hub.stack.parts import Part
from hub.stack.ports import LOOPBACK, Ports
from hub.stack.principals import Principal
from hub.stack.servers.nats import nats_part

SEED_VARIABLE = "LEAF_SEED"


@dataclass(frozen=True, kw_only=True)
class NatsPorts:
    """Ports of all NATS servers of a stack."""

    hub: int
    hub_monitor: int
    hub_leaf: int
    sites: Mapping[str, int]
    site_monitors: Mapping[str, int]

    @property
    def hub_url(self) -> str:
        return f"nats://{LOOPBACK}:{self.hub}"

    def site_url(self, site: str) -> str:
        return f"nats://{LOOPBACK}:{self.sites[site]}"


def nats_ports(ports: Ports, *, sites: Sequence[str]) -> NatsPorts:
    """Pick or recall the ports. Call it while the servers are stopped."""
    return NatsPorts(
        hub=ports.pick("hub-nats"),
        hub_monitor=ports.pick("hub-nats-monitor"),
        hub_leaf=ports.pick("hub-nats-leaf"),
        sites={site: ports.pick(f"{site}-nats") for site in sites},
        site_monitors={site: ports.pick(f"{site}-nats-monitor") for site in sites},
    )


def hub_nats_part(layout: HomeLayout, keys: StackKeys, ports: NatsPorts, *, program: Path | None = None) -> Part:
    """The hub's server, which knows every site and principal of the keys, and those principals that were added."""
    store = layout.hub / "nats"
    private_directory(layout.config)
    keep_server(
        layout,
        HubServer(
            port=ports.hub,
            monitor_port=ports.hub_monitor,
            leaf_port=ports.hub_leaf,
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
        "hub-nats",
        config_file=layout.nats_config("hub"),
        config=lambda: configuration(layout),
        monitor_port=ports.hub_monitor,
        store_dir=store,
        program=program,
    )


def site_nats_part(
    layout: HomeLayout, keys: StackKeys, ports: NatsPorts, *, site: str, program: Path | None = None
) -> Part:
    """A site's server. It starts and is ready with the hub away."""
    own = keys.sites[site]
    store = layout.site(site) / "nats"
    config = site_config(
        SiteServer(
            site=site,
            port=ports.sites[site],
            monitor_port=ports.site_monitors[site],
            hub_leaf_url=f"tls://localhost:{ports.hub_leaf}",
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
