"""The settings file of each service, as the service reads it: one JSON document, named by `CALQUE_CONFIG`.

Every document has a `bus` section. Secrets are named by their file, never written into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hub.stack.keys import AppsKeys, Nkey, SiteKeys, StackKeys
from hub.stack.layout import HomeLayout
from hub.stack.names import HUB
from hub.stack.nats_config import AGENT_INBOX, HUB_INBOX, WEBHOOKS_INBOX
from hub.stack.nats_parts import NatsPorts
from hub.stack.ports import LOOPBACK
from hub.stack.servers.postgres import PostgresServer
from hub.stack.servers.seaweed import S3Server

Document = dict[str, Any]
REPOSITORY_BUCKET = "calque-repository"
DEDICATED_PORTS = range(32_000, 32_768)
"""Of servers of single data services, at all sites: above those of the parts of a stack, below those that the kernel
gives to outgoing connections."""


def bus_section(servers: str | Sequence[str], key: Nkey, *, name: str, replicas: int = 1) -> Document:
    """How a service reaches its NATS server, or one of several, and how many of those keep the streams it makes."""
    urls = [servers] if isinstance(servers, str) else list(servers)
    section = {"servers": urls, "nkey_seed_file": str(key.seed_file), "name": name}
    return section if replicas == 1 else {**section, "replicas": replicas}


def hub_settings(layout: HomeLayout, keys: StackKeys, ports: NatsPorts, *, name: str = HUB) -> Document:
    """Settings of `python -m hub`, one of which may run for each `name`; `sites` are those whose events and commands it
    is to carry."""
    bus = bus_section(ports.hub_urls, keys.hub.service, name=name, replicas=ports.replicas)
    return {
        "bus": {**bus, "inbox_prefix": HUB_INBOX},
        "state_dir": str(layout.hub / "state"),
        "sites": list(keys.sites),
    }


def webhooks_settings(keys: StackKeys, ports: NatsPorts) -> Document:
    """Settings of `python -m hub.webhooks`. Receivers of an embedded stack may run on this machine."""
    bus = bus_section(ports.hub_urls, keys.hub.webhooks, name="webhooks", replicas=ports.replicas)
    return {
        "bus": {**bus, "inbox_prefix": WEBHOOKS_INBOX},
        "secrets_key_file": str(keys.hub.webhooks_key_file),
        "allow_private": True,
    }


def agent_settings(
    layout: HomeLayout, keys: SiteKeys, ports: NatsPorts, *, site: str, repositories: Sequence[str], images: str
) -> Document:
    """Settings of `python -m site_agent`; both key files hold 32 raw bytes. Of several `repositories`
    the first takes the copies of which nobody says anything else. `images` are those that come in."""
    return {
        "bus": {**bus_section(ports.site_url(site), keys.agent, name=f"{site}-agent"), "inbox_prefix": AGENT_INBOX},
        "site": site,
        "state_dir": str(layout.state(site, "agent")),
        "seal_key_file": str(keys.seal_key_file),
        "secrets_key_file": str(keys.secrets_key_file),
        "hub": True,
        "images": images,
        "repositories": {"default": repositories[0]} if len(repositories) > 1 else {},
    }


def broker_settings(
    layout: HomeLayout, keys: SiteKeys, ports: NatsPorts, *, site: str, kind: str, name: str
) -> Document:
    """What every broker is told; the whole document for `psb-process`."""
    user = f"{kind}-{name}"
    return {
        "bus": bus_section(ports.site_url(site), keys.brokers[user], name=f"{site}-{user}"),
        "site": site,
        "kind": kind,
        "name": name,
        "state_dir": str(layout.state(site, user)),
    }


def postgres_settings(server: PostgresServer, *, servers: Path) -> Document:
    """What `dsb-postgres` is told besides. ``servers`` is where those of single data services lie."""
    return {
        "admin": _admin(server),
        "bin_dir": str(server.bin_dir),
        "instant": {"data_dir": str(server.data_dir)},
        "dedicated": {
            "directory": str(servers),
            "host": LOOPBACK,
            "first_port": DEDICATED_PORTS.start,
            "last_port": DEDICATED_PORTS.stop - 1,
        },
    }


def _admin(server: PostgresServer) -> Document:
    return {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password_file": str(server.password_file),
    }


def s3_settings(server: S3Server) -> Document:
    """What `dsb-s3` is told besides."""
    return {
        "endpoint": server.endpoint,
        "region": server.region,
        "access_key_file": str(server.access_key_file),
        "secret_key_file": str(server.secret_key_file),
    }


def volume_settings(volumes: Path) -> Document:
    """What `dsb-volume` is told besides."""
    return {"volumes_dir": str(volumes)}


def messaging_settings(keys: AppsKeys, *, port: int) -> Document:
    """What `dsb-nats` is told besides."""
    return {
        "servers": [f"nats://{LOOPBACK}:{port}"],
        "operator_seed_file": str(keys.operator_seed_file),
        "system_credentials_file": str(keys.system_credentials_file),
    }


def repository_settings(keys: SiteKeys, *, broker: str, port: int) -> Document:
    """What every copy repository broker is told besides."""
    tls = keys.crb_tls[broker]
    return {
        "tls": {"cert": str(tls.cert), "key": str(tls.key), "ca": str(tls.ca)},
        "host": LOOPBACK,
        "port": port,
        "domain_key_file": str(keys.copies_key_file),
    }


def s3_repository_settings(server: S3Server) -> Document:
    """Where `crb-s3` keeps its objects: a bucket that its broker makes."""
    return {"bucket": {**s3_settings(server), "name": REPOSITORY_BUCKET, "create": True}}


def postgres_repository_settings(server: PostgresServer) -> Document:
    """Where `crb-postgres` keeps its objects: a schema that its broker makes."""
    return {"database": {**_admin(server), "database": "postgres"}}


def client_context(ports: NatsPorts, key: Nkey, *, principal: str) -> Document:
    """The context file of a client."""
    return {"servers": ports.hub_urls, "nkey_seed_file": str(key.seed_file), "principal": principal}
