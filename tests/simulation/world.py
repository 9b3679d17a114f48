"""The whole: two sites with an agent and six brokers each, one to three hubs, a client, strangers, and fate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from schemas.values import DataServiceType
from site_agent.domain.repositories import NO_POLICY, Policy, Rule
from tests.simulation.agent import Agent
from tests.simulation.data_broker import DataBroker, DataDisk
from tests.simulation.fate import Fate
from tests.simulation.hub_node import HubNode
from tests.simulation.loop import START_SECONDS, SimLoop, Stuck
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.platform import Platform, PlatformDisk
from tests.simulation.repository import Repositories, Repository, RepositoryDisk
from tests.simulation.snapshots import SnapshotDisk
from tests.simulation.streams import Consumer, Pending, Source, Stream
from tests.simulation.trace import Trace
from tests.simulation.works import SimBroker, Surroundings

SITES = ("north", "south")
DATABASES, BUCKETS, CHANNELS, PLATFORM = "postgres", "s3", "channels", "process"
OFFERS: dict[str, DataServiceType] = {DATABASES: "database", BUCKETS: "objectstore", CHANNELS: "messaging"}
REPOSITORIES = ("files", "vault")
BROKERS = len(OFFERS) + 1 + len(REPOSITORIES)
POLICIES = (
    NO_POLICY,
    Policy(rules=(Rule(types=("objectstore",), repository="vault"),)),
    Policy(rules=(Rule(at_least_bytes=1, repository="vault"),), default="files"),
)
HUBS = (1, 1, 2, 2, 3)
CHAOS_SECONDS = 60.0
FORGED, BABBLE = "forged-", "babble-"
"""How the ids begin of what strangers wrote into the streams."""
SETTLE_SECONDS = 3600.0
QUIET_LOOKS = 4


class SiteDisks:
    """What the brokers of one site keep: the reality that the record is held against."""

    def __init__(self) -> None:
        self.data: dict[str, DataDisk] = {name: DataDisk() for name in OFFERS}
        self.platform = PlatformDisk()
        self.repositories = {name: RepositoryDisk() for name in REPOSITORIES}


class World:
    """Everything of one run."""

    def __init__(self, loop: SimLoop, fate: Fate, trace: Trace) -> None:
        self.loop = loop
        self.fate = fate
        self.trace = trace
        self.network = Network(loop, fate)
        self.repositories = Repositories(self.network.cut)
        self.dead_letters: list[str] = []
        self.babble: set[str] = set()
        self.put_aside: set[str] = set()
        """What is no command, and what of it is a dead letter."""
        self.jobs = Stream(loop, "JOBS")
        self.commands = Stream(loop, "CMD")
        self.local = {site: Stream(loop, f"JOBS of {site}") for site in SITES}
        self.events = Stream(loop, "EVENTS")
        self.own = {writer: Stream(loop, f"EVT_{writer}") for writer in ("hub", *SITES)}
        self.sources = {
            writer: Source(loop, origin=stream, target=self.events, delay=partial(fate.lag, writer))
            for writer, stream in self.own.items()
        }
        self.of_jobs = Consumer(loop, self.jobs, name="jobs")
        self.of_events = Consumer(loop, self.events, name="sagas")
        self.of_commands = {
            site: Consumer(loop, self.commands, name=f"cmd-{site}", filter=f"calque.cmd.site.{site}.") for site in SITES
        }
        self.of_local = {site: Consumer(loop, self.local[site], name=f"local-{site}") for site in SITES}
        self.snapshots = SnapshotDisk()
        self.nodes: dict[str, Node] = {}
        self.brokers: dict[str, SimBroker] = {}
        self.disks = {site: SiteDisks() for site in SITES}
        self.agents = {site: self._agent(site) for site in SITES}
        self.hubs = [self._hub(f"hub{number}") for number in range(1, 1 + fate.plans.choice(HUBS))]
        for site in SITES:
            self._brokers(site)

    def _agent(self, site: str) -> Agent:
        agent = Agent(
            loop=self.loop,
            fate=self.fate,
            network=self.network,
            site=site,
            stream=self.own[site],
            consumer=self.of_commands[site],
            local=self.of_local[site],
            bury=self.bury,
            beat=self.network.beat,
            policy=self.fate.workload.choice(POLICIES),
        )
        agent.node = self.nodes[f"{site}/agent"] = Node(self.loop, self.fate, f"{site}/agent", agent.boot)
        return agent

    def _hub(self, name: str) -> HubNode:
        hub = HubNode(
            loop=self.loop,
            fate=self.fate,
            network=self.network,
            name=name,
            sites=SITES,
            own=self.own["hub"],
            events=self.events,
            commands=self.commands,
            jobs=self.of_jobs,
            sagas=self.of_events,
            bury=self.bury,
            origins=self.own,
            snapshots=self.snapshots,
        )
        hub.node = self.nodes[name] = Node(self.loop, self.fate, name, hub.boot)
        return hub

    def _brokers(self, site: str) -> None:
        around = Surroundings(self.loop, self.fate, self.network, site=site, kill=self.kill)
        disks = self.disks[site]
        for name, type in OFFERS.items():
            self._broker(
                f"{site}/dsb/{name}",
                partial(
                    DataBroker,
                    around,
                    name=name,
                    offers=type,
                    disk=disks.data[name],
                    repositories=self.repositories,
                ),
            )
        self._broker(f"{site}/psb/{PLATFORM}", partial(Platform, around, name=PLATFORM, disk=disks.platform))
        for name, disk in disks.repositories.items():
            self._broker(
                f"{site}/crb/{name}",
                partial(Repository, around, name=name, disk=disk, repositories=self.repositories),
            )

    def _broker(self, key: str, make: Callable[..., SimBroker]) -> None:
        async def boot(process: object) -> None:
            broker = self.brokers[key] = make(process=process)
            await broker.serve()

        self.nodes[key] = Node(self.loop, self.fate, key, boot)

    def kill(self, name: str) -> None:
        """SIGKILL for one node."""
        self.nodes[name].kill()

    def bury(self, consumer: Consumer, pending: Pending, reason: str) -> None:
        """A message that nobody can handle."""
        found = f"{consumer.name} {pending.stored.subject}: {reason}"
        self.trace.note("dead letter", found)
        if pending.stored.id in self.babble:
            self.put_aside.add(pending.stored.id)
        else:
            self.dead_letters.append(found)
        consumer.acknowledge(pending.stored.sequence)

    def cut(self, site: str, seconds: float) -> None:
        """The link between a site and the hub is down for a while."""
        if site in self.network.cut or self.fate.healed:
            return
        self.trace.hit("link down", site)
        self.network.cut.add(site)
        self.sources[site].cut = True
        self.of_commands[site].cut = True
        self.loop.at(seconds, self.mend, site)

    def mend(self, site: str) -> None:
        """The link is up again."""
        if site in self.network.cut:
            self.trace.note("fate", "link up", site)
            self.network.cut.discard(site)
            self.sources[site].cut = False
            self.sources[site].move()
            self.of_commands[site].connect()

    def jump(self, name: str, seconds: float) -> None:
        """A wall clock is set."""
        if not self.fate.healed:
            self.trace.hit("clock forward" if seconds > 0 else "clock back", self.nodes[name].kind, who=name)
            self.nodes[name].offset += seconds

    async def begin(self) -> None:
        """Start everything; returns when it is ready, before anything goes wrong."""
        healed, self.fate.healed = self.fate.healed, True
        for node in self.nodes.values():
            node.start()
        await until(lambda: all(node.ready for node in self.nodes.values()))
        await until(lambda: all(agent.knows_brokers(BROKERS) for agent in self.agents.values()))
        await until(lambda: all(hub.knows_sites(len(SITES)) for hub in self.hubs))
        self.fate.healed = healed

    def plan_faults(self) -> None:
        """Kills, cuts and jumps at moments of the seed's choice."""
        plans, profile = self.fate.plans, self.fate.profile
        names = list(self.nodes)
        important = [name for name in names if name.endswith("agent") or name.startswith("hub")]
        for _ in range(self.fate.times(profile.kills)):
            name = plans.choice(important) if plans.random() < 0.65 else plans.choice(names)
            self.loop.at(plans.uniform(0, CHAOS_SECONDS), self._kill_soon, name, plans.randrange(1, 300))
        for _ in range(self.fate.times(profile.cuts)):
            when, seconds = plans.uniform(0, CHAOS_SECONDS), plans.choice((1.0, 8.0, 30.0, 70.0))
            self.loop.at(when, self.cut, plans.choice(SITES), seconds)
        for _ in range(self.fate.times(profile.jumps)):
            when, seconds = plans.uniform(0, CHAOS_SECONDS), plans.choice((-20.0, -2.0, 2.0, 30.0, 5000.0, 90_000.0))
            self.loop.at(when, self.jump, plans.choice(important), seconds)
        for _ in range(self.fate.times(profile.stalls)):
            when, seconds = plans.uniform(0, CHAOS_SECONDS), plans.choice((0.3, 2.0, 12.0, 35.0, 70.0))
            how = plans.choice((self._freeze, self._cut_off))
            self.loop.at(when, how, plans.choice(important if plans.random() < 0.8 else names), seconds)
        if len(self.hubs) > 1 and profile.kills and plans.random() < 0.4:
            self.loop.at(plans.uniform(0, CHAOS_SECONDS), self._kill_for_good, plans.choice(self.hubs).name)
        for _ in range(self.fate.times(profile.kills)):
            self.loop.at(plans.uniform(0, CHAOS_SECONDS), self._sicken, plans.choice(SITES), plans.uniform(1.0, 30.0))

    def _freeze(self, name: str, seconds: float) -> None:
        if not self.fate.healed:
            self.nodes[name].freeze(seconds)

    def _cut_off(self, name: str, seconds: float) -> None:
        if not self.fate.healed:
            self.nodes[name].cut_off(seconds)

    def _kill_for_good(self, name: str) -> None:
        if not self.fate.healed:
            self.nodes[name].kill_for_good()

    def _sicken(self, site: str, seconds: float) -> None:
        """The probe of an app service fails for a while."""
        running = [key for key, app in self.disks[site].platform.apps.items() if app.state == "running"]
        if running and not self.fate.healed:
            key = self.fate.faults.choice(running)
            self.trace.hit("app ill", "app service", who="/".join(key))
            self.disks[site].platform.apps[key].healthy_from = self.loop.time() + seconds

    def _kill_soon(self, name: str, steps: int) -> None:
        if not self.fate.healed:
            self.nodes[name].kill_after(steps)

    async def settle(self) -> None:
        """Nothing goes wrong any more: wait until everything that was begun has ended. Raises :class:`Stuck`."""
        self.fate.heal()
        for site in SITES:
            self.mend(site)
        for stream in self.own.values():
            stream.down = stream.full = False
        for node in self.nodes.values():
            node.offset = 0.0  # a command of a hub whose clock is a day ahead is refused, and says so
            node.heal()
        deadline = self.loop.time() + SETTLE_SECONDS
        quiet = 0
        while True:
            busy = self.busy()
            quiet = 0 if busy else quiet + 1
            if quiet == QUIET_LOOKS:
                return
            if self.loop.time() > deadline:
                raise Stuck(f"still busy after {SETTLE_SECONDS:g} s: {', '.join(busy)}")
            await asyncio.sleep(2.0)

    def busy(self) -> list[str]:
        """What is not over yet."""
        found = [name for name, node in self.nodes.items() if not node.ready and not node.gone]
        found += [f"outbox of {writer}" for writer, source in self.sources.items() if source.behind]
        found += [
            consumer.name
            for consumer in (self.of_jobs, self.of_events, *self.of_commands.values(), *self.of_local.values())
            if not consumer.idle
        ]
        found += [f"operations of {site}" for site, agent in self.agents.items() if agent.busy]
        found += [f"operations of {hub.name}" for hub in self.living_hubs() if hub.busy]
        found += [f"brokers of {site}" for site, agent in self.agents.items() if not agent.knows_brokers(BROKERS)]
        found += [f"repositories of {site}" for site in SITES if self._unnoticed(site)]
        return found

    def living_hubs(self) -> list[HubNode]:
        """Those that were not killed for good."""
        return [hub for hub in self.hubs if not self.nodes[hub.name].gone]

    def _unnoticed(self, site: str) -> bool:
        """Whether a repository holds other copies than are on record."""
        journal = self.agents[site].journal
        if journal is None:
            return True
        for name, disk in self.disks[site].repositories.items():
            recorded = {one.copy for one in journal.site.locations.values() if one.repository == f"{site}/{name}"}
            rightly_not = {
                part.copy
                for image in disk.untrusted(journal.site.signers)
                for part in disk.images[image].instances[0].parts
            }
            if disk.committed.keys() - rightly_not != recorded - rightly_not:
                return True
        return False

    def end(self) -> None:
        """Kill everything that still runs."""
        for node in self.nodes.values():
            node.process.kill()

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the beginning."""
        return self.loop.time() - START_SECONDS


async def until(holds: Callable[[], bool], *, every_seconds: float = 0.3) -> None:
    """Return when it does; asked again every now and then, in virtual time."""
    while not holds():  # noqa: ASYNC110 - time is virtual, nobody waits
        await asyncio.sleep(every_seconds)
