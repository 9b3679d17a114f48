"""A reference broker that can be restarted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from brokers.testkit.reference.crb import ReferenceCrb
from brokers.testkit.reference.dsb import ReferenceDsb
from brokers.testkit.reference.engine import EngineBroker
from brokers.testkit.reference.psb import ReferencePsb
from bus.connection import Bus
from schemas.values import BrokerKind

KINDS: dict[BrokerKind, type[EngineBroker]] = {"dsb": ReferenceDsb, "psb": ReferencePsb, "crb": ReferenceCrb}


class Reference:
    """One broker; a restart makes another one of what the first left on its disk."""

    def __init__(
        self, bus: Bus, kind: BrokerKind, *, site: str, name: str, directory: Path, defects: Iterable[str] = ()
    ) -> None:
        self._bus = bus
        self._kind = kind
        self._named: dict[str, Any] = {
            "site": site,
            "name": name,
            "directory": directory,
            "defects": frozenset(defects),
        }
        self._disk: dict[str, Any] = {}
        self._broker: EngineBroker | None = None

    async def start(self) -> None:
        """Answer."""
        self._broker = KINDS[self._kind](self._bus, disk=self._disk, **self._named)
        await self._broker.start()

    async def stop(self) -> None:
        """Answer no more."""
        if self._broker is not None:
            broker, self._broker = self._broker, None
            await broker.stop()

    async def restart(self) -> None:
        """As a process that is stopped and started again."""
        await self.stop()
        await self.start()
