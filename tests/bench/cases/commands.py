"""Commands of a client, 500 a second for half a minute, to deploy apps at 1,000 simulated sites: how long each waits
for its answer. The way is the real one: ``JOBS``, a hub process, ``CMD``, the site's own durable consumer, its
acceptance stored, ``EVENTS``, the hub's reactor, the answer. The sites and the client run on the same machine, in
processes of their own, and take their share of it. Before, fewer commands a second, to see where the machine ends, and
who needs how much of it for a command: beating of the sites and what else goes on by itself is in it.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from bus.connection import Bus, Message
from bus.work import enqueue
from schemas.commands import Answer, ApplyTemplate, DeployInstance
from schemas.envelope import decode, timestamp, unwrap, wrap
from schemas.ids import new_id
from schemas.names import template_token
from schemas.queries import SitesQuery, SitesView
from schemas.subjects import hub_command, query, reply_prefix
from schemas.values import Artifact, DataServiceSpec, ServiceSpec, Template, TemplateRef
from tests.bench import processes, sites
from tests.bench.harness import Curve, Figure, Scale, percentile
from tests.bench.processes import cpu_seconds_of
from tests.bench.servers import bench_server

TITLE = "Command to accepted"
PRINCIPAL = "bench"
LAST_ANSWER_SECONDS = 60.0
ONLINE_SECONDS = 120.0
SHOP = Template(
    name="shop",
    version="1",
    services={"web": ServiceSpec(artifact=Artifact(directory="/srv/shop", command=("serve",)), type="public", port=80)},
    data_services={"db": DataServiceSpec(type="database"), "docs": DataServiceSpec(type="objectstore")},
    entrypoint="web",
)
SIZES: Mapping[Scale, tuple[int, int, float]] = {Scale.FULL: (1000, 500, 30.0), Scale.SMOKE: (20, 50, 3.0)}
RISING: Mapping[Scale, tuple[int, ...]] = {Scale.FULL: (50, 100, 200, 300, 400), Scale.SMOKE: (25,)}
RISING_SECONDS: Mapping[Scale, float] = {Scale.FULL: 8.0, Scale.SMOKE: 1.0}
BAR_MS = 50.0


class Client:
    """Sends commands and notes when each was answered."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._all = asyncio.Event()
        self.sent: dict[str, float] = {}
        self.answered: dict[str, float] = {}
        self.rejected: list[Answer] = []

    async def listen(self) -> None:
        await self._bus.listen(f"{reply_prefix(PRINCIPAL)}.>", self._heard)

    def _heard(self, message: Message) -> None:
        now = self._loop.time()
        answer = unwrap(decode(message.payload), Answer)
        self.answered.setdefault(answer.command, now)
        if answer.state == "rejected":
            self.rejected.append(answer)
        if len(self.answered) >= len(self.sent):
            self._all.set()

    async def send(self, command: ApplyTemplate | DeployInstance, target: str) -> str:
        id = new_id()
        envelope = wrap(
            command,
            id=id,
            source=PRINCIPAL,
            time=timestamp(datetime.now(UTC)),
            replyto=f"{reply_prefix(PRINCIPAL)}.{id}",
        )
        subject = hub_command(principal=PRINCIPAL, aggregate=command.AGGREGATE, id=target, verb=command.VERB)
        self.sent[id] = self._loop.time()
        await enqueue(self._bus, subject, envelope)
        return id

    async def all_answered(self, *, seconds: float) -> None:
        """Raises ``TimeoutError``."""
        async with asyncio.timeout(seconds):
            while len(self.answered) < len(self.sent):
                self._all.clear()
                await self._all.wait()

    async def measured(self, names: list[str], *, rate: int, seconds: float) -> list[float]:
        """How long each of so many commands a second waited for its answer, in milliseconds."""
        self.sent.clear()
        self.answered.clear()
        await _send(self, names, rate=rate, seconds=seconds)
        await self.all_answered(seconds=LAST_ANSWER_SECONDS)
        return [(self.answered[id] - at) * 1000 for id, at in self.sent.items()]

    def lasted(self) -> float:
        """Seconds from the first command of the last measurement to its last answer."""
        return max(self.answered.values()) - min(self.sent.values())


