"""The real hub on simulated surroundings, wired as ``hub.process`` does it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from bus.connection import Bus
from bus.jetstream import JetStream
from bus.snapshots import Contended
from hub.adapters.outbound import BusOutbound
from hub.application.commands import CommandHandler
from hub.application.context import Context
from hub.application.members import Members
from hub.application.projector import Begin, Projector
from hub.application.queries import Queries
from hub.application.reactor import Reactor
from hub.application.sagas import Sagas
from hub.application.snapshots import Snapshotter
from schemas.envelope import Envelope
from schemas.problems import CalqueError
from schemas.subjects import HUB
from tests.simulation.fate import Fate
from tests.simulation.loop import Process, SimLoop
from tests.simulation.network import Network, SimBus
from tests.simulation.node import Node
from tests.simulation.snapshots import SimJetStream, SimSnapshots, SnapshotDisk
from tests.simulation.storage import SimFeed, SimQueue, SimStore, store_command
from tests.simulation.streams import Consumer, Stream

CATCH_UP_SECONDS = 600.0
COMMANDS_AT_ONCE = 32
EVENTS_AT_ONCE = 64
SAGA_DELIVERIES = 1000
SNAPSHOT_SECONDS = 20.0
MAKE = "simulated"


class SimOutbound(BusOutbound):
    """What a hub sends, with ``CMD`` on the simulated servers."""

    def __init__(self, bus: SimBus, loop: SimLoop, fate: Fate, process: Process, commands: Stream) -> None:
        super().__init__(cast(Bus, bus))
        self._loop = loop
        self._fate = fate
        self._process = process
        self._commands = commands

    async def command(self, subject: str, envelope: Envelope) -> None:
        await store_command(self._loop, self._fate, self._process, self._commands, subject, envelope)


@dataclass
class HubNode:
    """One hub process; several share the work. ``context`` is that of the present run."""

    loop: SimLoop
    fate: Fate
    network: Network
    name: str
    sites: tuple[str, ...]
    own: Stream
    events: Stream
    commands: Stream
    jobs: Consumer
    sagas: Consumer
    bury: Any
    origins: Mapping[str, Stream]
    snapshots: SnapshotDisk
    node: Node | None = None
    context: Context | None = None

    async def boot(self, process: Process) -> None:
        """Read all events, then listen."""
        loop, fate, node = self.loop, self.fate, self.node
        assert node is not None
        bus = SimBus(self.network, process, site=None, fate=fate, loop=loop)
        snapshotter = Snapshotter(
            SimSnapshots(loop, fate, process, self.snapshots, self.events),
            cast(JetStream, SimJetStream(fate, process, self.events)),
            name=self.name,
            clock=node.now,
            make=MAKE,
        )
        context = self.context = Context(
            events=SimStore(loop, fate, process, self.own, writer=HUB, clock=node.now),
            outbound=SimOutbound(bus, loop, fate, process, self.commands),
            projector=Projector(SimFeed(loop, fate, process, self.events), start=self._start(snapshotter)),
            clock=node.now,
            sites=self.sites,
        )
        members = Members(context, seconds=loop.time)
        sagas = Sagas(context)
        commands = CommandHandler(context)
        reactor = Reactor(context, sagas)
        queries = Queries(context, members, name=self.name)
        process.spawn(context.projector.run(), "projector")
        await context.projector.caught_up(timeout_seconds=CATCH_UP_SECONDS)
        for site in self.sites:
            self.network.serve(f"calque.ask.{site}", process, self._asking(queries, site))
        self.network.beats[self.name] = (process, members.heard)
        process.spawn(members.run(), "members")
        process.spawn(sagas.run(), "sagas")
        if fate.snapshots:
            process.spawn(self._take_snapshots(snapshotter, context.projector), "snapshots")
        jobs = SimQueue(loop, fate, process, self.jobs, bury=self.bury)
        events = SimQueue(
            loop, fate, process, self.sagas, bury=self.bury, origins=self.origins, max_deliveries=SAGA_DELIVERIES
        )
        process.spawn(events.run(reactor.handle, concurrency=EVENTS_AT_ONCE), "events")
        process.spawn(jobs.run(commands.handle, concurrency=COMMANDS_AT_ONCE), "commands")

    def _start(self, snapshotter: Snapshotter) -> Callable[[], Awaitable[Begin]]:
        async def start() -> Begin:
            begin = await snapshotter.start()
            if begin.place is not None:
                self.snapshots.started += 1
                self.fate.trace.note(self.name, "starts from the snapshot of event", begin.place.sequence)
            return begin

        return start

    async def _take_snapshots(self, snapshotter: Snapshotter, projector: Projector) -> None:
        """At moments of the seed's choice: the product's own are a matter of its monotonic clock."""
        while True:
            await asyncio.sleep(self.fate.network.expovariate(1 / SNAPSHOT_SECONDS))
            try:
                await snapshotter.take(projector)
            except (CalqueError, Contended) as error:
                self.fate.trace.note(self.name, "wrote no snapshot:", error)

    def _asking(self, queries: Queries, site: str) -> Any:
        async def asked(operation: str, question: Any) -> Any:
            return await getattr(queries, operation)(site, question)

        return asked

    @property
    def busy(self) -> bool:
        """Whether it has not read everything, or an operation of the hub is not over."""
        if self.context is None:
            return True
        state = self.context.state
        return state.position < len(self.events.messages) or any(True for _ in state.operations.live_rows())

    def knows_sites(self, number: int) -> bool:
        """Whether that many have announced themselves, and it has read all there is."""
        return self.context is not None and not self.busy and len(self.context.state.sites.announced) >= number
