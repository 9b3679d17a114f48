"""``python -m tests.simulation --seeds N --from K``: run many seeds, say which failed and which faults hit what."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from tests.simulation.run import simulate

SHOWN = 12


class Result(NamedTuple):
    """What is kept of a run."""

    seed: int
    complaints: list[str]
    hits: Counter[tuple[str, str]]
    outcomes: Counter[str]
    steps: int
    seconds: float


def one(seed: int) -> Result:
    """A run in a process of the pool."""
    verdict = simulate(seed)
    return Result(seed, verdict.complaints, verdict.trace.hits, verdict.outcomes, verdict.steps, verdict.seconds)


def main() -> int:
    """The command line. Exit code 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--trace", type=int, metavar="SEED", help="run one seed and print all that happened")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if arguments.trace is not None:
        verdict = simulate(arguments.trace)
        print(verdict.report())
        return 1 if verdict.complaints else 0
    begun = time.perf_counter()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    with ProcessPoolExecutor(arguments.processes) as pool:
        return report(pool.map(one, seeds, chunksize=8), begun=begun)


def report(results: Iterable[Result], *, begun: float) -> int:
    """Print what failed as it fails, then the tables."""
    hits: Counter[tuple[str, str]] = Counter()
    outcomes: Counter[str] = Counter()
    failed: list[Result] = []
    runs, steps, seconds = 0, 0, 0.0
    for result in results:
        runs += 1
        steps += result.steps
        seconds += result.seconds
        hits.update(result.hits)
        outcomes.update(result.outcomes)
        if result.complaints:
            failed.append(result)
            print(f"seed {result.seed} failed (python -m tests.simulation --trace {result.seed}):")
            for complaint in result.complaints[:SHOWN]:
                print(f"  - {complaint[:500]}")
            sys.stdout.flush()
    print("\nfaults: how often they hit what")
    by_fault: dict[str, list[tuple[int, str]]] = {}
    for (fault, where), times in hits.items():
        by_fault.setdefault(fault, []).append((times, where))
    for fault, places in sorted(by_fault.items()):
        places.sort(key=lambda each: (-each[0], each[1]))
        print(f"  {fault:<20} {sum(times for times, _ in places):>7}")
        for times, where in places:
            print(f"    {where:<36} {times:>7}")
    print("\noperations and how they ended")
    for outcome, times in sorted(outcomes.items()):
        print(f"  {outcome:<36} {times:>7}")
    took = time.perf_counter() - begun
    print(f"\n{runs} seeds in {took:.1f} s, {len(failed)} failed", end="; ")
    print(f"{steps} callbacks, {seconds / 3600:.1f} hours of virtual time")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
