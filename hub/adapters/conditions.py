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
from hub.application.snapshots import Snapshotter
from schemas import metrics
from schemas.conditions import ConditionView, ConsumerView
from schemas.envelope import parse_timestamp
from schemas.problems import CalqueError
from schemas.subjects import HUB, inbox

logger = logging.getLogger(__name__)

FRESH_SECONDS = 2.0
AT_ONCE = 16
WATCH_SECONDS = 10.0


class _Look(NamedTuple):
    """What the server said at one moment, of a clock that only goes forward."""

    at: float
    streams: dict[str, StreamCondition]
    stored: dict[str, int]


class Conditions:
    """Answers for one hub process. ``seconds`` is a clock that only goes forward."""

    def __init__(
        self,
        bus: Bus,
        context: Context,
        members: Members,
        *,
        snapshots: Snapshotter,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._js = JetStream(bus)
        self._context = context
        self._members = members
        self._snapshots = snapshots
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

    async def watch(self) -> None:
        """Look now and then, so that it is known for how long something has not moved."""
        while True:
            try:
                look = await self._look()
                for each in await self.consumers():
                    self._stalls.stalled_seconds(each)
                self._behind(look)
            except CalqueError as error:
                self._log.warning("look", f"the condition of the hub can't be told: {error}")
            await asyncio.sleep(WATCH_SECONDS)

    async def view(self, hub: str) -> ConditionView:
        """All of it, for people. Raises :class:`CalqueError`."""
        look = await self._look()
        behind, behind_seconds = self._behind(look)
        state, newest = self._context.state, self._snapshots.last
        return ConditionView(
            hub=hub,
            position=state.position,
            behind=behind,
            behind_seconds=behind_seconds,
            events=state.events,
            consumers=tuple(
                ConsumerView(
                    stream=each.stream,
                    name=each.name,
                    pending=each.pending,
                    unacknowledged=each.unacknowledged,
                    stalled_seconds=self._stalls.stalled_seconds(each),
                )
                for each in await self.consumers()
            ),
            snapshot_at=newest.written_at if newest is not None else "",
            snapshot_position=newest.mark.sequence if newest is not None else 0,
            snapshot_failures=dict(self._snapshots.failures),
        )

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

    def _behind(self, look: _Look) -> tuple[int, float]:
        """How many events of ``EVENTS`` are not in the tables, and for how long that has been so."""
        behind = max((look.streams[EVENTS].last if EVENTS in look.streams else 0) - self._context.state.position, 0)
        now = self._seconds()
        if not behind:
            self._behind_since = None
            return 0, 0.0
        if self._behind_since is None:
            self._behind_since = now
        return behind, now - self._behind_since

    def _projection(self, look: _Look) -> list[Sample]:
        state, newest = self._context.state, self._snapshots.last
        behind, behind_seconds = self._behind(look)
        found = [
            sample(metrics.PROJECTION_POSITION, state.position),
            sample(metrics.PROJECTION_BEHIND, behind),
            sample(metrics.PROJECTION_STALE, behind_seconds),
            sample(metrics.STOPPED, len(state.stopped)),
            *(sample(metrics.SNAPSHOT_FAILURES, number, why) for why, number in self._snapshots.failures.items()),
        ]
        if newest is not None:
            old = (self._context.clock() - parse_timestamp(newest.written_at)).total_seconds()
            found.append(sample(metrics.SNAPSHOT_AGE, max(old, 0.0)))
        return found

    def _operations(self) -> list[Sample]:
        live: dict[str, int] = {}
        waiting = 0
        for row in self._context.state.operations.live_rows(writer=HUB):
            live[row.kind] = live.get(row.kind, 0) + 1
            waiting += row.outcome is not None
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
