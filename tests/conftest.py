"""Fixtures that several rooms share are in `tests/servers.py`."""

from __future__ import annotations

import pytest
from _pytest.nodeid import NodeId

pytest_plugins = ["tests.servers", "tests.faults.matrix_report", "tests.simulation.summary"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Send tests marked with ``xdist_group`` to one worker under ``--dist loadgroup``, as the mark says.

    pytest-xdist 3.8 tells its scheduler by a field that pytest 9.2 no longer reads, so that each worker would start
    a stack of its own (pytest-xdist, issue 1386). It goes when a pytest-xdist that knows better is locked.
    """
    if not config.getoption("loadgroup", False):
        return
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        if mark is not None and not item.nodeid.endswith(suffix := f"@{mark.args[0]}"):
            path, *names = item.nodeid.split("::")
            # All of the rest is one name: the scheduler looks for the group behind the parameters.
            item._id = NodeId(path=path, names=("::".join(names) + suffix,))
