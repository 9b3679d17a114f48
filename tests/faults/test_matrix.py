"""The fault matrix: whoever is killed at whatever moment of whatever step, the operation ends, and all holds.

There is one test per cell; together they are run on one stack, in the order that :mod:`tests.faults.chains` makes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.faults.cells import Cell, every_cell
from tests.faults.chains import Runner
from tests.faults.matrix import Result
from tests.faults.matrix_report import report
from tests.faults.outcomes import Cells
from tests.faults.world import World

pytestmark = [pytest.mark.stack, pytest.mark.timeout(2400), pytest.mark.xdist_group("faults")]

QUICK = frozenset(
    {
        "deploy/provision-rows/agent/after",
        "deploy/provision-blobs/dsb/after",
        "stop/stop-pen/psb/before",
        "save/prepare-blobs/agent/before",
        "save/commit-rows/crb/after",
        "stop/stop-pen/psb/after",
        "delete/deprovision-rows/dsb/before",
        "save/forward/hub/sent",
    }
)
"""Each kind of victim and each moment once: these are in ``make test``."""


def _parameters() -> list[object]:
    return [
        pytest.param(cell, id=str(cell), marks=() if str(cell) in QUICK else pytest.mark.full) for cell in every_cell()
    ]


@pytest.fixture(scope="package")
async def matrix(stack_world: World, request: pytest.FixtureRequest) -> AsyncIterator[Runner]:
    """All cells that are selected, being run."""
    found = [cell for item in request.session.items if isinstance(cell := _parameter(item), Cell)]
    runner = Runner(stack_world, Cells(found))
    await stack_world.whole()
    runner.begin()
    yield runner
    await runner.stop()


def _parameter(item: pytest.Item) -> object:
    called = getattr(item, "callspec", None)
    return called.params.get("cell") if called is not None else None


@pytest.mark.parametrize("cell", _parameters())
async def test_cell(matrix: Runner, cell: Cell, request: pytest.FixtureRequest) -> None:
    try:
        outcome = await matrix.cells.outcome(cell)
    except Exception as error:
        report(request.node, Result(cell=cell, wrong=str(error)))
        raise
    report(request.node, Result(cell=cell, outcome=outcome))
    if matrix.cells.all_settled():
        await matrix.end()


async def test_whoever_takes_part_in_an_operation_has_cells(matrix: Runner) -> None:
    await matrix.end()
    assert matrix.left_out() == set()
    assert matrix.wrong == []
