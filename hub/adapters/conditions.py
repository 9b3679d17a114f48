"""How the hub's streams are, and how far behind the sites it is. Asked when somebody looks, and no oftener.

How far the hub is behind a site is the sum of three: the events that the site has and ``IN_<site>`` lacks, those that
``IN_<site>`` has and ``EVENTS`` lacks, and those in ``EVENTS`` that are not in the tables (of any site: at most).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from bus.condition import (
    ConsumerCondition,
    StreamCondition,
    consumer_conditions,
    sourced_up_to,
    stream_conditions,
)
from bus.connection import Bus
from bus.jetstream import JetStream
from bus.logs import RateLimitedLog
from bus.metrics import Sample, sample
from bus.stalls import Stalls, consumer_samples, stream_samples
from bus.streams import COMMANDS, EVENTS, JOBS
from hub.application.context import Context
from hub.application.members import Members
from schemas import metrics
from schemas.problems import CalqueError
from schemas.subjects import HUB, inbox

logger = logging.getLogger(__name__)

FRESH_SECONDS = 2.0
AT_ONCE = 16


class _Look(NamedTuple):
    """What the server said at one moment, of a clock that only goes forward."""

    at: float
    streams: dict[str, StreamCondition]
    stored: dict[str, int]


class Conditions:
    """Answers for one hub process. ``seconds`` is a clock that only goes forward."""

    def __init__(
        self, bus: Bus, context: Context, members: Members, *, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._js = JetStream(bus)
        self._context = context
        self._members = members
        self._seconds = seconds
        self._stalls = Stalls(seconds=seconds)
        self._behind_since: float | None = None
        self._latest: _Look | None = None
        self._looking = asyncio.Lock()
        self._sourced: dict[str, tuple[int, int]] = {}
        self._log = RateLimitedLog(logger, period_seconds=60.0)

    async def lags(self) -> Mapping[str, int]:
        """By site: of how many of its events the tables know nothing yet; only of sites that report."""
        try:
            look = await self._look()
        except CalqueError as error:
            self._log.warning("look", f"how far behind the hub is can't be told: {error}")
            return {}
        events = look.streams.get(EVENTS)
        if events is None:
            return {}
        unread = max(events.last - self._context.state.position, 0)

        def hop(site: str) -> int:
            """What ``EVENTS`` lacks of ``IN_<site>``: all of it until it sources from there."""
            here = look.streams.get(inbox(site))
            return events.behind.get(inbox(site), here.messages if here is not None else 0)

        return {
            site: max(self._members.conditions[site].position - stored, 0) + hop(site) + unread
            for site, stored in look.stored.items()
        }

    async def consumers(self) -> list[ConsumerCondition]:
        """The durable consumers of the hub's streams. Raises :class:`CalqueError`."""
        return [each for stream in (JOBS, EVENTS, COMMANDS) for each in await consumer_conditions(self._js, stream)]

    async def collect(self) -> Iterable[Sample]:
        """What metrics show of it."""
        look = await self._look()
        found = stream_samples(look.streams.values())
        found += consumer_samples(await self.consumers(), self._stalls)
        lags = await self.lags()
        found += [sample(metrics.SITE_LAG, lag, site) for site, lag in lags.items()]
        found += [
            sample(metrics.SITE_ONLINE, state == "online", site) for site, state in self._context.site_states().items()
        ]
        return found + self._projection(look) + self._operations()

    def _projection(self, look: _Look) -> list[Sample]:
        state = self._context.state
        last = look.streams[EVENTS].last if EVENTS in look.streams else 0
        behind = max(last - state.position, 0)
        now = self._seconds()
        if not behind:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now
        return [
            sample(metrics.PROJECTION_POSITION, state.position),
            sample(metrics.PROJECTION_BEHIND, behind),
            sample(metrics.PROJECTION_STALE, now - self._behind_since if self._behind_since is not None else 0.0),
            sample(metrics.STOPPED, len(state.stopped)),
        ]

    def _operations(self) -> list[Sample]:
        live: dict[str, int] = {}
        waiting = 0
        for row in self._context.state.operations.live_rows():
            if row.writer == HUB and row.operation is not None:
                kind = row.operation.accepted.kind
                live[kind] = live.get(kind, 0) + 1
                waiting += row.operation.outcome is not None
        return [
            *(sample(metrics.OPERATIONS_LIVE, number, kind) for kind, number in live.items()),
            sample(metrics.CLEANUPS, waiting),
        ]

    async def _look(self) -> _Look:
        """Several that ask at once, or soon after each other, get the same."""
        async with self._looking:
            if self._latest is None or self._seconds() - self._latest.at >= FRESH_SECONDS:
                streams = {each.name: each for each in await stream_conditions(self._js)}
                stored = await self._stored(streams)
                self._latest = _Look(self._seconds(), streams, stored)
            return self._latest

    async def _stored(self, streams: Mapping[str, StreamCondition]) -> dict[str, int]:
        """By site that reports: up to which sequence of its outbox the hub has stored its events."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def stored(site: str) -> int:
            here = streams.get(inbox(site))
            if here is None:
                return 0
            last, sourced = self._sourced.get(site, (-1, 0))
            if last != here.last:
                async with slots:
                    sourced = await sourced_up_to(self._js, inbox(site))
                self._sourced[site] = (here.last, sourced)
            return sourced

        states = self._context.site_states()
        reporting = [site for site in self._members.conditions if states.get(site) == "online"]
        return dict(zip(reporting, await asyncio.gather(*map(stored, reporting)), strict=True))
