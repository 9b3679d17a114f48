"""The fault matrix at the end of a test run: printed, and kept in a file. A plugin of pytest, also under xdist."""

from __future__ import annotations

import pytest

from tests.faults.matrix import RESULTS, ROOT, Result, Run, table

PROPERTY = "fault-cell"


def report(item: pytest.Item, result: Result) -> None:
    """Have the report of a test carry a cell's result; the last one counts."""
    item.user_properties[:] = [each for each in item.user_properties if each[0] != PROPERTY]
    item.user_properties.append((PROPERTY, result.as_json()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print and keep the cells that were run."""
    results: list[Result] = []
    seconds = 0.0
    for reports in terminalreporter.stats.values():
        for each in reports:
            found = [said for name, said in getattr(each, "user_properties", ()) if name == PROPERTY]
            if found and each.when == "call":
                results.append(Result.of(found[-1]))
                seconds += each.duration  # each test waits for its cell, while the others go on
    if not results:
        return
    run = Run.here(results, seconds=seconds)
    run.keep(RESULTS)
    terminalreporter.section(f"fault matrix: {len(results)} kills in {seconds:.0f} s")
    for line in table(run.results):
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"kept in {RESULTS.relative_to(ROOT)}")
