"""Progress: plain lines once each, and what the live view shows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hub.cli.background import PartsView
from hub.cli.output import age, seconds, size
from hub.cli.progress import LiveView, PlainLines, amount
from hub.cli.values import Duration
from hub.client import Snapshot
from hub.stack.keeper import PartState
from schemas import queries
from schemas.operations import Step
from schemas.signals import Progress
from tests.unit.cli.scripted import operation

MEBI = 1024 * 1024


def snapshot(state: str, done: int) -> Snapshot:
    step = queries.StepView(step=Step(id="copy-docs", action="copy", part="docs"), state=state)
    later = queries.StepView(step=Step(id="commit-docs", action="commit", part="docs"), state="pending")
    found = Snapshot(operation="o", view=operation("o", "running", kind="save", steps=(step, later)))
    for at, so_far in ((10.0, 0), (12.0, done)):
        found.note(Progress(operation="o", step="copy-docs", part="docs", done=so_far, total=20 * MEBI), at=at)
    return found


def test_bytes_rate_and_time_left() -> None:
    [rate] = snapshot("running", 10 * MEBI).parts.values()
    assert amount(rate) == "10.0 MiB of 20.0 MiB, 5.0 MiB/s, 2.0 s left"


def test_plain_lines_tell_each_change_once_and_bytes_every_two_seconds() -> None:
    lines: list[str] = []
    now = 0.0
    plain = PlainLines(lines.append, clock=lambda: now)
    for state, done in (("running", 5), ("running", 6), ("running", 7), ("done", 20)):
        plain(snapshot(state, done * MEBI))
        now += 1.5
    assert lines == [
        "  north: copy docs: running",
        "  north: copy docs: 5.0 MiB of 20.0 MiB, 2.5 MiB/s, 6.0 s left",
        "north: save ideas running",
        "  north: copy docs: 7.0 MiB of 20.0 MiB, 3.5 MiB/s, 3.7 s left",
        "  north: copy docs: done",
    ]


def test_the_live_view_shows_steps_bytes_and_what_is_to_come() -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=100, height=30)
    view = LiveView(console)
    console.print(view.render())
    view.take(snapshot("running", 10 * MEBI))
    console.print(view.render())
    text = shown.getvalue()
    assert "waiting for the operation to begin" in text
    assert "save ideas  north  running" in text
    assert "copy docs" in text
    assert "10.0 MiB of 20.0 MiB, 5.0 MiB/s, 2.0 s left" in text
    assert "1 to come" in text


def test_parts_are_told_when_ready_and_when_they_fail() -> None:
    lines: list[str] = []
    view = PartsView(lines.append)
    for phase, restarts in (("starting", 0), ("ready", 0), ("ready", 0), ("backoff", 0), ("ready", 1)):
        view({"hub": PartState(phase=phase, restarts=restarts, cause="exit code 1")})  # type: ignore[arg-type]
    assert [line.split("s  ", 1)[1] for line in lines] == [
        "hub is ready",
        "hub is started again: exit code 1",
        "hub is ready  (restart 1)",
    ]


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("90s", 90), ("2m", 120), ("1h30m", 5400), ("0.5", 0.5)])
def test_durations(text: str, value: float) -> None:
    assert Duration().convert(text, None, None) == value


def test_figures_for_people() -> None:
    assert [size(value) for value in (None, 0, 1023, 1536, 5 * 1024**3)] == ["", "0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
    assert [seconds(value) for value in (None, 0.25, 1.5, 61, 3700)] == ["", "250 ms", "1.5 s", "1 m 01 s", "1 h 01 m"]
    assert age("") == ""
    assert age("2020-01-01T00:00:00Z").endswith("d")
