"""Many simulated sites in one process: each pulls its commands from ``CMD``, stores its acceptance, and beats.

``python -m tests.bench.sites URL COUNT``. On one server without accounts, a stream with the name and the place of
``IN_<site>`` takes what the site writes: what joins servers is measured elsewhere. It is kept in memory, because the
outboxes of a thousand sites lie on a thousand servers and disks of their own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bus.connection import Bus, BusSettings
from bus.events import EventStore, NewEvent
from bus.jetstream import JetStream
from bus.streams import EVENTS, set_up_hub
from bus.work import Delivery, WorkQueue
from schemas import events as ev
from schemas import saga, subjects
from schemas.commands import SiteDeployInstance
from schemas.envelope import decode, timestamp, unwrap, wrap
from schemas.ids import new_id
from schemas.operations import Step
from schemas.signals import Beat

BEAT_SECONDS = 2.0
AT_ONCE = 4
STREAM: Mapping[str, Any] = {
    "storage": "memory",
    "retention": "limits",
    "num_replicas": 1,
    "allow_direct": True,
    "allow_atomic": True,
}
STEPS = tuple(
    Step(id=f"{action}/{part}", action=action, part=part)
    for action, part in (
        ("provision", "db"),
        ("provision", "docs"),
        ("bind", "web"),
        ("deploy", "web"),
        ("check", "web"),
    )
)


def names(count: int) -> list[str]:
    """The names of so many sites."""
    return [f"site-{number:04}" for number in range(count)]


async def set_up(bus: Bus, sites: list[str]) -> None:
    """The streams of a hub to which all of ``sites`` are joined."""
    js = JetStream(bus)
    await set_up_hub(bus, sites=sites)
    for site in sites:
        name = subjects.inbox(site)
        await js.call(f"STREAM.CREATE.{name}", {"name": name, "subjects": [subjects.events_of(site)], **STREAM})
    info = await js.call(f"STREAM.INFO.{EVENTS}")
    sources = [{"name": subjects.inbox(site), "filter_subject": subjects.events_of(site)} for site in sites]
    config = {**info["config"], "sources": [*(info["config"].get("sources") or []), *sources]}
    await js.call(f"STREAM.UPDATE.{EVENTS}", config, timeout_seconds=60.0)


class Site:
    """Accepts every deployment as an operation, and does no more."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._store = EventStore(bus, writer=name)
        self._queue = WorkQueue(bus, stream="CMD", consumer=name)

    async def run(self) -> None:
        """Handle commands until cancelled."""
        await self._queue.run(self._handle, concurrency=AT_ONCE)

    async def _handle(self, delivery: Delivery) -> None:
        subject, envelope = subjects.parse_command(delivery.subject), decode(delivery.payload)
        command = unwrap(envelope, SiteDeployInstance)
        accepted = ev.OperationAccepted(
            kind="deploy", target=subject.id, name=command.name, by=command.by, steps=STEPS, parent=command.parent
        )
        begun = ev.InstanceDeploying(name=command.name, template=command.template, by=command.by)
        told = [("instance", subject.id, begun), *(("operation", envelope.id, each) for each in saga.accept(accepted))]
        new = [NewEvent(*each, operation=envelope.id, causation=envelope.id, replyto=envelope.replyto) for each in told]
        await self._store.append(new, expected={("instance", subject.id): 0, ("operation", envelope.id): 0})


async def beat(bus: Bus, sites: list[str]) -> None:
    """Say for ever that all are there."""
    run, sequence = new_id(), 0
    while True:
        sequence += 1
        begun = asyncio.get_running_loop().time()
        for number, site in enumerate(sites):
            data = Beat(sender=site, run=run, sequence=sequence, interval_seconds=BEAT_SECONDS)
            await bus.publish(
                subjects.beat(site), wrap(data, id=new_id(), source=site, time=timestamp(datetime.now(UTC)))
            )
            if number % 20 == 19:  # not all at once: sites know nothing of each other
                due = begun + BEAT_SECONDS * (number + 1) / len(sites)
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))


async def main(url: str, count: int) -> None:
    """Be ``count`` sites until killed."""
    bus = await Bus.connect(BusSettings(servers=[url], name="sites"))
    sites = names(count)
    await asyncio.gather(beat(bus, sites), *(Site(bus, site).run() for site in sites))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
