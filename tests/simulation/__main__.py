"""``python -m tests.simulation --seeds N --from K``: run many seeds, say which failed and which faults hit what."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.simulation.faults import never_fired
from tests.simulation.run import let_go, simulate
from tests.simulation.tally import Tally, written

ENOUGH = 1000
"""Of so many seeds every kind of fault must have fired."""
TOGETHER = 10
"""Seeds that a process runs before it tells what came of them."""


def some(seeds: range) -> Tally:
    """Some seeds, in a process of the pool."""
    tally = Tally()
    for seed in seeds:
        tally.take(simulate(seed))
    let_go()
    return tally


def main() -> int:
    """The command line. Exit code 1 when a seed failed or, of a thousand seeds and more, a fault never fired."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--trace", type=int, metavar="SEED", help="run one seed and print all that happened")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report there: as JSON, and as FILE.txt")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so long, however many are left")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if arguments.trace is not None:
        verdict = simulate(arguments.trace)
        print(verdict.report())
        return 1 if verdict.complaints else 0
    begun = time.monotonic()
    until = begun + arguments.minutes * 60 if arguments.minutes else None
    last = arguments.first + arguments.seeds
    groups = [range(first, min(first + TOGETHER, last)) for first in range(arguments.first, last, TOGETHER)]
    with ProcessPoolExecutor(arguments.processes) as pool:
        tally = gathered(pool.map(some, groups), until=until)
        pool.shutdown(wait=False, cancel_futures=True)
    for line in tally.lines():
        print(line)
    took = time.monotonic() - begun
    if tally.runs < arguments.seeds:
        print(f"stopped after {arguments.minutes:g} minutes: {tally.runs} of {arguments.seeds} seeds were run")
    print(f"{took:.1f} s with {arguments.processes} processes, {tally.runs / took:.1f} seeds/s")
    if arguments.report is not None:
        as_json, as_text = written(tally)
        arguments.report.write_text(as_json, encoding="utf-8")
        arguments.report.with_name(f"{arguments.report.name}.txt").write_text(as_text, encoding="utf-8")
    silent = never_fired(tally.hits) if tally.runs >= ENOUGH else []
    return 1 if tally.failed or silent else 0


def gathered(parts: Iterator[Tally], *, until: float | None) -> Tally:
    """All of them together, or those that were run when the time was up; a seed that failed is told at once."""
    tally = Tally()
    for part in parts:
        for seed, complaints in sorted(part.failed.items()):
            print(f"seed {seed} failed: {complaints[0][:300]}", file=sys.stderr, flush=True)
        tally.add(part)
        if tally.runs % 1000 < TOGETHER:
            print(tally.summary(), file=sys.stderr, flush=True)
        if until is not None and time.monotonic() >= until:
            break
    return tally


if __name__ == "__main__":
    sys.exit(main())
