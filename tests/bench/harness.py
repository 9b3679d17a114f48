"""What a benchmark gives back: figures with the bar that each must reach, and curves."""

from __future__ import annotations

import enum
import statistics
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import msgspec

T = TypeVar("T")


class Scale(enum.StrEnum):
    """How much is measured: ``full`` is what the bars speak of, ``smoke`` shows in seconds that a benchmark works."""

    FULL = "full"
    SMOKE = "smoke"


class Figure(msgspec.Struct, frozen=True, kw_only=True, tag="figure"):
    """One measured number.

    ``at_least`` and ``at_most`` are the bar, in the same unit; without one the number is for information. A ``ratio``
    compares two things of the same run and should hold on any machine; an ``absolute`` number belongs to its machine.
    """

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    kind: Literal["absolute", "ratio"] = "absolute"
    detail: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the bar is reached; ``None`` where there is none."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )


class Curve(msgspec.Struct, frozen=True, kw_only=True, tag="curve"):
    """A number over another, drawn in the page. ``points`` are (x, y)."""

    name: str
    x: str
    y: str
    points: list[tuple[float, float]]


class Skipped(Exception):
    """What the benchmark needs is not on this machine; the message says what."""


def alternating(runs: int, *measures: Callable[[], T]) -> list[list[T]]:
    """Each of ``measures`` ``runs`` times, taking turns, so that what else the machine does meets all alike."""
    results: list[list[T]] = [[] for _ in measures]
    for _ in range(runs):
        for kept, measure in zip(results, measures, strict=True):
            kept.append(measure())
    return results


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of ``values`` do not exceed."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=1000, method="inclusive")[min(int(share * 1000), 999) - 1]
