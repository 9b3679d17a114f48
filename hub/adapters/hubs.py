"""Which hub processes there are: they find each other as services (NATS ADR-32), and hear each other's heartbeats."""

from __future__ import annotations

import time

from bus.connection import Bus, Message
from bus.service import discover
from schemas.envelope import Envelope, decode, unwrap
from schemas.problems import CalqueError
from schemas.queries import HubsQuery, HubsView, HubView
from schemas.signals import Beat

SERVICE = "calque-hub"
FORGOTTEN_SECONDS = 30.0
WAIT_SECONDS = 0.3


class Hubs:
    """``run`` is the id under which this hub beats."""

    def __init__(self, bus: Bus, *, run: str) -> None:
        self._bus = bus
        self._run = run
        self._heard: dict[str, float] = {}

    async def heard(self, message: Message) -> None:
        """A heartbeat of a hub."""
        try:
            run = unwrap(decode(message.payload), Beat).run
        except CalqueError:
            return
        now = time.monotonic()
        if run != self._run:
            self._heard[run] = now
        for each in [each for each, last in self._heard.items() if now - last > FORGOTTEN_SECONDS]:
            del self._heard[each]

    @property
    def others(self) -> bool:
        """Whether another hub was at work lately: then what this one has not read yet may be known to clients."""
        return any(time.monotonic() - last <= FORGOTTEN_SECONDS for last in self._heard.values())

    async def hubs(self, _query: HubsQuery, _envelope: Envelope) -> HubsView:
        """``hubs``: all that answer just now."""
        found = await discover(self._bus, name=SERVICE, wait_seconds=WAIT_SECONDS)
        views = [
            HubView(
                name=each.metadata.get("name", ""),
                id=each.id,
                version=each.version,
                since=each.metadata.get("since", ""),
                answering=each.metadata.get("run") == self._run,
            )
            for each in found
        ]
        return HubsView(hubs=tuple(sorted(views, key=lambda each: (each.name, each.id))))
