"""Fixtures that several rooms share are in `tests/servers.py`."""

from __future__ import annotations

import pytest
from _pytest.nodeid import NodeId
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.servers", "tests.faults.matrix_report", "tests.simulation.summary"]

# How long an example takes says something of the machine, nothing of the property.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


SHARING = {
    "tests/e2e/hackathon": "data",
    **{f"tests/integration/{each}": "data" for each in ("postgres", "s3", "repository_brokers", "repository_stores")},
    **{f"tests/integration/{each}": each for each in ("conformance", "filesystem", "messaging", "process", "volume")},
}
"""Folder -> group: tests that share what takes long to start are run by one worker, so that it is started once."""
LONG = ("tests/upgrade/", "tests/simulation/")
"""What is long and in no group comes first, so that the workers end together."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Send tests of one group to one worker under ``--dist loadgroup``: that of their mark, or that of their folder.

    pytest-xdist 3.8 tells its scheduler by a field that pytest 9.2 no longer reads, so that each worker would start
    a stack of its own (pytest-xdist, issue 1386). That part goes when a pytest-xdist that knows better is locked.
    """
    if not config.getoption("loadgroup", False):
        return
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        group = mark.args[0] if mark is not None else SHARING.get(item.nodeid.partition("::")[0].rpartition("/")[0])
        if group is not None and not item.nodeid.endswith(suffix := f"@{group}"):
            path, *names = item.nodeid.split("::")
            # All of the rest is one name: the scheduler looks for the group behind the parameters.
            item._id = NodeId(path=path, names=("::".join(names) + suffix,))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """What failed is remembered by the names that tests have in a run of one process, for ``make test-again``."""
    cache = getattr(session.config, "cache", None)  # without its plugin there is none
    if cache is not None and not hasattr(session.config, "workerinput"):
        failed = cache.get("cache/lastfailed", {})
        cache.set("cache/lastfailed", {_without_group(id): True for id in failed})


def _without_group(id: str) -> str:
    name, _, group = id.rpartition("@")
    return name if name and group and "]" not in group and "::" not in group else id
