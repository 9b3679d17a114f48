"""Events in the shape and the mix of real ones, for measuring: histories of any length, and a big present state.

    await load(bus, "EVENTS", history(events=1_000_000, sites=100, seed=1))

All that comes out of here is valid: made by the real decisions (:mod:`tests.bench.stories`), ids are UUIDv7, every
writer's events are in an order that it could have written. The same arguments give the same bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from random import Random

import msgspec

from bus.connection import CONTENT_HEADERS, Bus, Message
from bus.jetstream import JetStream
from bus.streams import set_up_hub
from schemas.ids import new_id
from schemas.subjects import ALL_EVENTS
from tests.bench import stories
from tests.bench.stories import Story

Told = tuple[str, bytes]

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
AT_ONCE = 200
"""How many stories go on at the same time."""
WINDOW = 4096
"""How many publishes wait for their acknowledgement."""
LOAD_SECONDS = 60.0
POLL_SECONDS = 0.05
STAGE = "stage"
"""Below which subject events are published to be loaded."""
MAX_BYTES = 8 << 30
MIX = (
    (stories.every_build, stories.SMALL, 30),
    (stories.every_build, stories.BIG, 20),
    (stories.before_upgrades, stories.BIG, 10),
    (stories.before_upgrades, stories.SMALL, 10),
    (stories.bug_hunt, stories.BIG, 15),
    (stories.misfortune, stories.SMALL, 15),
)


@cache
def _lives() -> tuple[tuple[Story, ...], tuple[int, ...]]:
    return tuple(write(template) for write, template, _ in MIX), tuple(weight for *_, weight in MIX)


class Teller:
    """Fills stories with names, ids and times, all from one seed."""

    def __init__(self, *, sites: int, seed: int) -> None:
        self.random = Random(seed)
        self._sites = [f"site-{number:04}" for number in range(max(sites, 2))]
        self._known: set[str] = set()
        self._apps = 0
        self._moment = BEGINNING
        self._joining = stories.joining()

    def ids(self, count: int) -> list[str]:
        """UUIDv7 of about now."""
        head = f"{int(self._moment.timestamp() * 1000):012x}"
        bits = self.random.getrandbits
        made = []
        for _ in range(count):
            tail = f"{bits(74):019x}"
            made.append(f"{head[:8]}-{head[8:]}-7{tail[:3]}-{'89ab'[bits(2)]}{tail[3:6]}-{tail[6:18]}")
        return made

    def times(self) -> Iterator[str]:
        """Moments, one after the other."""
        while True:
            self._moment += timedelta(microseconds=1000 + self.random.getrandbits(16))
            yield self._moment.isoformat(timespec="microseconds").replace("+00:00", "Z")

    def tell(self, story: Story, *, home: str | None = None) -> Iterator[list[Told]]:
        """The story at a home and at another site, both of which join before if they are new."""
        there, away = self.random.sample(self._sites, 2)
        home = home or there
        if away == home:
            away = self._sites[self._sites.index(home) - 1]
        for site in (home, away):
            if site not in self._known:
                self._known.add(site)
                yield from self._fill(self._joining, (site, site))
        yield from self._fill(story, (home, away))

    def _fill(self, story: Story, sites: tuple[str, str]) -> Iterator[list[Told]]:
        self._apps += 1
        names = (*sites, f"app-{self._apps}", f"app-{self._apps}-b", "nightly")
        return story.tell(names=names, ids=self.ids(story.ids), times=self.times())

    @property
    def sites(self) -> list[str]:
        """All names of sites."""
        return self._sites


def history(*, events: int, sites: int, seed: int) -> Iterator[Told]:
    """Subject and payload of ``events`` events: apps deployed, saved, run, stopped, deleted at many ``sites``."""
    return islice(_history(sites=sites, seed=seed), events)


def _history(*, sites: int, seed: int) -> Iterator[Told]:
    teller = Teller(sites=sites, seed=seed)
    for template in (stories.SMALL, stories.BIG):
        for group in teller.tell(stories.applied(template)):
            yield from group
    lives, weights = _lives()
    going: list[Iterator[list[Told]]] = []
    while True:
        while len(going) < AT_ONCE:
            going.append(teller.tell(teller.random.choices(lives, weights)[0]))
        at = int(teller.random.random() * len(going))
        group = next(going[at], [])
        if not group:
            going[at] = going[-1]
            going.pop()
        yield from group


def world(*, sites: int, apps: int, copies: int, images: int, seed: int = 1, operations: bool = True) -> Iterator[Told]:
    """The events of a present state: ``apps`` that run over ``sites``, and the ``images`` that were saved of them, with
    ``copies`` in all: one or two per image. Without ``operations``, only what came of them."""
    teller = Teller(sites=sites, seed=seed)
    for template in (stories.SMALL, stories.BIG):
        for group in teller.tell(stories.applied(template)):
            yield from group
    written: dict[tuple[bool, int], Story] = {}
    left, double = images, copies - images
    for number in range(apps):
        big = double > 0
        count = min(left // (apps - number), double) if big else left // (apps - number)
        left -= count
        double -= count if big else 0
        if (big, count) not in written:
            template = stories.BIG if big else stories.SMALL
            written[big, count] = stories.kept(template, count, operations=operations)
        for group in teller.tell(written[big, count], home=teller.sites[number % len(teller.sites)]):
            yield from group


class NotLoaded(Exception):
    """An event was not stored."""


async def load(bus: Bus, stream: str, events: Iterable[Told]) -> int:
    """Store events in ``stream`` (``EVENTS``) in their order; how many there are. A hub's streams are made if they are
    not there. They come by way of another stream, as all of ``EVENTS`` do, and so have the headers of sourced events.

    The stream must be empty: for a new source, the server looks through all that is stored for where it stood.
    Raises :class:`NotLoaded` when an event is refused, or not stored in time.
    """
    js = JetStream(bus)
    if await js.stream(stream) is None:
        await set_up_hub(bus)
    config = {**(await js.call(f"STREAM.INFO.{stream}"))["config"], "max_bytes": MAX_BYTES}
    stage = f"STAGE_{new_id()}"
    await js.call(
        f"STREAM.CREATE.{stage}",
        {"name": stage, "subjects": [f"{STAGE}.>"], "storage": "file", "num_replicas": 1, "max_bytes": MAX_BYTES},
    )
    transform = {"src": f"{STAGE}.{ALL_EVENTS}", "dest": ALL_EVENTS}
    sources = [*(config.get("sources") or []), {"name": stage, "subject_transforms": [transform]}]
    await js.call(f"STREAM.UPDATE.{stream}", {**config, "sources": sources})
    try:
        loaded = await _Loader(bus).load(events)
        await _sourced(js, stream, loaded)
    finally:
        await js.call(f"STREAM.UPDATE.{stream}", config)
        await js.call(f"STREAM.DELETE.{stage}")
    return loaded


async def _sourced(js: JetStream, stream: str, count: int) -> None:
    stored = -1
    while (now := await js.last_sequence(stream)) < count:
        if now > stored:
            stored, deadline = now, asyncio.get_running_loop().time() + LOAD_SECONDS
        elif asyncio.get_running_loop().time() > deadline:
            raise NotLoaded(f"{stream} stays at {stored} of {count}")
        await asyncio.sleep(POLL_SECONDS)


class _Identified(msgspec.Struct):
    id: str


class _Loader:
    """Publishes with a window of acknowledgements, counted on one inbox."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._acknowledged = 0
        self._refused: bytes | None = None
        self._wake = asyncio.Event()

    async def load(self, events: Iterable[Told]) -> int:
        inbox = self._bus.new_inbox()
        subscription = await self._bus.listen(inbox, self._heard)
        sent = 0
        try:
            for subject, payload in events:
                sent += 1
                headers = {**CONTENT_HEADERS, "Nats-Msg-Id": msgspec.json.decode(payload, type=_Identified).id}
                await self._bus.send(f"{STAGE}.{subject}", payload, reply=inbox, headers=headers)
                if sent - self._acknowledged >= WINDOW:
                    await self._until(sent - WINDOW // 2)
            await self._until(sent)
        finally:
            await subscription.drop()
        return sent

    def _heard(self, message: Message) -> None:
        self._acknowledged += 1
        if b'"error"' in message.payload:
            self._refused = message.payload
        self._wake.set()

    async def _until(self, count: int) -> None:
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                while self._acknowledged < count:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            raise NotLoaded(f"no acknowledgement for {LOAD_SECONDS:g} s") from None
        if self._refused is not None:
            raise NotLoaded(self._refused.decode(errors="replace"))