async def run(scale: Scale) -> list[Figure | Curve]:
    """See the module."""
    count, rate, seconds = SIZES[scale]
    names = sites.names(count)
    async with bench_server() as server:
        await sites.set_up(server.bus, names)
        with tempfile.TemporaryDirectory() as directory:
            home = Path(directory)
            with (
                processes.hub(url=server.url, sites=names, home=home / "hub") as hub,
                processes.python("tests.bench.sites", server.url, str(count), home=home / "sites") as simulated,
            ):
                await hub.until_ready()
                await _online(server.bus, count)
                client = Client(server.bus)
                await client.listen()
                await client.send(ApplyTemplate(template=SHOP), template_token(SHOP.name, SHOP.version))
                await client.all_answered(seconds=LAST_ANSWER_SECONDS)
                # as warm as a hub that runs
                await client.measured(names, rate=RISING[scale][-1], seconds=min(3.0, seconds))
                rising: list[tuple[float, float]] = []
                for fewer in RISING[scale]:
                    waited = await client.measured(names, rate=fewer, seconds=RISING_SECONDS[scale])
                    rising.append((float(fewer), percentile(waited, 0.99)))

                def used() -> list[float]:
                    return [hub.cpu_seconds(), cpu_seconds_of(server.pid), simulated.cpu_seconds(), time.process_time()]

                before = used()
                waited = await client.measured(names, rate=rate, seconds=seconds)
                cpu = [(after - earlier) / len(waited) * 1e6 for earlier, after in zip(before, used(), strict=True)]
                memory = hub.peak_memory_bytes()
    if client.rejected:
        raise RuntimeError(f"{len(client.rejected)} commands were rejected: {client.rejected[0]}")
    what = f"{count:,} sites, {rate} commands/s"
    rising.append((float(rate), percentile(waited, 0.99)))
    within = [fewer for fewer, p99 in rising if p99 <= BAR_MS]
    return [
        Figure(name="answered, p50", value=percentile(waited, 0.5), unit="ms", detail=what),
        Figure(name="answered, p99", value=percentile(waited, 0.99), unit="ms", at_most=BAR_MS, detail=what),
        Figure(name="answered, slowest", value=max(waited), unit="ms"),
        Figure(name="answered", value=len(waited) / client.lasted(), unit="commands/s"),
        Figure(
            name=f"most commands a second of those tried with p99 under {BAR_MS:g} ms",
            value=max(within, default=0.0),
            unit="commands/s",
        ),
        Figure(name="CPU of the hub for a command", value=cpu[0], unit="us"),
        Figure(name="CPU of the NATS server for a command", value=cpu[1], unit="us"),
        Figure(name="CPU of the simulated sites for a command", value=cpu[2], unit="us"),
        Figure(name="CPU of the client for a command", value=cpu[3], unit="us"),
        Figure(name="memory of the hub at most", value=memory / (1 << 20), unit="MiB"),
        Curve(name="answered, p99", x="commands/s", y="ms", points=rising),
    ]


async def _online(bus: Bus, count: int) -> None:
    """All sites are known to be there."""
    async with asyncio.timeout(ONLINE_SECONDS):
        while True:
            view = await bus.ask(query("sites"), SitesQuery(), SitesView, source=PRINCIPAL, timeout_seconds=10.0)
            if sum(each.state == "online" for each in view.sites) == count:
                return
            await asyncio.sleep(0.5)


async def _send(client: Client, names: list[str], *, rate: int, seconds: float) -> None:
    """So many a second, evenly, to one site after the other."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    tasks: list[asyncio.Task[str]] = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))
        instance = new_id()
        command = DeployInstance(
            name=f"app-{instance[-12:]}", site=names[number % len(names)], template=TemplateRef(name="shop")
        )
        tasks.append(asyncio.create_task(client.send(command, instance)))
    await asyncio.gather(*tasks)
