"""Progress of an operation on stderr: redrawn in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hub.cli.output import printable, seconds, size
from hub.client.watching import Observer, Rate, Snapshot
from schemas.queries import OperationView, StepView

_LINE_EVERY_SECONDS = 2.0
_SIGNS = {
    "pending": ("·", "dim"),
    "running": ("▸", "cyan"),
    "waiting": ("↻", "yellow"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "undone": ("↶", "yellow"),
}


@contextmanager
def observer_for(stream: TextIO) -> Iterator[Observer]:
    """An observer that shows what it sees on ``stream`` while the context lasts."""
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        with LiveView(Console(file=stream)).showing() as live:
            yield live
    else:
        yield PlainLines(lambda line: click.echo(line, file=stream))


def amount(rate: Rate) -> str:
    """``12.0 of 45.3 MiB, 34.1 MiB/s, 1.2 s left``"""
    progress = rate.progress
    done, total = size(progress.done), progress.total
    parts = [f"{done} of {size(total)}" if total is not None else done]
    if rate.bytes_per_second and (total is None or progress.done < total):
        parts.append(f"{size(rate.bytes_per_second)}/s")
        if rate.seconds_left is not None:
            parts.append(f"{seconds(rate.seconds_left)} left")
    return ", ".join(parts)


def operations(snapshot: Snapshot) -> list[OperationView]:
    """The operation and those that it started, in their order."""
    if snapshot.view is None:
        return []
    return [snapshot.view, *(snapshot.children[id] for id in snapshot.view.children if id in snapshot.children)]


def rates_of(snapshot: Snapshot, operation: str, step: StepView) -> list[Rate]:
    """The progress of the parts of one step."""
    return [rate for (owner, name, _), rate in snapshot.parts.items() if (owner, name) == (operation, step.step.id)]


def _title(step: StepView, *, operation: OperationView) -> str:
    text = f"{step.step.action} {printable(step.step.part)}".strip()
    return f"{operation.site}: {text}"


class PlainLines:
    """A line for each change, and every two seconds for each part that moves."""

    def __init__(self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._told: dict[tuple[str, str], tuple[str, int]] = {}
        self._told_at: dict[tuple[str, str, str], float] = {}

    def __call__(self, snapshot: Snapshot) -> None:
        """Tell what is new in ``snapshot``."""
        for view in operations(snapshot):
            for step in view.steps:
                self._step(view, step)
                if step.state == "running":
                    self._bytes(snapshot, view, step)
            self._operation(view)

    def _operation(self, view: OperationView) -> None:
        state = "undoing" if view.undoing and view.state == "running" else view.state
        if state == "accepted" or self._told.get((view.id, "")) == (state, 0):
            return
        self._told[(view.id, "")] = (state, 0)
        cause = f": {view.problem.sentence()}" if view.problem else ""
        self._write(f"{view.site}: {view.kind} {printable(view.name)} {state}{cause}")

    def _step(self, view: OperationView, step: StepView) -> None:
        now = (step.state, step.attempt)
        if step.state == "pending" or self._told.get((view.id, step.step.id)) == now:
            return
        self._told[(view.id, step.step.id)] = now
        again = f" (attempt {step.attempt})" if step.attempt > 1 else ""
        cause = f": {step.problem.sentence()}" if step.problem and step.state in ("failed", "waiting") else ""
        self._write(f"  {_title(step, operation=view)}: {step.state}{again}{printable(cause)}")

    def _bytes(self, snapshot: Snapshot, view: OperationView, step: StepView) -> None:
        for rate in rates_of(snapshot, view.id, step):
            key = (view.id, step.step.id, rate.progress.part)
            if self._clock() - self._told_at.get(key, -_LINE_EVERY_SECONDS) >= _LINE_EVERY_SECONDS:
                self._told_at[key] = self._clock()
                self._write(f"  {_title(step, operation=view)}: {amount(rate)}")


class LiveView:
    """The steps and their bytes, redrawn four times a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._snapshot: Snapshot | None = None
        self._started = time.monotonic()

    @contextmanager
    def showing(self) -> Iterator[Observer]:
        """Draw while the context lasts; what was drawn last stays."""
        with Live(get_renderable=self.render, console=self._console, refresh_per_second=4, redirect_stdout=False):
            yield self.take

    def take(self, snapshot: Snapshot) -> None:
        """Draw ``snapshot`` from now on."""
        self._snapshot = snapshot

    def render(self) -> RenderableType:
        """What is to be seen now."""
        passed = seconds(time.monotonic() - self._started)
        if self._snapshot is None or self._snapshot.view is None:
            return Text(f"waiting for the operation to begin  {passed}", style="dim")
        parts: list[RenderableType] = []
        for view in operations(self._snapshot):
            undoing = " (undoing)" if view.undoing and view.state == "running" else ""
            head = Text(f"{view.kind} {printable(view.name)}", style="bold")
            head.append(f"  {view.site}  {view.state}{undoing}", style="default")
            if view.parent is None:
                head.append(f"  {passed}", style="dim")
            parts += [head, self._steps(self._snapshot, view)]
        return Group(*parts)

    def _steps(self, snapshot: Snapshot, view: OperationView) -> Table:
        table = Table.grid(padding=(0, 1))
        room = max(self._console.size.height - 6, 5)
        shown = [step for step in view.steps if step.state != "pending"]
        later = len(view.steps) - len(shown)
        for step in shown[-room:]:
            sign, style = _SIGNS.get(step.state, ("?", ""))
            rates = rates_of(snapshot, view.id, step)
            name = f"{step.step.action} {printable(step.step.part)}"
            note: RenderableType = Text("")
            if step.problem and step.state in ("failed", "waiting"):
                note = Text(printable(step.problem.sentence()), style="red")
            elif rates:
                note = Text(amount(rates[-1]), style="dim" if step.state == "done" else "")
            bar: RenderableType = Text("")
            if rates and step.state == "running":
                total = sum(rate.progress.total or 0 for rate in rates)
                done = sum(rate.progress.done for rate in rates)
                bar = ProgressBar(total=total or None, completed=done, width=20)
            table.add_row(Text(f"  {sign}", style=style), name, bar, note)
        if later:
            table.add_row(Text("  ·", style="dim"), Text(f"{later} to come", style="dim"))
        return table
