"""``/metrics`` for Prometheus: the measures of this process in its text format, or in OpenMetrics for who asks for it.

The only module that knows the Prometheus client. It is imported when a process has an address to listen on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from bus.ending import end
from bus.metrics import MEASURES, Measures, Sample
from schemas.metrics import METRICS, Metric

logger = logging.getLogger(__name__)

HEAD_BYTES = 16 << 10
READ_SECONDS = 5.0
AGAIN_SECONDS = 5.0
PATHS = ("/metrics", "/metrics/")


class _Page(Collector):
    """What is shown at one moment."""

    def __init__(self, measures: Measures, samples: Iterable[Sample]) -> None:
        self._measures = measures
        self._samples: dict[Metric, dict[tuple[str, ...], float]] = {}
        for each in samples:
            self._samples.setdefault(each.metric, {})[each.labels] = each.value

    def collect(self) -> Iterator[Family]:
        for metric in METRICS.values():
            family = self._histogram(metric) if metric.kind == "histogram" else self._values(metric)
            if family.samples:
                yield family

    def _values(self, metric: Metric) -> Family:
        family: GaugeMetricFamily | CounterMetricFamily
        if metric.kind == "counter":
            family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        else:
            family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in {**self._measures.counters.get(metric, {}), **self._samples.get(metric, {})}.items():
            family.add_metric(labels, value)
        return family

    def _histogram(self, metric: Metric) -> Family:
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        bounds = [*(str(bound) for bound in metric.buckets), "+Inf"]
        for labels, found in self._measures.histograms.get(metric, {}).items():
            buckets = list(zip(bounds, accumulate(found.counts), strict=True))
            family.add_metric(labels, buckets, sum_value=found.sum)
        return family


async def page(measures: Measures = MEASURES, *, accept: str = "") -> tuple[bytes, str]:
    """The measures now, and their content type. ``accept`` is the header of the request."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(measures, await measures.collect()))
    PlatformCollector(registry=registry)
    ProcessCollector(registry=registry)
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


@contextlib.asynccontextmanager
async def exposed(listen: str, *, measures: Measures = MEASURES) -> AsyncIterator[asyncio.Future[int]]:
    """Answer ``GET /metrics`` at ``listen``, ``<host>:<port>``, while inside. Yields the port, once it listens.

    A port that is taken is no reason not to work: it is said in the log and tried again.
    """
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(_serve(listen, measures, port), name="metrics")
    try:
        yield port
    finally:
        await end([serving])
        port.cancel()


async def _serve(listen: str, measures: Measures, port: asyncio.Future[int]) -> None:
    host, _, number = listen.rpartition(":")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await _answer(head, measures))
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, TimeoutError) as error:
            logger.debug("a reader of metrics went away: %s", error)
        except Exception:
            logger.exception("metrics could not be shown")
        finally:
            writer.close()

    said = False
    while True:
        try:
            server = await asyncio.start_server(answer, host.strip("[]"), int(number), limit=HEAD_BYTES)
        except OSError as error:
            if not said:
                logger.error("metrics can't be shown at %s: %s; free that address or name another", listen, error)
            said = True
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        async with server:
            port.set_result(server.sockets[0].getsockname()[1])
            logger.info("metrics at http://%s:%d/metrics", host, port.result())
            await server.serve_forever()


async def _answer(head: bytes, measures: Measures) -> bytes:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    path = rest.split(" ")[0].partition("?")[0]
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if method not in ("GET", "HEAD"):
        return _response("405 Method Not Allowed", b"only GET\n", "text/plain; charset=utf-8", whole=True)
    if path not in PATHS:
        return _response("404 Not Found", b"see /metrics\n", "text/plain; charset=utf-8", whole=method == "GET")
    body, content_type = await page(measures, accept=headers.get("accept", ""))
    return _response("200 OK", body, content_type, whole=method == "GET")


def _response(status: str, body: bytes, content_type: str, *, whole: bool) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (body if whole else b"")
