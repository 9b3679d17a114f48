"""Where everything of an embedded stack lies below its home directory.

keys/                     see `keys`
config/                   a settings file per part, and the configurations of the NATS servers
logs/<part>.log
run/                      lock, status.json, ready files, records of running parts
ports.json                which part has which ports
metrics-targets.json      where the parts show their metrics, see `metrics_targets`
home.json                 the layout and the version that wrote it, see `upgrade`
repositories.json         which copy repositories each site has
images.json               which images each site takes in, where something was said of it
hubs.json                 how many hubs and servers of the hub there are, when it is not one of each
context.json              how a client reaches the hub
hub/nats, hub/state       JetStream of the hub's server (nats-2, ... of further ones); files of the hub service
sites/<site>/             nats, postgres, s3, volumes, repository, and state/<part> of agent and brokers
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HomeLayout:
    """The paths of one home. Nothing is made by asking for a path."""

    home: Path

    @property
    def keys(self) -> Path:
        return self.home / "keys"

    @property
    def config(self) -> Path:
        return self.home / "config"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def records(self) -> Path:
        """Records of running processes."""
        return self.run / "parts"

    @property
    def ports(self) -> Path:
        return self.home / "ports.json"

    @property
    def metrics_targets(self) -> Path:
        """Where the parts show their metrics, for Prometheus."""
        return self.home / "metrics-targets.json"

    @property
    def record(self) -> Path:
        """Which version wrote the home."""
        return self.home / "home.json"

    @property
    def repositories(self) -> Path:
        """Which copy repositories each site has."""
        return self.home / "repositories.json"

    @property
    def images(self) -> Path:
        """Which images each site takes in."""
        return self.home / "images.json"

    @property
    def hubs(self) -> Path:
        """How many hubs and servers of the hub there are."""
        return self.home / "hubs.json"

    @property
    def context(self) -> Path:
        """The client's context file."""
        return self.home / "context.json"

    @property
    def hub(self) -> Path:
        return self.home / "hub"

    def site(self, site: str) -> Path:
        return self.home / "sites" / site

    def settings(self, part: str) -> Path:
        """The settings file of a part, for `CALQUE_CONFIG`."""
        return self.config / f"{part}.json"

    def nats_config(self, server: str) -> Path:
        """The configuration of a NATS server: `hub` or a site."""
        return self.server_config(f"{server}-nats")

    def server_config(self, part: str) -> Path:
        """The configuration of the NATS server that is this part."""
        return self.config / f"{part}.conf"

    def ready_file(self, part: str) -> Path:
        """What a part writes when it is ready, for `CALQUE_READY_FILE`."""
        return self.run / f"{part}.ready"

    def state(self, site: str, role: str) -> Path:
        """Files that the agent or a broker of a site keeps."""
        return self.site(site) / "state" / role

    def volumes(self, site: str) -> Path:
        """Where the trees of the site's volumes lie, and what its broker keeps beside them."""
        return self.site(site) / "volumes"

    def servers(self, site: str) -> Path:
        """Where PostgreSQL servers of single data services lie."""
        return self.site(site) / "servers"

    def repository(self, site: str) -> Path:
        """Where the site's filesystem copy repository lies."""
        return self.site(site) / "repository"
