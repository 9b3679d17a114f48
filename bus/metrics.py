"""Counts what happens in this process, and collects what is the case, for whoever reads ``/metrics``.

Counting is an addition in a dict: no lock, no vendor library, nothing when nobody reads. Values that are kept
elsewhere - the position of a reader, the state of a connection - are not counted a second time but asked of a
*collector* when somebody reads. The format is made by ``bus.exposition``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from bus.logs import RateLimitedLog
from schemas import metrics
from schemas.metrics import Metric
from schemas.problems import CalqueError

if TYPE_CHECKING:
    from bus.connection import Bus

logger = logging.getLogger(__name__)

COLLECT_SECONDS = 5.0


class Sample(NamedTuple):
    """The value of a gauge, or of a counter that is kept elsewhere."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


class Distribution:
    """What a histogram holds for one set of labels: how many in each bucket (the last: above all), and their sum."""

    __slots__ = ("counts", "sum")

    def __init__(self, metric: Metric) -> None:
        self.counts = [0] * (len(metric.buckets) + 1)
        self.sum = 0.0


Collector = Callable[[], Awaitable[Iterable[Sample]]]


class Measures:
    """All that one process has counted."""

    def __init__(self) -> None:
        self.counters: dict[Metric, dict[tuple[str, ...], float]] = {}
        self.histograms: dict[Metric, dict[tuple[str, ...], Distribution]] = {}
        self._collectors: dict[Collector, None] = {}
        self._log = RateLimitedLog(logger, period_seconds=60.0)

    def count(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """Add to a counter; ``labels`` in the order of its declaration."""
        values = self.counters.setdefault(metric, {})
        values[labels] = values.get(labels, 0.0) + by

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add one value, in the metric's unit, to a histogram."""
        distributions = self.histograms.setdefault(metric, {})
        found = distributions.get(labels)
        if found is None:
            found = distributions[labels] = Distribution(metric)
        found.counts[bisect_left(metric.buckets, value)] += 1
        found.sum += value

    @contextlib.contextmanager
    def collecting(self, collector: Collector) -> Iterator[None]:
        """Ask ``collector`` whenever somebody reads, while inside."""
        self._collectors[collector] = None
        try:
            yield
        finally:
            self._collectors.pop(collector, None)

    async def collect(self) -> list[Sample]:
        """What all collectors say now. One that fails, or takes long, is left out and logged."""
        answers = await asyncio.gather(*(self._ask(collector) for collector in list(self._collectors)))
        return [sample for answer in answers for sample in answer]

    async def _ask(self, collector: Collector) -> list[Sample]:
        try:
            async with asyncio.timeout(COLLECT_SECONDS):
                return list(await collector())
        except (CalqueError, TimeoutError) as error:
            self._log.warning("collect", f"some metrics can't be had now: {error or 'no answer in time'}")
        except Exception:
            logger.exception("collecting metrics failed")
        return []


def sample(metric: Metric, value: float, *labels: str) -> Sample:
    """One value for a collector to give."""
    return Sample(metric, labels, float(value))


def bus_samples(bus: Bus) -> list[Sample]:
    """What a connection says of itself."""
    traffic = bus.traffic()
    return [
        sample(metrics.BUS_CONNECTED, bus.is_connected),
        sample(metrics.BUS_RECONNECTS, traffic.reconnects),
        sample(metrics.BUS_MESSAGES, traffic.in_messages, "in"),
        sample(metrics.BUS_MESSAGES, traffic.out_messages, "out"),
        sample(metrics.BUS_BYTES, traffic.in_bytes, "in"),
        sample(metrics.BUS_BYTES, traffic.out_bytes, "out"),
    ]


MEASURES = Measures()
"""Those of this process."""

count = MEASURES.count
observe = MEASURES.observe
