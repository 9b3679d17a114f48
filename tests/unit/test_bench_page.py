"""The page of the benchmarks says what the results say."""

from __future__ import annotations

import pytest

from tests.bench.harness import Curve, Figure, alternating, percentile
from tests.bench.machine import this_machine
from tests.bench.page import Result, number, page


def result(*figures: Figure | Curve, skipped: str | None = None) -> Result:
    return Result(
        title="Replay",
        about="Reads events.",
        measured="2026-01-01",
        machine=this_machine(),
        seconds=12.0,
        figures=list(figures),
        skipped=skipped,
    )


def test_a_bar_that_was_missed_is_marked() -> None:
    met = Figure(name="events", value=250_000, unit="/s", at_least=200_000)
    missed = Figure(name="p99", value=61.2, unit="ms", at_most=50, detail="500 commands/s")
    told = page({"replay": result(met, missed, Figure(name="stored", value=3, unit="MiB"))})
    assert "| events | 250,000 /s | at least 200,000 /s | ✓ |" in told
    assert "| p99 (500 commands/s) | 61.2 ms | at most 50 ms | ✗ |" in told
    assert "| stored | 3 MiB |  |  |" in told


def test_a_curve_is_drawn_and_written_down() -> None:
    told = page({"flat": result(Curve(name="cost", x="events", y="us", points=[(10_000, 4.0), (1_000_000, 4.4)]))})
    assert 'x-axis "events" ["10,000", "1,000,000"]' in told
    assert "line [4, 4.4]" in told
    assert "| 1,000,000 | 4.4 |" in told


def test_what_was_not_measured_says_why() -> None:
    assert "Not measured: there is no restic here" in page({"tree": result(skipped="there is no restic here")})


@pytest.mark.parametrize(("value", "told"), [(0.01234, "0.0123"), (12.0, "12"), (1234.5, "1,234"), (99.87, "99.9")])
def test_numbers_are_short(value: float, told: str) -> None:
    assert number(value) == told


def test_two_ways_take_turns() -> None:
    order: list[str] = []

    def way(name: str) -> int:
        order.append(name)
        return len(order)

    assert alternating(2, lambda: way("a"), lambda: way("b")) == [[1, 3], [2, 4]]
    assert order == ["a", "b", "a", "b"]


def test_a_percentile_is_one_of_the_slow_ones() -> None:
    assert 98 <= percentile([float(each) for each in range(101)], 0.99) <= 100
    assert percentile([5.0], 0.99) == 5.0
