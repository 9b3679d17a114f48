"""What all simulated brokers share: the real engine of operations, outcomes that outlive the process, and the points
of their work at which something goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from brokers.sdk.errors import permanent_error, temporary_error
from brokers.sdk.operations import Key, OperationEngine
from brokers.sdk.outcomes import OutcomeStore, Record
from brokers.sdk.service import Broker
from brokers.sdk.settings import BrokerSettings
from bus.discovery import ServiceInfo
from schemas.brokers import CONTRACTS, Change, Reply, Request
from schemas.problems import CalqueError
from schemas.values import BrokerKind
from tests.simulation.fate import Fate
from tests.simulation.loop import Process, SimLoop
from tests.simulation.network import Network

PIECE_SECONDS = 0.04


class MemoryOutcomes:
    """Finished operations as they lie on the broker's disk."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    def load(self, id: str) -> Record | None:
        """One of them."""
        return self._records.get(id)

    def save(self, record: Record) -> None:
        """Keep it."""
        self._records[record.outcome.id] = record

    def prune(self) -> int:
        """Nothing is old enough."""
        return 0


class Surroundings:
    """What a broker's work meets: the fate of the run, and the agent of its site, who may die at any point of it."""

    def __init__(self, loop: SimLoop, fate: Fate, network: Network, *, site: str, kill: Callable[[str], None]) -> None:
        self.loop = loop
        self.fate = fate
        self.network = network
        self.site = site
        self.kill = kill


class SimBroker(Broker):
    """The base of the simulated brokers; one object per run of the process, ``disk`` is what outlives it."""

    def __init__(self, around: Surroundings, process: Process, *, kind: BrokerKind, name: str, outcomes: Any) -> None:
        settings = SimpleNamespace(kind=kind, name=name, site=around.site)
        super().__init__(cast(BrokerSettings, settings))
        self.around = around
        self.process = process
        self.key = f"{around.site}/{kind}/{name}"
        self.engine = OperationEngine(cast(OutcomeStore, outcomes), explain=self.explain)

    async def serve(self) -> None:
        """Answer from here on."""
        await self.engine.open()
        kind, name, site = self.settings.kind, self.settings.name, self.settings.site
        metadata = {"calque.kind": kind, "calque.name": name, "calque.site": site}
        info = ServiceInfo(name=f"calque-{kind}-{name}", id=self.key, version="1.0.0", metadata=metadata)
        self.around.network.info[self.key] = (self.process, msgspec.json.encode(info))
        self.around.network.serve(f"calque.req.{site}.{kind}.{name}", self.process, self.answer)

    async def answer(self, operation: str, request: Any) -> Reply:
        """One request, as ``brokers.sdk.service`` hands it to the engine."""
        if operation == "status":
            return self.engine.status(request.id)
        if operation == "cancel":
            self.note("cancel", request.id)
            return await self.engine.cancel(request.id)
        contract = CONTRACTS[self.settings.kind][operation]
        method = getattr(self, operation)
        if contract.long:
            self.note(operation, request.id)
            return await self.engine.start(
                Key(request.id, operation),
                lambda reporter: method(request, reporter),
                resource=self.resource(operation, request),
            )
        if not isinstance(request, Change):
            found: Reply = await method(request)
            return found
        self.note(operation, request.id)
        return await self.engine.once(
            Key(request.id, operation),
            lambda: method(request),
            resource=self.resource(operation, request),
            remember=contract.result if operation in self.remembered else None,
        )

    def note(self, what: str, *about: object) -> None:
        """Into the trace."""
        self.around.fate.trace.note(self.key, what, *about)

    async def point(self, operation: str, where: str, *, pieces: int = 1) -> None:
        """A point of the work where fate may strike; sound work takes a moment."""
        fate, around = self.around.fate, self.around
        self.process.check()
        await asyncio.sleep(fate.network.random() * PIECE_SECONDS * pieces)
        self.process.check()
        if not fate.strikes(fate.profile.broker):
            return
        at = f"{operation} {where}"
        match fate.faults.randrange(8):
            case 0:
                fate.trace.hit("broker killed", at, who=self.key)
                around.kill(self.key)
                await asyncio.sleep(0)
            case 1:
                fate.trace.hit("agent killed", at, who=self.key)
                around.kill(f"{around.site}/agent")
            case 2:
                fate.trace.hit("temporary problem", at, who=self.key)
                raise temporary_error("busy", f"{operation} can't be done now")
            case 3:
                fate.trace.hit("permanent problem", at, who=self.key)
                raise permanent_error("broken", f"{operation} is refused")
            case 4:
                fate.trace.hit("slow", at, who=self.key)
                await asyncio.sleep(fate.faults.uniform(0.3, 20.0))
            case 5:
                fate.trace.hit("hangs", at, who=self.key)
                await asyncio.sleep(fate.faults.uniform(20.0, 200.0))
            case 6:
                fate.trace.hit("fails unexpectedly", at, who=self.key)
                raise CalqueError(temporary_error("internal", f"{operation} fell over").problem)
            case 7:
                fate.trace.hit("both killed", at, who=self.key)
                around.kill(f"{around.site}/agent")
                around.kill(self.key)
                await asyncio.sleep(0)
        self.process.check()


async def locked(lock: asyncio.Lock, work: Callable[[], Awaitable[Any]]) -> Any:
    """``work`` alone."""
    async with lock:
        return await work()


__all__ = ["Request", "SimBroker", "Surroundings"]
