"""Gathers what the seeds of a test run came to, over all processes of it, and prints it at the end.

A run of all groups fails when a kind of fault never fired: what never happens is not tested.
"""

from __future__ import annotations

import pytest

from tests.simulation.faults import never_fired
from tests.simulation.tally import Tally

PROPERTY = "simulated"
GATHERED = pytest.StashKey[Tally]()
GROUPS = 20
"""How many tests tell what their seeds came to; fewer were chosen when there are fewer."""
TOLD = pytest.StashKey[int]()


@pytest.hookimpl
def pytest_configure(config: pytest.Config) -> None:
    """Nothing is counted yet."""
    config.stash[GATHERED] = Tally()
    config.stash[TOLD] = 0
    config.pluginmanager.register(_Gatherer(config), "simulation-summary")


class _Gatherer:
    """``config`` is that of the process that prints; in the workers of pytest-xdist nothing is printed."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test has ended, here or in a worker."""
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, dict):
                self._config.stash[GATHERED].add(Tally.from_json(value))
                self._config.stash[TOLD] += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """The run fails when a kind of fault never fired in it."""
        if self._silent and not hasattr(session.config, "workerinput"):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The report, whole: it is what the run has shown."""
        tally = self._config.stash[GATHERED]
        if not tally.runs:
            return
        terminalreporter.section("simulation")
        for line in tally.lines():
            terminalreporter.line(line)
        if self._silent:
            terminalreporter.line(f"FAILED: faults never fired: {', '.join(self._silent)}", red=True)

    @property
    def _silent(self) -> list[str]:
        return never_fired(self._config.stash[GATHERED].hits) if self._config.stash[TOLD] >= GROUPS else []
