"""Somebody who holds the keys of a principal, of a site's agent and of the hub, and says whatever comes to mind."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bus.connection import Bus, BusSettings, Message
from bus.jetstream import JetStream
from hub.stack.layout import HomeLayout
from schemas.envelope import decode, unwrap
from schemas.problems import CalqueError
from schemas.signals import ProblemReply
from schemas.subjects import HUB_JETSTREAM, reply_prefix
from schemas.upkeep import RebuildEvents
from tests.fuzz.hostile import Hostile
from tests.fuzz.targets import ADMIN, Connection, Target, targets

AT_ONCE = 24
REPLY_SECONDS = 60.0
TRIES = 5
WRONG_SUBJECTS: tuple[tuple[Connection, str], ...] = (
    ("principal", "calque.cmd.hub.admin.instance.*.deploy"),
    ("principal", "calque.cmd.hub.admin.instance.>.deploy"),
    ("principal", "calque.cmd.hub.admin.x"),
    ("principal", "calque.cmd.hub.admin.instance.a.b.c.deploy"),
    ("principal", "calque.cmd.hub.admin.nothing.a.happens"),
    ("principal", "calque.cmd.hub.admin.instance.\N{SNOWMAN}.deploy"),
    ("hub", "calque.cmd.site.north"),
    ("hub", "calque.cmd.site.north.admin.instance.*.deploy"),
    ("hub", "calque.cmd.site.north.admin.nothing.a.happens"),
    ("agent", "calque.cmd.site.north.admin.instance.a.b.c"),
    ("agent", "calque.evt.north.copy.*.prepared"),
    ("agent", "calque.evt.north.x"),
    ("agent", "calque.evt.north.copy.a.b.c.d"),
    ("agent", "calque.evt.north.\N{SNOWMAN}.a.b"),
    ("agent", "calque.evt.north.template.t@1.applied"),
)


class Attacker:
    """``outcomes`` counts what came of it: stored, refused by the server, answered with a problem or a view, silent."""

    def __init__(self, buses: dict[Connection, Bus], *, site: str) -> None:
        self._buses = buses
        self._site = site
        self._slots = asyncio.Semaphore(AT_ONCE)
        self.outcomes: Counter[str] = Counter()
        self.silent: list[str] = []

    def bus(self, by: Connection) -> Bus:
        """The connection with these keys."""
        return self._buses[by]

    async def attack(self, seed: int, *, each: bool) -> None:
        """All subjects: every way to spoil a message on each of them, or one way."""
        # Not in the loop: servers drop who does not answer their pings for long.
        work = await asyncio.to_thread(self._work, Hostile(seed), each=each)
        await asyncio.gather(*(self._send(*one) for one in work))

    def _work(self, hostile: Hostile, *, each: bool) -> list[tuple[Target, str, bytes]]:
        work: list[tuple[Target, str, bytes]] = []
        for target in targets(self._site):
            source = {"principal": ADMIN, "hub": "hub", "agent": self._site}[target.by]
            messages = (
                hostile.spoiled(target.kind, source=source) if each else [hostile.one(target.kind, source=source)]
            )
            work += [(target, each.what, each.payload) for each in messages if not _good_order(target, each.payload)]
        for by, subject in WRONG_SUBJECTS:
            message = hostile.one("calque.command.hub.instance.deploy.v1", source=ADMIN)
            work.append((Target(subject, "", "stored", by), "subject", message.payload))
        hostile.random.shuffle(work)
        return work

    async def _send(self, target: Target, what: str, payload: bytes) -> None:
        async with self._slots:
            bus = self._buses[target.by]
            if target.way == "said":
                await bus.send(target.subject, payload)
                self.outcomes["said"] += 1
                return
            try:
                reply = await self._called(bus, target.subject, payload)
            except CalqueError as error:
                self.outcomes[f"{target.way}: {error.problem.code}"] += 1
                if target.way == "asked":
                    self.silent.append(f"{target.subject} ({what}): {error}")
                return
            self.outcomes[f"{target.way}: {self._said(target, reply.payload)}"] += 1

    async def _called(self, bus: Bus, subject: str, payload: bytes) -> Message:
        """The reply. A connection that broke, as on a machine with more to do than it can, is no silence."""
        for _ in range(TRIES - 1):
            try:
                return await bus.call(subject, payload, timeout_seconds=REPLY_SECONDS)
            except CalqueError as error:
                if "connection broke" not in str(error) and "disconnected" not in str(error):
                    raise
        return await bus.call(subject, payload, timeout_seconds=REPLY_SECONDS)

    def _said(self, target: Target, payload: bytes) -> str:
        if target.way == "stored":
            said: dict[str, Any] = json.loads(payload)
            return "refused by the server" if "error" in said else "stored"
        envelope = decode(payload)
        return "problem" if envelope.type == ProblemReply.TYPE else "answer"


def _good_order(target: Target, payload: bytes) -> bool:
    """Whether it is spoiled in nothing that matters, and has the hub begin again: that would be no harm."""
    if target.kind != RebuildEvents.TYPE:
        return False
    try:
        return unwrap(decode(payload), RebuildEvents).sites == ()
    except CalqueError:
        return False


@asynccontextmanager
async def attacker(home: Path, *, site: str) -> AsyncIterator[Attacker]:
    """Connected with the keys of a stack's home."""
    layout = HomeLayout(home)
    context = json.loads(layout.context.read_text())
    principal = BusSettings(
        servers=context["servers"],
        nkey_seed_file=context["nkey_seed_file"],
        name="attacker",
        inbox_prefix=reply_prefix(ADMIN),
        jetstream_prefix=HUB_JETSTREAM,
    )
    settings: dict[Connection, BusSettings] = {
        "principal": principal,
        "hub": _of_part(layout, "hub"),
        "agent": _of_part(layout, f"{site}-agent"),
    }
    buses = {name: await Bus.connect(one) for name, one in settings.items()}
    try:
        yield Attacker(buses, site=site)
    finally:
        for bus in buses.values():
            await bus.close()


def _of_part(layout: HomeLayout, part: str) -> BusSettings:
    section = json.loads(layout.settings(part).read_text())["bus"]
    return BusSettings(
        servers=section["servers"],
        nkey_seed_file=section["nkey_seed_file"],
        name="attacker",
        inbox_prefix=section.get("inbox_prefix", "_INBOX"),
    )


async def waiting(bus: Bus, consumers: Iterable[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """Of durable consumers that have something left: how much is to be delivered, and to be acknowledged."""
    found = {}
    for stream, name in consumers:
        info = await JetStream(bus).call(f"CONSUMER.INFO.{stream}.{name}")
        left = (int(info["num_pending"]), int(info["num_ack_pending"]))
        if left != (0, 0):
            found[f"{stream}/{name}"] = left
    return found
