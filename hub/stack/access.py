"""Who may speak to the hub of a home: changed while it runs, and the same after a restart.

The hub's NATS server is told by a new configuration and a SIGHUP, each of them if there are several. A reload cuts
nobody off whose own account and key stay as they were (tested), so no part is restarted for it. What a server is
started with lies in `config/hub-nats.json` (`hub-nats-2.json`, ...), all but the principals; those come from the keys
of the home and from the registry, at each start and at each reload.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hub.stack.errors import NotReady, StackError
from hub.stack.files import read_json, write_atomic, write_json
from hub.stack.keys import make_seed, public_key
from hub.stack.layout import HomeLayout
from hub.stack.leftovers import running_leftovers
from hub.stack.nats_config import Cluster, HubServer, SiteLogin, TlsPaths, hub_config
from hub.stack.ports import LOOPBACK
from hub.stack.principals import Principal, Registry, Role, checked
from hub.stack.probes import http_body, until_ready
from hub.stack.processes import ProcessIdentity, send

RELOAD_SECONDS = 10.0
RELOADS = 2
"""What a new account imports answers only after the reload that follows the one which made it (seen, 2.15.1)."""
_PART = "hub-nats"


class Access:
    """The principals of one home."""

    def __init__(self, home: Path) -> None:
        self._layout = HomeLayout(home)
        self._registry = Registry(self._layout.keys)

    def principals(self) -> Mapping[str, Principal]:
        """All by name: those that the home was made with, then those that were added."""
        server = _server(self._layout)
        return {each.name: each for each in (*server.principals, *self._registry.load().values())}

    @property
    def built_in(self) -> Collection[str]:
        """The names of those that the home was made with; they can't be changed here."""
        return frozenset(each.name for each in _server(self._layout).principals)

    @property
    def url(self) -> str:
        """The hub's NATS server, as clients on this machine reach it."""
        return f"nats://{LOOPBACK}:{_server(self._layout).port}"

    async def add(
        self,
        name: str,
        *,
        role: Role,
        verbs: Collection[str] = (),
        apps: Collection[str] = (),
        replace: bool = False,
    ) -> tuple[Principal, str | None]:
        """Let a principal in. Returns it with its seed; `replace` changes what one may do and keeps its key.

        Raises `StackError`.
        """
        with self._registry.changing() as known:
            before = known.get(name)
            if name in self.built_in or (before is not None and not replace):
                raise StackError(f"principal {name!r} is there already")
            seed = None if before is not None else make_seed()
            nkey = before.nkey if before is not None else public_key(seed or "")
            made = checked(Principal(name=name, nkey=nkey, role=role, verbs=tuple(verbs), apps=tuple(apps)))
            known[name] = made
        await self.apply()
        return made, seed

    async def rotate(self, name: str) -> tuple[Principal, str]:
        """Give a principal a new key; who uses the old one is cut off. Returns it with the new seed."""
        with self._registry.changing() as known:
            before = self._existing(known, name)
            seed = make_seed()
            made = Principal(**{**asdict(before), "nkey": public_key(seed)})
            known[name] = made
        await self.apply()
        return made, seed

    async def remove(self, name: str) -> None:
        """Let a principal in no more; who uses its key is cut off."""
        with self._registry.changing() as known:
            self._existing(known, name)
            del known[name]
        await self.apply()

    async def apply(self) -> bool:
        """Have the servers know the principals as they are; `False` when none runs: they will at their start.

        Raises `StackError` when a server does not take the configuration in time.
        """
        running = running_leftovers(self._layout.records)
        parts = [part for part in _parts(self._layout) if part in running]
        for part in parts:
            write_atomic(self._layout.server_config(part), configuration(self._layout, part))
            server = _server(self._layout, part)
            for _ in range(RELOADS):
                await _reload(part, running[part], server)
        return bool(parts)

    def _existing(self, known: Mapping[str, Principal], name: str) -> Principal:
        if name in self.built_in:
            raise StackError(f"principal {name!r} belongs to the stack itself")
        if name not in known:
            raise StackError(f"there is no principal {name!r}; see 'calque principal list'")
        return known[name]


def keep_server(layout: HomeLayout, part: str, server: HubServer) -> None:
    """Remember what a server of the hub is started with."""
    write_json(_server_file(layout, part), asdict(server))


def configuration(layout: HomeLayout, part: str = _PART) -> str:
    """The configuration of a server of the hub with all principals as they are now."""
    server = _server(layout, part)
    added = Registry(layout.keys).load()
    return hub_config(HubServer(**{**_fields(server), "principals": (*server.principals, *added.values())}))


async def _reload(part: str, running: ProcessIdentity, server: HubServer) -> None:
    before = await _loaded(server)
    send(running, signal.SIGHUP)

    async def taken() -> str | None:
        return None if await _loaded(server) != before else "the server still has the configuration it had"

    try:
        await until_ready(taken, asyncio.get_running_loop().time() + RELOAD_SECONDS)
    except NotReady as cause:
        raise StackError(f"{part} did not reload its configuration ({cause}): see 'calque logs {part}'") from None


async def _loaded(server: HubServer) -> str:
    said: dict[str, Any] = json.loads(await http_body(server.monitor_port, "/varz"))
    return str(said["config_load_time"])


def _parts(layout: HomeLayout) -> list[str]:
    """The parts that are servers of the hub."""
    _server(layout)
    return sorted(file.stem for file in layout.config.glob(f"{_PART}*.json"))


def _server(layout: HomeLayout, part: str = _PART) -> HubServer:
    try:
        document = read_json(_server_file(layout, part))
        if document is None:
            raise StackError(f"nothing was started in {layout.home} yet: start it with 'calque up'")
        return HubServer(
            **{
                **document,
                "tls": TlsPaths(**document["tls"]),
                "cluster": _cluster(document.get("cluster")),
                "sites": tuple(SiteLogin(**site) for site in document["sites"]),
                "principals": tuple(Principal(**{**each, "verbs": (), "apps": ()}) for each in document["principals"]),
            }
        )
    except (ValueError, TypeError, KeyError) as cause:
        raise StackError(f"{_server_file(layout, part)} is damaged ({cause}): 'calque up' writes it anew") from cause


def _fields(server: HubServer) -> dict[str, Any]:
    return {name: getattr(server, name) for name in server.__dataclass_fields__}


def _cluster(document: Mapping[str, Any] | None) -> Cluster | None:
    if document is None:
        return None
    return Cluster(port=document["port"], routes=tuple(document["routes"]), tls=TlsPaths(**document["tls"]))


def _server_file(layout: HomeLayout, part: str) -> Path:
    return layout.config / f"{part}.json"


__all__ = ["Access", "configuration", "keep_server"]
