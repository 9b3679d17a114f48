"""The embedded stack: hub and sites with all their servers on one machine, from one home directory.

    async with EmbeddedStack(home) as stack:
        await stack.run(stop_requested)

Parts, by name:

    hub-nats, hub, webhooks; with several servers or hubs also hub-nats-2, ... and hub-2, ...
    <site>-nats, <site>-apps-nats, <site>-postgres, <site>-s3
    <site>-agent, <site>-dsb-postgres, <site>-dsb-s3, <site>-dsb-volume, <site>-dsb-nats,
    <site>-psb-process, <site>-crb-filesystem, <site>-crb-s3, <site>-crb-postgres: those that were chosen

A site's parts depend on nothing of the hub: sites stand alone.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import TracebackType

from hub.stack import accepted, clusters, settings
from hub.stack.apps_nats import apps_nats_part
from hub.stack.errors import StackError
from hub.stack.files import private_directory, write_json
from hub.stack.hubs import Hubs, keep_hubs, wanted_hubs
from hub.stack.keys import StackKeys, open_keys
from hub.stack.layout import HomeLayout
from hub.stack.leafwatch import LeafWatch
from hub.stack.leftovers import end_leftovers
from hub.stack.locking import HomeLock
from hub.stack.metrics_targets import write_targets
from hub.stack.names import check_site
from hub.stack.nats_parts import NatsPorts, hub_nats_part, nats_ports, numbered, site_nats_part
from hub.stack.parts import Part
from hub.stack.ports import Ports
from hub.stack.repositories import (
    Repositories,
    brokers_of,
    directory_of,
    module_of,
    name_of,
    remember,
    remembered,
)
from hub.stack.servers.dedicated import stop_dedicated
from hub.stack.servers.postgres import postgres_part, postgres_server
from hub.stack.servers.seaweed import S3Ports, s3_part, s3_ports, s3_server
from hub.stack.services import INTERPRETER, service_part
from hub.stack.settings import Document
from hub.stack.supervisor import STOP_SECONDS, Backoff, PartState, Places, Supervisor
from hub.stack.upgrade import Upgrade, upgrade

DEFAULT_SITES = ("north", "south")
BROKERS = ("dsb-postgres", "dsb-s3", "dsb-volume", "dsb-nats", "psb-process")
"""Brokers of every site; its copy repositories are chosen."""
_OF_CHANNELS = ("apps-nats", "dsb-nats")
PROCESS_BROKER_GRACE_SECONDS = 8.0
"""Longer than the others have: it stops app services first, each with a grace of its own."""


@dataclass(frozen=True, kw_only=True)
class Programs:
    """Programs the user wants instead of those of the installed packages. `interpreter` runs Calque's own: the command
    that the name of a module is added to."""

    nats_server: Path | None = None
    weed: Path | None = None
    postgres_bin_dir: Path | None = None
    interpreter: tuple[str, ...] = INTERPRETER


@dataclass(frozen=True, kw_only=True)
class StackPorts:
    """Every port of the stack."""

    nats: NatsPorts
    postgres: Mapping[str, int]
    s3: Mapping[str, S3Ports]
    copies: Mapping[str, Mapping[str, int]]
    """By site and name of repository."""
    apps_nats: Mapping[str, int]
    apps_nats_monitors: Mapping[str, int]


class EmbeddedStack:
    """One stack on one home. `parts` restricts it to those named; the others are not started.

    `keys` and `ports` are there once `start` has begun to start parts. `on_change` is told the states
    of all parts after each change. `repositories` names the kinds of copy repositories of each site; a site of which
    nothing is said has those that it had before, a new one `hub.stack.repositories.DEFAULT`. `images` says which a site
    takes in, see `hub.stack.accepted`. `kubernetes` has, for each site with a Kubernetes platform, what its broker is
    told besides; it is not remembered. Without `channels` the sites have no NATS server for apps, and no broker for it.
    `hubs` is how many hub processes share the work, `servers` how
    many NATS servers the hub's streams are kept by (1, 3 or 5); of what is not said, as many as there were before.
    """

    def __init__(
        self,
        home: Path,
        *,
        sites: Sequence[str] = DEFAULT_SITES,
        principals: Sequence[str] = ("admin",),
        repositories: Mapping[str, Sequence[str]] | None = None,
        kubernetes: Mapping[str, settings.Document] | None = None,
        images: Mapping[str, str] | None = None,
        channels: bool = True,
        hubs: int | None = None,
        servers: int | None = None,
        parts: Collection[str] | None = None,
        programs: Programs | None = None,
        backoff: Backoff | None = None,
        on_change: Callable[[Mapping[str, PartState]], None] | None = None,
    ) -> None:
        if len(set(sites)) != len(sites):
            raise StackError(f"sites {', '.join(sites)}: one is named twice")
        if not principals:
            raise StackError("principals: name at least one, it is who the client context speaks as")
        self.layout = HomeLayout(home.resolve())
        self.sites = tuple(check_site(site) for site in sites)
        self._wanted = {site: tuple(kinds) for site, kinds in (repositories or {}).items()}
        self._kubernetes = dict(kubernetes or {})
        self._images = dict(images or {})
        self._principals = tuple(principals)
        self._left_out = () if channels else _OF_CHANNELS
        self._hubs_wanted = (hubs, servers)
        self._chosen = parts
        self._programs = programs or Programs()
        self._backoff = backoff
        self._on_change = on_change
        self._lock = HomeLock(self.layout.home)
        self._keys: StackKeys | None = None
        self._ports: StackPorts | None = None
        self._book = Ports(self.layout.ports)
        self._metrics_ports: dict[str, int] = {}
        self._supervisor: Supervisor | None = None
        self._watching: asyncio.Task[None] | None = None
        self.upgraded: Upgrade | None = None
        """The upgrade that the start had to make, if it had to."""

    @property
    def keys(self) -> StackKeys:
        if self._keys is None:
            raise StackError("the stack was not started yet")
        return self._keys

    @property
    def ports(self) -> StackPorts:
        if self._ports is None:
            raise StackError("the stack was not started yet")
        return self._ports

    @property
    def hubs(self) -> Hubs:
        """How many hubs and servers of the hub there are. Raises `StackError` when they can't be as many as wanted."""
        count, servers = self._hubs_wanted
        return wanted_hubs(self.layout, hubs=count, servers=servers)

    @property
    def repositories(self) -> Repositories:
        """The copy repositories of each site."""
        return {**remembered(self.layout.repositories, sites=self.sites), **self._wanted}

    @property
    def brokers(self) -> Mapping[str, tuple[str, ...]]:
        """The brokers of each site, `<kind>-<name>`."""
        return {
            site: (
                *(each for each in BROKERS if each not in self._left_out),
                *((clusters.USER,) if site in self._kubernetes else ()),
                *brokers_of(kinds),
            )
            for site, kinds in self.repositories.items()
        }

    @property
    def supervisor(self) -> Supervisor:
        if self._supervisor is None:
            raise StackError("the stack was not started yet")
        return self._supervisor

    @property
    def states(self) -> Mapping[str, PartState]:
        """The state of every part."""
        return self.supervisor.states

    async def start(self, *, locked: Callable[[], None] | None = None) -> None:
        """Lock the home, stop what a killed run left, then start everything; returns when all is ready.

        `locked` is called when the home is locked.
        Raises `HomeInUse`, `PartFailed`, or `StackError` when a program or a port is missing. After an
        error nothing runs and the home is free again.
        """
        private_directory(self.layout.home)
        self._lock.acquire()
        try:
            private_directory(self.layout.records)
            if locked is not None:
                locked()
            await end_leftovers(self.layout.records)  # before the ports are looked at: it holds some
            self.upgraded = upgrade(self.layout, version=metadata.version("calque"))
            keep_hubs(self.layout, self.hubs)
            remember(self.layout.repositories, self.repositories)
            self._images = dict(accepted.settle(self.layout.images, self._images))
            users = sorted({user for users in self.brokers.values() for user in users})
            self._keys = open_keys(self.layout.keys, sites=self.sites, brokers=users, principals=self._principals)
            self._ports = self._pick_ports()
            self._supervisor = Supervisor(
                self._chosen_parts(),
                places=Places(logs=self.layout.logs, run=self.layout.run),
                backoff=self._backoff,
                on_change=self._on_change,
            )
            principal = self._principals[0]
            write_json(
                self.layout.context,
                settings.client_context(self.ports.nats, self.keys.hub.principals[principal], principal=principal),
            )
            await self._supervisor.start()
            monitors = {site: self.ports.nats.site_monitors[site] for site in self.sites}
            watched = {site: port for site, port in monitors.items() if f"{site}-nats" in self._supervisor.states}
            watch = LeafWatch(supervisor=self._supervisor, monitors=watched)
            self._watching = asyncio.create_task(watch.run(), name="leaf watch")
        except BaseException:
            self._lock.release()
            raise

    async def run(self, stop_requested: asyncio.Event) -> None:
        """Keep everything running until the event is set, then stop."""
        try:
            await stop_requested.wait()
        finally:
            await self.stop()

    async def stop(self, *, within: float = STOP_SECONDS) -> None:
        """Stop everything in at most `within` seconds and free the home; safe to repeat."""
        try:
            if self._watching is not None:
                self._watching.cancel()
                await asyncio.gather(self._watching, return_exceptions=True)
            if self._supervisor is not None:
                await self._supervisor.stop(within=within)
                await stop_dedicated(self.layout)
        finally:
            self._lock.release()

    async def __aenter__(self) -> EmbeddedStack:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _metrics_port(self, part: str) -> int:
        self._metrics_ports[part] = self._book.pick(f"{part}-metrics")
        return self._metrics_ports[part]

    def _pick_ports(self) -> StackPorts:
        self._book = ports = Ports(self.layout.ports)
        return StackPorts(
            nats=nats_ports(ports, sites=self.sites, servers=self.hubs.servers),
            postgres={site: ports.pick(f"{site}-postgres") for site in self.sites},
            s3={site: s3_ports(ports, prefix=f"{site}-s3") for site in self.sites},
            copies={
                site: {name: ports.pick(_copies_port(site, name)) for name in map(name_of, wanted)}
                for site, wanted in self.repositories.items()
            },
            apps_nats={site: ports.pick(f"{site}-apps-nats") for site in self.sites},
            apps_nats_monitors={site: ports.pick(f"{site}-apps-nats-monitor") for site in self.sites},
        )

    def _chosen_parts(self) -> list[Part]:
        builders: dict[str, Callable[[], Part]] = {
            **{
                each.name: functools.partial(
                    hub_nats_part,
                    self.layout,
                    self.keys,
                    self.ports.nats,
                    number=number,
                    program=self._programs.nats_server,
                )
                for number, each in enumerate(self.ports.nats.hubs, start=1)
            },
            **{name: functools.partial(self._hub, name) for name in numbered("hub", self.hubs.hubs)},
            "webhooks": self._webhooks,
        }
        for site in self.sites:
            left_out = {f"{site}-{name}" for name in self._left_out}
            builders.update({name: part for name, part in self._site_builders(site).items() if name not in left_out})
        chosen = set(builders) if self._chosen is None else set(self._chosen)
        if unknown := chosen - set(builders):
            raise StackError(f"parts: no {', '.join(sorted(unknown))}; there are {', '.join(builders)}")
        self._metrics_ports = {}
        parts = [build() for name, build in builders.items() if name in chosen]
        write_targets(self.layout.metrics_targets, self._metrics_ports, sites=self.sites)
        return [_without_absent(part, chosen) for part in parts]

    def _site_builders(self, site: str) -> dict[str, Callable[[], Part]]:
        layout, ports, programs = self.layout, self.ports, self._programs
        keys, place = self.keys.sites[site], layout.site(site)
        nats, postgres, s3 = f"{site}-nats", f"{site}-postgres", f"{site}-s3"
        apps_nats = f"{site}-apps-nats"

        postgres_address = postgres_server(
            directory=place / "postgres", port=ports.postgres[site], bin_dir=programs.postgres_bin_dir
        )
        s3_address = s3_server(directory=place / "s3", ports=ports.s3[site])

        def broker(
            user: str, extra: settings.Document, *needs: str, stop_grace: float = 5.0, module: str | None = None
        ) -> Part:
            kind, _, name = user.partition("-")
            own = settings.broker_settings(layout, keys, ports.nats, site=site, kind=kind, name=name)
            return self._service(
                f"{site}-{user}",
                module=module or f"brokers.{name}",
                settings={**own, **extra},
                depends=(nats, *needs),
                stop_grace=stop_grace,
            )

        def repository(wanted: str) -> Part:
            kind, attached = name_of(wanted), directory_of(wanted)
            where: Mapping[str, tuple[settings.Document, tuple[str, ...]]] = {
                "filesystem": ({"repository_dir": str(layout.repository(site))}, ()),
                "s3": (settings.s3_repository_settings(s3_address), (s3,)),
                "postgres": (settings.postgres_repository_settings(postgres_address), (postgres,)),
            }
            own, needs = where[kind] if attached is None else ({"repository_dir": str(attached)}, ())
            served = settings.repository_settings(keys, broker=f"crb-{kind}", port=ports.copies[site][kind])
            return broker(f"crb-{kind}", {**own, **served}, *needs, module=module_of(wanted))

        return {
            nats: lambda: site_nats_part(layout, self.keys, ports.nats, site=site, program=programs.nats_server),
            apps_nats: lambda: apps_nats_part(
                layout,
                keys.apps,
                site=site,
                port=ports.apps_nats[site],
                monitor_port=ports.apps_nats_monitors[site],
                program=programs.nats_server,
            ),
            postgres: lambda: postgres_part(
                postgres,
                directory=place / "postgres",
                port=ports.postgres[site],
                bin_dir=programs.postgres_bin_dir,
            ),
            s3: lambda: s3_part(s3, directory=place / "s3", ports=ports.s3[site], program=programs.weed),
            f"{site}-agent": lambda: self._service(
                f"{site}-agent",
                module="site_agent",
                settings=settings.agent_settings(
                    layout,
                    keys,
                    ports.nats,
                    site=site,
                    repositories=tuple(map(name_of, self.repositories[site])),
                    images=self._images.get(site, accepted.ANY),
                ),
                depends=(nats,),
            ),
            f"{site}-dsb-postgres": lambda: broker(
                "dsb-postgres",
                settings.postgres_settings(postgres_address, servers=layout.servers(site)),
                postgres,
            ),
            f"{site}-dsb-s3": lambda: broker(
                "dsb-s3",
                settings.s3_settings(s3_address),
                s3,
            ),
            f"{site}-dsb-volume": lambda: broker("dsb-volume", settings.volume_settings(layout.volumes(site))),
            f"{site}-dsb-nats": lambda: broker(
                "dsb-nats",
                settings.messaging_settings(keys.apps, port=ports.apps_nats[site]),
                apps_nats,
                module="brokers.messaging",
            ),
            f"{site}-psb-process": lambda: broker("psb-process", {}, stop_grace=PROCESS_BROKER_GRACE_SECONDS),
            **(
                {f"{site}-{clusters.USER}": lambda: broker(clusters.USER, self._kubernetes[site])}
                if site in self._kubernetes
                else {}
            ),
            **{f"{site}-crb-{name_of(each)}": functools.partial(repository, each) for each in self.repositories[site]},
        }

    def _service(
        self, name: str, *, module: str, settings: Document, depends: tuple[str, ...], stop_grace: float = 5.0
    ) -> Part:
        return service_part(
            name,
            module=module,
            layout=self.layout,
            settings=settings,
            metrics_port=self._metrics_port(name),
            depends=depends,
            stop_grace=stop_grace,
            interpreter=self._programs.interpreter,
        )

    def _webhooks(self) -> Part:
        return self._service(
            "webhooks",
            module="hub.webhooks",
            settings=settings.webhooks_settings(self.keys, self.ports.nats),
            depends=self._servers,
        )

    def _hub(self, name: str) -> Part:
        return self._service(
            name,
            module="hub",
            settings=settings.hub_settings(self.layout, self.keys, self.ports.nats, name=name),
            depends=self._servers,
        )

    @property
    def _servers(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.ports.nats.hubs)


def _copies_port(site: str, kind: str) -> str:
    # as it was called when a site had one repository
    return f"{site}-copies" if kind == "filesystem" else f"{site}-copies-{kind}"


def _without_absent(part: Part, chosen: Collection[str]) -> Part:
    return replace(part, depends=tuple(name for name in part.depends if name in chosen))
