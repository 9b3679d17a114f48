"""``python -m tests.bench [CASE ...]``: run benchmarks, print their figures, keep them for ``docs/benchmarks.md``."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import pkgutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tests.bench import cases
from tests.bench.harness import Curve, Figure, Scale, Skipped
from tests.bench.machine import this_machine
from tests.bench.page import Result, number, page

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = DOCS / "benchmarks.json"
PAGE = DOCS / "benchmarks.md"


def main() -> int:
    """The command line. Exit code 1 when a benchmark failed or missed a bar, or the page is not right."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {', '.join(names())}; without one, all")
    parser.add_argument("--scale", type=Scale, choices=list(Scale), default=Scale.FULL)
    parser.add_argument("--check", action="store_true", help="say whether the page is what the kept results say")
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)  # of a run in a process of its own
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.cases) - set(names()))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(names())}")
    if arguments.check:
        return check()
    if arguments.result is not None:
        arguments.result.write_bytes(msgspec.json.encode(measure(arguments.cases[0], arguments.scale)))
        return 0
    return run(arguments.cases or names(), arguments.scale)


def names() -> list[str]:
    """The benchmarks that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(cases.__path__))


def kept() -> dict[str, Result]:
    """The results of the last runs."""
    return msgspec.json.decode(RESULTS.read_bytes(), type=dict[str, Result]) if RESULTS.exists() else {}


def check() -> int:
    """Whether the page is what the results say."""
    if PAGE.exists() and PAGE.read_text() == page(kept()):
        return 0
    print(f"{PAGE.name} is not what {RESULTS.name} says: run python -m tests.bench, or take both from one run")
    return 1


def run(chosen: list[str], scale: Scale) -> int:
    """Run each in a process of its own, print it, and keep it if it is whole."""
    results, failed = kept(), False
    for name in chosen:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "result.json"
            ended = subprocess.run(
                [sys.executable, "-m", "tests.bench", name, "--scale", scale, "--result", str(path)], check=False
            )
            if ended.returncode != 0 or not path.exists():
                print(f"{name}: failed with exit code {ended.returncode}")
                failed = True
                continue
            result = msgspec.json.decode(path.read_bytes(), type=Result)
        show(name, result)
        failed = failed or any(isinstance(each, Figure) and each.holds is False for each in result.figures)
        if result.skipped is None:
            results[name] = result
    if scale is Scale.FULL:
        RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(dict(sorted(results.items()))), indent=1) + b"\n")
        PAGE.write_text(page(results))
    return 1 if failed else 0


def measure(name: str, scale: Scale) -> Result:
    """Run one here."""
    module = importlib.import_module(f"{cases.__name__}.{name}")
    about = " ".join((inspect.getdoc(module) or "").split("\n\n")[0].split())
    machine = this_machine()
    begun = time.perf_counter()
    figures: list[Figure | Curve] = []
    skipped = None
    try:
        figures = asyncio.run(module.run(scale))
    except Skipped as reason:
        skipped = str(reason)
    return Result(
        title=module.TITLE,
        about=about,
        measured=datetime.now(UTC).date().isoformat(),
        machine=machine,
        seconds=round(time.perf_counter() - begun, 1),
        figures=figures,
        skipped=skipped,
    )


def show(name: str, result: Result) -> None:
    """Print a result."""
    print(f"\n{result.title} ({name}, {result.seconds:.0f} s)")
    if result.skipped is not None:
        print(f"  not measured: {result.skipped}")
    for each in result.figures:
        if isinstance(each, Curve):
            print(f"  {each.name}: " + ", ".join(f"{number(x)}: {number(y)}" for x, y in each.points))
            continue
        bar = each.at_least if each.at_least is not None else each.at_most
        wanted = "" if bar is None else f"  ({'at least' if each.at_least is not None else 'at most'} {number(bar)})"
        mark = {True: "ok  ", False: "MISS", None: "    "}[each.holds]
        print(f"  {mark} {each.name}: {number(each.value)} {each.unit}{wanted}  {each.detail}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
