"""The cells of the matrix follow from the plans: nobody has to think of a new step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.operations import Step
from schemas.values import Template
from site_agent.domain import plans
from tests.faults.cells import AFTER, ASKED, BEFORE, EVERYBODY, SITE_KINDS, cells_of, every_cell, hub_steps, site_steps
from tests.faults.matrix import PAGE, SHOWN, Run, page


def killed(kind: str, step: str) -> set[tuple[str, str]]:
    return {(cell.victim, cell.moment) for cell in cells_of(kind) if cell.step == step}


@pytest.mark.parametrize("kind", SITE_KINDS)
def test_every_step_of_a_site_is_killed_by_its_agent_and_by_whom_it_asks_before_and_after(kind: str) -> None:
    for step in site_steps(kind):
        victims = ("agent", *ASKED[step.action])
        assert killed(kind, step.id) == {(victim, moment) for victim in victims for moment in (BEFORE, AFTER)}


def test_every_step_of_the_hub_is_killed_in_the_hub_and_in_the_agent_that_gets_its_command() -> None:
    for kind in ("run elsewhere", "delete image"):
        for step in hub_steps(kind):
            assert {moment for victim, moment in killed(kind, step.id) if victim == "hub"} == {
                "before",
                "sent",
                "after",
            }
            agents = {cell.moment for cell in cells_of(kind) if cell.inside == step.id and cell.step == "accept"}
            assert agents == {"before", "after"}


def test_a_step_that_is_new_in_a_plan_has_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: Callable[[Template], tuple[Step, ...]] = plans.stop
    new = Step(id="polish-web", action="polish", part="web")
    monkeypatch.setattr(plans, "stop", lambda template: (*planned(template), new))
    assert killed("stop", "polish-web") == {
        (victim, moment) for victim in ("agent", *EVERYBODY) for moment in (BEFORE, AFTER)
    }


def test_a_cell_has_a_name_and_a_label_of_its_own() -> None:
    cells = every_cell()
    assert len({str(cell) for cell in cells}) == len(cells)
    assert len({(cell.kind, cell.server, cell.label("command")) for cell in cells}) == len(cells)


shown_once = pytest.mark.skipif(not SHOWN.exists(), reason="no run of all cells is shown yet")


@shown_once
def test_the_page_shows_the_run_that_lies_beside_it() -> None:
    assert PAGE.read_text() == page(Run.kept(SHOWN)), "python -m tests.faults.matrix --write"


@pytest.mark.full
@shown_once
def test_the_page_has_every_cell_that_there_is_now() -> None:
    shown = {result.cell for result in Run.kept(SHOWN).results if result.outcome is not None}
    assert set(every_cell()) <= shown, "make test-full, then python -m tests.faults.matrix --write"
