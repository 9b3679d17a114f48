"""How the site is: outbox, durable work, dead letters, disk. Told to the hub, and to who reads metrics."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from bus.condition import StreamCondition, consumer_condition, consumer_conditions, stream_conditions
from bus.connection import Bus
from bus.dlq import STREAM as DLQ
from bus.jetstream import JetStream
from bus.logs import RateLimitedLog
from bus.metrics import Sample, sample
from bus.stalls import Stalls, consumer_samples, stream_samples
from bus.streams import JOBS, OUTBOX_CONSUMER
from schemas import metrics
from schemas.envelope import timestamp
from schemas.problems import CalqueError
from schemas.signals import SiteCondition
from schemas.subjects import outbox
from site_agent.domain.site import Site

logger = logging.getLogger(__name__)


class Conditions:
    """``latest`` is what the site's heartbeat says; :meth:`look` renews it."""

    def __init__(self, bus: Bus, site: Callable[[], Site], *, state_dir: Path) -> None:
        self._js = JetStream(bus)
        self._site = site
        self._state_dir = state_dir
        self._stalls = Stalls()
        self._log = RateLimitedLog(logger, period_seconds=60.0)
        self.latest: SiteCondition | None = None

    async def look(self) -> None:
        """Ask the site's server. What it does not say now is left as it was."""
        try:
            self.latest = await self._look()
        except CalqueError as error:
            self._log.warning("look", f"the condition of the site can't be told: {error}")

    async def _look(self) -> SiteCondition:
        name = outbox(self._site().name)
        streams = {each.name: each for each in await stream_conditions(self._js)}
        own = streams.get(name, StreamCondition(name, 0, 0, None, 0, {}))
        hub = await consumer_condition(self._js, name, OUTBOX_CONSUMER)
        dead = streams.get(DLQ)
        disk = shutil.disk_usage(self._state_dir)
        return SiteCondition(
            position=own.last,
            unsent=max(own.last - hub.floor, 0) if hub is not None else None,
            outbox_bytes=own.bytes,
            outbox_limit_bytes=own.limit_bytes,
            dead_letters=dead.messages if dead is not None else 0,
            disk_free_bytes=disk.free,
            disk_total_bytes=disk.total,
            measured_at=timestamp(datetime.now(UTC)),
        )

    async def collect(self) -> Iterable[Sample]:
        """What metrics show of it."""
        await self.look()
        site = self._site()
        found: list[Sample] = []
        if self.latest is not None and self.latest.unsent is not None:
            found.append(sample(metrics.OUTBOX_UNSENT, self.latest.unsent))
        found += stream_samples(await stream_conditions(self._js))
        for stream in (JOBS, outbox(site.name)):
            found += consumer_samples(await consumer_conditions(self._js, stream), self._stalls)
        return found + _operations(site)


def _operations(site: Site) -> list[Sample]:
    live: dict[str, int] = {}
    waiting = 0
    for operation in site.live_operations():
        live[operation.accepted.kind] = live.get(operation.accepted.kind, 0) + 1
        waiting += operation.outcome is not None
    return [
        *(sample(metrics.OPERATIONS_LIVE, number, kind) for kind, number in live.items()),
        sample(metrics.CLEANUPS, waiting),
    ]
