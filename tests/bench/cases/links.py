"""What the link between hub and sites loses, and how soon it is itself again.

A hub and two sites as the stack makes them (mutual TLS, nkeys, `EVT_<site>` -> `IN_<site>` -> `EVENTS`), 700 events/s
of 341 bytes at each site and 10 commands/s to each. The link is cut or swallows everything, servers are killed
(SIGKILL). Times count from the moment when the link carries again, or the killed server answers again. The same with a
hub of three servers, whose times count from the kill: nobody waits for the killed one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bus.connection import CONTENT_HEADERS, Bus, BusSettings
from bus.jetstream import JetStream
from bus.reader import Stored, StreamReader
from bus.streams import COMMANDS, EVENTS, add_site, set_up_hub, set_up_site
from bus.work import SITE_PREFIX, Delivery, WorkQueue
from schemas.problems import CalqueError
from schemas.subjects import inbox, outbox
from tests.bench.harness import Figure, Scale
from tests.e2e.stack import until
from tests.servers import SITES, HubAndSites, run_hub_and_sites

TITLE = "Links between hub and sites under faults"

EVENTS_PER_SECOND = 700
TICK_SECONDS = 0.05
EVENT_BYTES = 341
COMMANDS_PER_SECOND = 10
PATIENCE_SECONDS = 90.0
LIVE_SECONDS = 0.5
"""A site has caught up when what arrives is not older than this."""


class Event(msgspec.Struct):
    """What the writers of the benchmark write. ``at`` is the clock of this process."""

    id: str
    at: float
    filling: str = ""


@dataclass
class Arrivals:
    """What came out of ``EVENTS`` of one site: when, and how old it was."""

    ids: list[str] = field(default_factory=list)
    times: list[tuple[float, float]] = field(default_factory=list)

    def first_after(self, moment: float) -> float | None:
        """When the first event arrived that was written before or after ``moment`` but came later."""
        return next((came for came, _ in self.times if came >= moment), None)

    def live_after(self, moment: float) -> float | None:
        """When the first event arrived, of those that came after ``moment``, that was fresh, and stayed so."""
        live: float | None = None
        for came, written in reversed(self.times):
            if came < moment or came - written > LIVE_SECONDS:
                break
            live = came
        return live


class Load:
    """Writes at both sites and to both sites, and notes what arrives."""

    def __init__(self, servers: HubAndSites, hub: Bus, sites: dict[str, Bus]) -> None:
        self.servers = servers
        self.hub = hub
        self.sites = sites
        self.arrivals = {site: Arrivals() for site in SITES}
        self.issued = Counter[str]()
        self.acknowledged: dict[str, set[str]] = {site: set() for site in SITES}
        self.sent: dict[str, set[str]] = {site: set() for site in SITES}
        self.delivered: dict[str, Counter[str]] = {site: Counter() for site in SITES}
        self._pace = asyncio.Event()
        self._pace.set()
        self._decoder = msgspec.json.Decoder(Event)

    @asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """While inside, everything runs."""
        tasks = [asyncio.create_task(self._read())]
        queues = []
        for site in SITES:
            queue = WorkQueue(self.sites[site], stream=COMMANDS, consumer=site, prefix=SITE_PREFIX)
            queues.append(queue)
            tasks += [
                asyncio.create_task(self._write(site)),
                asyncio.create_task(self._command(site)),
                asyncio.create_task(queue.run(self._taker(site))),
            ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self, moment: float, sites: tuple[str, ...]) -> tuple[float, float]:
        """When, after ``moment``, the first event of ``sites`` arrived, and when they had caught up; in seconds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        since = time.monotonic()
        while time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            firsts = [self.arrivals[site].first_after(moment) for site in sites]
            lives = [self.arrivals[site].live_after(moment) for site in sites]
            now = time.monotonic()
            if all(live is not None and now - live >= 2.0 for live in lives) and now - since >= 3.0:
                return (
                    max(first - moment for first in firsts if first is not None),
                    max(live - moment for live in lives if live is not None),
                )
        raise AssertionError(f"the events of {', '.join(sites)} had not caught up within {PATIENCE_SECONDS:.0f} s")

    async def stopped_and_whole(self) -> dict[str, int]:
        """Stop writing, let everything arrive, and count what is wrong."""
        self._pace.clear()
        wrong = Counter({"lost": 0, "duplicated": 0, "out of order": 0, "commands missing": 0, "commands again": 0})

        async def all_acknowledged() -> bool:
            return all(len(self.acknowledged[site]) == self.issued[site] for site in SITES)

        await until(all_acknowledged, seconds=PATIENCE_SECONDS, what="the acknowledgement of every event")
        stored = {site: await self._outbox(site) for site in SITES}

        async def all_there() -> bool:
            return all(
                len(set(self.arrivals[site].ids)) >= len(stored[site]) and self.sent[site] <= set(self.delivered[site])
                for site in SITES
            )

        with contextlib.suppress(AssertionError):  # what is missing is counted below
            await until(all_there, seconds=PATIENCE_SECONDS, what="everything that was written")
        for site in SITES:
            arrived = self.arrivals[site].ids
            wrong["lost"] += len(self.acknowledged[site] - set(arrived)) + len(set(stored[site]) - set(arrived))
            wrong["duplicated"] += len(arrived) - len(set(arrived))
            place = {id: number for number, id in enumerate(stored[site])}
            order = [place[id] for id in arrived]
            wrong["out of order"] += sum(one > next for one, next in itertools.pairwise(order))
            wrong["commands missing"] += len(self.sent[site] - set(self.delivered[site]))
            wrong["commands again"] += sum(times - 1 for times in self.delivered[site].values())
        return dict(wrong)

    @property
    def acknowledged_count(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    async def _outbox(self, site: str) -> list[str]:
        reader = StreamReader(self.sites[site], stream=outbox(site))
        last = await JetStream(self.sites[site]).last_sequence(outbox(site))
        ids: list[str] = []
        async for batch in reader.read():
            ids += [self._decoder.decode(each.payload).id for each in batch if each.sequence <= last]
            if batch[-1].sequence >= last:
                return ids
        return ids

    async def _read(self) -> None:
        async for batch in StreamReader(self.hub, stream=EVENTS).read():
            now = time.monotonic()
            for each in batch:
                self._note(each, now)

    def _note(self, stored: Stored, now: float) -> None:
        site = stored.subject.split(".")[2]
        event = self._decoder.decode(stored.payload)
        self.arrivals[site].ids.append(event.id)
        self.arrivals[site].times.append((now, event.at))

    async def _write(self, site: str) -> None:
        """So many events per tick, all in flight at once; those that were not acknowledged are sent again."""
        number = 0
        due = time.monotonic()
        while True:
            await self._pace.wait()
            due = max(due + TICK_SECONDS, time.monotonic() - 1.0)
            await asyncio.sleep(max(due - time.monotonic(), 0))
            numbers = range(number, number + int(EVENTS_PER_SECOND * TICK_SECONDS))
            number = self.issued[site] = numbers.stop
            await asyncio.gather(*(self._event(site, each) for each in numbers))

    async def _event(self, site: str, number: int) -> None:
        id = f"{site}/{number}"
        event = Event(id=id, at=time.monotonic())
        event.filling = "x" * (EVENT_BYTES - len(msgspec.json.encode(event)))
        headers = {**CONTENT_HEADERS, "Nats-Msg-Id": id}
        js = JetStream(self.sites[site])
        while True:
            try:
                subject = f"calque.evt.{site}.copy.{number % 1000}.prepared"
                await js.publish(subject, msgspec.json.encode(event), headers=headers, timeout_seconds=2.0)
            except CalqueError:
                await asyncio.sleep(0.1)
                continue
            self.acknowledged[site].add(id)
            return

    async def _command(self, site: str) -> None:
        number = 0
        js = JetStream(self.hub)
        while True:
            await self._pace.wait()
            await asyncio.sleep(1 / COMMANDS_PER_SECOND)
            number += 1
            id = f"{site}/{number}"
            subject = f"calque.cmd.site.{site}.admin.instance.{number}.stop"
            try:
                await js.publish(subject, id.encode(), headers={"Nats-Msg-Id": id}, timeout_seconds=2.0)
            except CalqueError:
                continue
            self.sent[site].add(id)

    def _taker(self, site: str) -> Callable[[Delivery], Awaitable[None]]:
        async def take(delivery: Delivery) -> None:
            self.delivered[site][delivery.payload.decode()] += 1

        return take


@asynccontextmanager
async def rig(*, servers: int) -> AsyncIterator[Load]:
    """Servers, streams, connections."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="calque-links-"))
        running = await stack.enter_async_context(run_hub_and_sites(Path(directory), servers=servers, relayed=True))

        async def connect(urls: list[str], seed: str, name: str, replicas: int = 1) -> Bus:
            bus = await Bus.connect(BusSettings(servers=urls, nkey_seed_file=seed, name=name, replicas=replicas))
            stack.push_async_callback(bus.close)
            return bus

        hub = await connect(list(running.hub_urls), running.hub_seed, "hub", servers)
        sites = {site: await connect([running.site_urls[site]], running.agent_seed(site), site) for site in SITES}
        for site in SITES:
            await set_up_site(sites[site], site=site)
        await set_up_hub(hub, sites=SITES)
        for site in SITES:
            await add_site(hub, site, deadline_seconds=30)
        yield Load(running, hub, sites)


async def killed(load: Load, part: str) -> float:
    """SIGKILL; returns the moment when the part is ready again."""
    supervisor = load.servers.supervisor
    before = supervisor.states[part]
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    while True:
        await asyncio.sleep(0.005)
        now = supervisor.states[part]
        if now.phase == "ready" and now.pid != before.pid:
            return time.monotonic()


async def leader(load: Load, stream: str) -> str:
    """The part that leads a stream of the hub."""
    info = await JetStream(load.hub).call(f"STREAM.INFO.{stream}")
    return str(info["cluster"]["leader"]).replace("hub", "hub-nats", 1).replace("_", "-")


async def run(scale: Scale) -> list[Figure]:
    """Every fault once, one after the other, under load."""
    cut, hole = (20.0, 35.0) if scale is Scale.FULL else (2.0, 3.0)
    return [*await one_server(cut_seconds=cut, hole_seconds=hole), *await three_servers()]


async def one_server(*, cut_seconds: float, hole_seconds: float) -> list[Figure]:
    """A hub of one server: the link cut, the link silent, the servers killed."""
    figures: list[Figure] = []
    async with rig(servers=1) as load, load.going():
        north = load.servers.relays["north"][0]
        await load.settled(time.monotonic(), SITES)

        await north.cut()
        await asyncio.sleep(cut_seconds)
        await north.start()
        figures += _times(f"link cut {cut_seconds:g} s", await load.settled(time.monotonic(), ("north",)), 5.0)

        north.swallow()
        await asyncio.sleep(hole_seconds)
        north.carry()
        figures += _times(f"black hole {hole_seconds:g} s", await load.settled(time.monotonic(), ("north",)), 10.0)

        back = await killed(load, "north-nats")
        figures += _times("kill -9 of the site's server", await load.settled(back, ("north",)), 10.0)

        back = await killed(load, "hub-nats")
        figures += _times("kill -9 of the hub's server", await load.settled(back, SITES), 10.0)
        figures += _counts("one server", load, await load.stopped_and_whole())
    return figures


async def three_servers() -> list[Figure]:
    """A hub of three servers: leaders of streams killed."""
    figures: list[Figure] = []
    async with rig(servers=3) as load, load.going():
        await load.settled(time.monotonic(), SITES)
        for stream in (EVENTS, inbox("north")):
            part = await leader(load, stream)
            moment = time.monotonic()
            await killed(load, part)
            name = f"hub of 3, kill -9 of the leader of {stream}"
            figures += _times(name, await load.settled(moment, SITES), 15.0)
        figures += _counts("hub of 3", load, await load.stopped_and_whole())
    return figures


def _times(what: str, measured: tuple[float, float], most: float) -> list[Figure]:
    first, live = measured
    return [
        Figure(name=f"{what}: first event after", value=round(first, 2), unit="s"),
        Figure(name=f"{what}: caught up after", value=round(live, 2), unit="s", at_most=most),
    ]


def _counts(what: str, load: Load, wrong: dict[str, int]) -> list[Figure]:
    about = f"of {load.acknowledged_count} acknowledged events, {sum(map(len, load.sent.values()))} commands"
    return [
        Figure(
            name=f"{what}: {name}",
            value=count,
            unit="",
            at_most=None if name == "commands again" else 0,
            detail=about,
        )
        for name, count in wrong.items()
    ]
