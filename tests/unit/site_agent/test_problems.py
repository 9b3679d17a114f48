"""Problems of steps name the part that they are about, whatever field a broker blamed."""

from __future__ import annotations

import pytest

from schemas.operations import Step
from schemas.problems import invalid, permanent
from site_agent.application.runner import located

STEP = Step(id="copy-rows", action="copy", part="rows")


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        (None, "rows"),
        ("copy", "rows"),
        ("service_id", "rows"),
        ("plan", "rows.plan"),
        ("rows", "rows"),
        ("services.rows.environment.URI", "services.rows.environment.URI"),
    ],
)
def test_a_failed_step_names_its_part(field: str | None, wanted: str) -> None:
    assert located(permanent("moment_lost", "the session ended", field=field), STEP).field == wanted


def test_cause_and_remedy_stay() -> None:
    problem = invalid("copy", "it is lost", "save again")
    assert located(problem, STEP).sentence() == "rows: it is lost; save again"
