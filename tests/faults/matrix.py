"""The fault matrix as data and as a table: what came of each cell of the last run.

python -m tests.faults.matrix            print it
python -m tests.faults.matrix --write    docs/fault-matrix.md, of a run that had all cells
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.faults.cells import Cell, every_cell

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "build" / "fault-matrix.json"
"""The last run, whatever cells it had."""
SHOWN = ROOT / "docs" / "fault-matrix.json"
"""The run that the page shows."""
PAGE = ROOT / "docs" / "fault-matrix.md"
HEAD = """# Fault matrix

Made by `python -m tests.faults.matrix --write` from [fault-matrix.json](fault-matrix.json), the results of
`make test-full`; don't edit.

Each cell is one operation on a real stack in which one process is killed (SIGKILL) once: the one that carries out a
step (the site's `agent`, or the `hub` for operations that span sites), or the broker that it asks (`dsb` data service,
`psb` platform, `crb` copy repository). *Before* is before it has done anything, *after* when all is done and nobody
knows it yet, *sent* when the hub has stored a command for a site and nothing more. The step `accept` is the command
itself, before and after its decision is stored; `forward` is the hub passing it on to a site. Steps are those of the
product's own plans: a new step has cells without anybody thinking of it. In operations that are *undone* the last step
fails for good, and the kill is in the undoing of one (`<step>-undo`). Servers (NATS of the hub and of the site,
Postgres, S3) and the hub die besides at moments that a seed chooses: there stands who came to that moment. Then the
parts start again by themselves, and the checker judges the record and what really is there: the operation ended once,
nothing is left of what was undone, images are whole, writers write, the app serves its data.

"""
MOMENTS: Final = ("before", "sent", "after")
COLUMNS: Final = ("step", "killed", "before", "sent", "after")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a kill. ``attempts`` are those of the step by the record; ``asked`` is how often the one that was
    killed has begun with it, the first time included; ``seconds`` are from the command to the operation's end."""

    state: str
    attempts: int = 1
    asked: int = 1
    cleanup: str = "none"
    seconds: float = 0.0
    problem: str = ""

    def __str__(self) -> str:
        said = [self.state]
        if self.attempts > 1:
            said.append(f"{self.attempts} attempts")
        if self.state != "succeeded" and self.cleanup != "none":
            said.append(f"clean-up {self.cleanup}")
        return ", ".join(said)


@dataclass(frozen=True, kw_only=True)
class Result:
    """A cell and what came of it: an outcome, or what was wrong (``wrong``)."""

    cell: Cell
    outcome: Outcome | None = None
    wrong: str = ""

    def __str__(self) -> str:
        return f"{self.outcome}" if self.outcome is not None else "WRONG"

    def as_json(self) -> dict[str, Any]:
        """For reports that travel between processes, and for the file."""
        return {
            "cell": asdict(self.cell),
            "outcome": asdict(self.outcome) if self.outcome is not None else None,
            "wrong": self.wrong,
        }

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Result:
        """What :meth:`as_json` said."""
        outcome = Outcome(**said["outcome"]) if said["outcome"] is not None else None
        return cls(cell=Cell(**said["cell"]), outcome=outcome, wrong=said["wrong"])


def rows(results: Iterable[Result]) -> list[tuple[str, ...]]:
    """The table: kind, step, victim, and what came of it at each moment."""
    found: dict[tuple[str, str, str], dict[str, Result]] = {}
    for result in results:
        cell = result.cell
        step = f"{cell.inside}: {cell.step}" if cell.inside else cell.step
        killed = f"{cell.server} (at {cell.victim}, seed {cell.seed})" if cell.server else cell.victim
        found.setdefault((cell.kind, step, killed), {})[cell.moment] = result
    return [(*key, *(str(by.get(moment, "-")) for moment in MOMENTS)) for key, by in found.items()]


def table(results: Iterable[Result]) -> list[str]:
    """The table as lines of text, with its columns aligned."""
    lines = [("operation", *COLUMNS), *rows(results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def page(run: Run) -> str:
    """The page of the documents that shows a run."""
    by_kind: dict[str, list[tuple[str, ...]]] = {}
    for kind, *row in rows(run.results):
        by_kind.setdefault(kind, []).append(tuple(row))
    wrong = sum(result.outcome is None for result in run.results)
    text = (
        f"{HEAD}{len(run.results)} kills, {wrong} of them with a wrong end, in {run.seconds / 60:.0f} minutes on "
        f"{run.cores} cores; Python {run.python}.\n"
    )
    for kind, found in by_kind.items():
        text += f"\n## {kind}\n\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}\n"
        text += "".join(f"| {' | '.join(row)} |\n" for row in found)
    return text


@dataclass(frozen=True, kw_only=True)
class Run:
    """The results of one test run, and the machine it was on."""

    results: tuple[Result, ...]
    seconds: float
    cores: int
    python: str

    def keep(self, file: Path) -> None:
        """Write it to a file."""
        file.parent.mkdir(exist_ok=True)
        said = {
            "python": self.python,
            "cores": self.cores,
            "seconds": round(self.seconds),
            "cells": [result.as_json() for result in self.results],
        }
        file.write_text(json.dumps(said, indent=1) + "\n")

    @classmethod
    def kept(cls, file: Path) -> Run:
        """What :meth:`keep` wrote."""
        said = json.loads(file.read_text())
        results = tuple(Result.of(each) for each in said["cells"])
        return cls(results=results, seconds=said["seconds"], cores=said["cores"], python=said["python"])

    @classmethod
    def here(cls, results: Iterable[Result], *, seconds: float) -> Run:
        """One that was just made on this machine, in the order of the steps."""
        places = {cell: place for place, cell in enumerate(every_cell())}
        ordered = sorted(results, key=lambda result: places.get(result.cell, len(places)))
        version = platform.python_version()
        return cls(results=tuple(ordered), seconds=seconds, cores=os.cpu_count() or 1, python=version)


def main() -> int:
    """Print or write; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.matrix", description="The fault matrix of the last run."
    )
    parser.add_argument("--write", action="store_true", help="have docs/fault-matrix.md show it")
    asked = parser.parse_args()
    run = Run.kept(RESULTS)
    print("\n".join(table(run.results)))
    if not asked.write:
        return 0
    run.keep(SHOWN)
    PAGE.write_text(page(run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
