"""Restarts a site's NATS server whose connection to the hub stays broken, though the hub is there.

Leaf nodes have been seen to stop reconnecting for hours, and to stand while nothing crosses them. So it is looked, at
the site's own server (`/leafz`), whether there is a connection to the hub and whether anything arrives over it: the
hub's heartbeat does every 2 s, to the agent. A server that has neither for `PATIENCE_SECONDS`, while the hub runs, is
started anew; what it had acknowledged is on its disk. When that did not help, it is left alone for longer each time.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hub.stack.errors import StackError
from hub.stack.probes import http_body
from hub.stack.supervisor import Supervisor

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
PATIENCE_SECONDS = 60.0
MOST_PATIENCE_SECONDS = 3600.0


@dataclass
class Link:
    """What was seen of one site's connection. ``decide`` knows no clock: times are seconds that it is given."""

    patience: float = PATIENCE_SECONDS
    first_patience: float = PATIENCE_SECONDS
    arrived: int | None = None
    since: float | None = None
    """Since when nothing has arrived, while it should have."""

    def decide(self, now: float, *, arrived: int | None, reachable: bool, beats: bool) -> bool:
        """Whether the server is to be started anew.

        ``arrived`` counts the messages that came from the hub over the connection that there is, ``None`` without one.
        ``reachable`` says whether there should be one; ``beats`` whether there should be more messages each time.
        """
        fine = arrived is not None and (not beats or arrived != self.arrived)
        self.arrived = arrived
        if fine or not reachable:
            self.since = None
            self.patience = self.first_patience
            return False
        if self.since is None:
            self.since = now
        if now - self.since < self.patience:
            return False
        self.since = None
        self.patience = min(self.patience * 2, MOST_PATIENCE_SECONDS)
        return True


@dataclass(frozen=True, kw_only=True)
class LeafWatch:
    """Watches the sites of a stack. ``monitors`` has the port of each site's server for HTTP."""

    supervisor: Supervisor
    monitors: Mapping[str, int]
    say: Callable[[str], None] = logger.warning
    look_seconds: float = LOOK_SECONDS
    patience_seconds: float = PATIENCE_SECONDS
    links: dict[str, Link] = field(default_factory=dict)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            for site in self.monitors:
                await self.look(site)
            await asyncio.sleep(self.look_seconds)

    async def look(self, site: str) -> None:
        """Look at one site once."""
        part = f"{site}-nats"
        try:
            arrived = await messages_from_hub(self.monitors[site])
        except (OSError, ValueError, EOFError):
            return  # it does not run: that is seen by who keeps it
        link = self.links.setdefault(site, Link(self.patience_seconds, self.patience_seconds))
        now = asyncio.get_running_loop().time()
        states = self.supervisor.states
        ready = {name for name, state in states.items() if state.phase == "ready"}
        reachable = any(name.startswith("hub-nats") for name in ready)
        if not link.decide(now, arrived=arrived, reachable=reachable, beats={"hub", f"{site}-agent"} <= ready):
            return
        what = "has no connection to" if arrived is None else "hears nothing of"
        self.say(f"{part} {what} the hub, which is there: it is started anew")
        try:
            await self.supervisor.restart(part)
        except StackError as cause:
            self.say(f"{part} can't be started anew: {cause}")


async def messages_from_hub(monitor_port: int) -> int | None:
    """How many messages a site's server has got over its connection to the hub; ``None`` when there is none.

    Raises `OSError` when the server does not answer.
    """
    said = json.loads(await http_body(monitor_port, "/leafz"))
    leafs = said.get("leafs") or []
    return sum(int(leaf["in_msgs"]) for leaf in leafs) if leafs else None
