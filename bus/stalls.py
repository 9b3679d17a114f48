"""Conditions of streams and consumers as metrics, and which consumers have work and get nowhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from bus.condition import ConsumerCondition, StreamCondition
from bus.dlq import STREAM as DLQ
from bus.metrics import Sample, sample
from schemas import metrics


class Stalls:
    """For how long a consumer with work to do has acknowledged nothing, as far as this process has looked."""

    def __init__(self, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._since: dict[tuple[str, str], tuple[int, float]] = {}

    def stalled_seconds(self, consumer: ConsumerCondition) -> float:
        """0 when it has no work or moved on since it was looked at last."""
        key, now = (consumer.stream, consumer.name), self._seconds()
        if not consumer.pending and not consumer.unacknowledged:
            self._since.pop(key, None)
            return 0.0
        floor, since = self._since.get(key, (consumer.floor, now))
        if floor != consumer.floor:
            floor, since = consumer.floor, now
        self._since[key] = (floor, since)
        return now - since


def stream_samples(streams: Iterable[StreamCondition]) -> list[Sample]:
    """Sizes and limits of streams, and the dead letters among them."""
    found = []
    for stream in streams:
        found.append(sample(metrics.STREAM_MESSAGES, stream.messages, stream.name))
        found.append(sample(metrics.STREAM_BYTES, stream.bytes, stream.name))
        if stream.limit_bytes is not None:
            found.append(sample(metrics.STREAM_LIMIT_BYTES, stream.limit_bytes, stream.name))
        if stream.name == DLQ:
            found.append(sample(metrics.DEAD_LETTERS_WAITING, stream.messages))
    return found


def consumer_samples(consumers: Iterable[ConsumerCondition], stalls: Stalls) -> list[Sample]:
    """How far behind durable consumers are."""
    found = []
    for each in consumers:
        found.append(sample(metrics.CONSUMER_PENDING, each.pending, each.stream, each.name))
        found.append(sample(metrics.CONSUMER_UNACKNOWLEDGED, each.unacknowledged, each.stream, each.name))
        found.append(sample(metrics.CONSUMER_STALLED, stalls.stalled_seconds(each), each.stream, each.name))
    return found
