"""What many runs came to: which faults struck what how often, how operations ended, what failed. Text and JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.faults import TABLES, Hits, never_fired, never_struck
from tests.simulation.run import Verdict

SHOWN = 12
PLACE_WIDTH = 44
LINE_WIDTH = 118


@dataclass
class Tally:
    """``steps`` is how often each step of a saga was taken, ``callbacks`` and ``hours`` are what the runs took."""

    runs: int = 0
    callbacks: int = 0
    hours: float = 0.0
    hubs: Counter[str] = field(default_factory=Counter)
    hits: Hits = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    failed: dict[int, list[str]] = field(default_factory=dict)

    def take(self, verdict: Verdict) -> None:
        """Count one run."""
        self.runs += 1
        self.callbacks += verdict.callbacks
        self.hours += verdict.seconds / 3600
        self.hits.update(verdict.trace.hits)
        self.steps.update(verdict.steps)
        self.outcomes.update(verdict.outcomes)
        self.hubs[f"{verdict.hubs} hubs" if verdict.hubs > 1 else "1 hub"] += 1
        if verdict.complaints:
            self.failed[verdict.seed] = verdict.complaints

    def add(self, other: Tally) -> None:
        """Count what another one has counted."""
        self.runs += other.runs
        self.callbacks += other.callbacks
        self.hours += other.hours
        for name in ("hubs", "hits", "steps", "outcomes", "failed"):
            getattr(self, name).update(getattr(other, name))

    def as_json(self) -> dict[str, Any]:
        """All of it, for a file or another process."""
        return {
            "runs": self.runs,
            "callbacks": self.callbacks,
            "virtual_hours": round(self.hours, 1),
            "hubs": dict(sorted(self.hubs.items())),
            "faults": sum(self.hits.values()),
            "never_fired": never_fired(self.hits),
            "never_struck": never_struck(self.hits, self.steps),
            "hits": [[fault, where, times] for (fault, where), times in sorted(self.hits.items())],
            "steps": dict(sorted(self.steps.items())),
            "outcomes": dict(sorted(self.outcomes.items())),
            "failed": {str(seed): complaints for seed, complaints in sorted(self.failed.items())},
        }

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Tally:
        """What :meth:`as_json` told."""
        return cls(
            runs=said["runs"],
            callbacks=said["callbacks"],
            hours=said["virtual_hours"],
            hubs=Counter(said["hubs"]),
            hits=Counter({(fault, where): times for fault, where, times in said["hits"]}),
            steps=Counter(said["steps"]),
            outcomes=Counter(said["outcomes"]),
            failed={int(seed): complaints for seed, complaints in said["failed"].items()},
        )

    def lines(self) -> list[str]:
        """The whole report."""
        return [*self._tables(), *self._outcomes(), *self._nevers(), *self._failures(), "", self.summary()]

    def summary(self) -> str:
        """One line."""
        hubs = ", ".join(f"{times} with {name}" for name, times in sorted(self.hubs.items()))
        return (
            f"{self.runs} seeds ({hubs}), {len(self.failed)} failed; {sum(self.hits.values())} faults; "
            f"{self.callbacks} callbacks, {self.hours:.1f} hours of virtual time"
        )

    def _tables(self) -> list[str]:
        lines: list[str] = []
        for table in TABLES:
            places = list(table.places(self.steps))
            known = set(places)
            others = {where for (fault, where) in self.hits if fault in table.faults} - known
            if table.title != TABLES[0].title and table.title != TABLES[1].title:
                places += sorted(others)
            counted = table.title == TABLES[0].title
            columns = (*(("taken",) if counted else ()), *table.faults)
            widths = [max(6, *(len(word) for word in column.split())) for column in columns]
            lines += ["", f"{table.title}: how often which fault struck"]
            for row in (0, 1):
                words = [_word(column, row) for column in columns]
                lines.append(_row("", words, widths))
            sums = [self._sum(fault, places) for fault in table.faults]
            lines.append(_row("all", [*((str(sum(self.steps.values())),) if counted else ()), *map(str, sums)], widths))
            for place in places:
                cells = [self.hits.get((fault, place), 0) for fault in table.faults]
                taken = [str(self.steps[place])] if counted else []
                lines.append(_row(place, [*taken, *(str(each) if each else "." for each in cells)], widths))
        return lines

    def _sum(self, fault: str, places: list[str]) -> int:
        return sum(self.hits.get((fault, place), 0) for place in places)

    def _outcomes(self) -> list[str]:
        found = [f"  {outcome:<{PLACE_WIDTH}} {times:>8}" for outcome, times in sorted(self.outcomes.items())]
        return ["", "operations and how they ended", *found]

    def _nevers(self) -> list[str]:
        kinds = never_fired(self.hits)
        lines = ["", f"faults that never fired: {', '.join(kinds) or 'none'}"]
        for title, places in never_struck(self.hits, self.steps).items():
            lines.append(f"never struck by any fault ({title}):")
            lines += _wrapped(places)
        return lines

    def _failures(self) -> list[str]:
        lines: list[str] = []
        for seed, complaints in sorted(self.failed.items()):
            lines += ["", f"seed {seed} failed (python -m tests.simulation --trace {seed}):"]
            lines += [f"  - {complaint[:500]}" for complaint in complaints[:SHOWN]]
        return lines


def _word(column: str, row: int) -> str:
    """The first or the second line of a column's head."""
    first, _, second = column.partition(" ")
    return (first if row == 0 else second) if second else ("" if row == 0 else first)


def _row(place: str, cells: list[str], widths: list[int]) -> str:
    told = "".join(f" {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"  {place:<{PLACE_WIDTH}}{told}".rstrip()


def _wrapped(places: list[str]) -> list[str]:
    lines, line = [], "   "
    for place in places:
        if len(line) + len(place) + 2 > LINE_WIDTH:
            lines.append(line)
            line = "   "
        line += f" {place},"
    return [*lines, line.rstrip(",")]


def written(tally: Tally) -> tuple[str, str]:
    """The report as JSON and as text."""
    return json.dumps(tally.as_json(), indent=1) + "\n", "\n".join(tally.lines()) + "\n"
