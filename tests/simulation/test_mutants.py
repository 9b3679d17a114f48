"""Each break of :mod:`tests.simulation.mutants` is caught by some seed."""

from __future__ import annotations

import pytest
from _pytest.mark import ParameterSet

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.run import simulate


def caught(mutant: Mutant, patch: pytest.MonkeyPatch) -> tuple[int, list[str]] | None:
    """The first seed that notices, and what it says."""
    mutant.apply(patch)
    for seed in range(mutant.seeds):
        if complaints := simulate(seed).complaints:
            return seed, complaints
    return None


def _cases(*, quick: bool) -> list[ParameterSet]:
    return [
        pytest.param(each, id=each.name.replace(" ", "-"), marks=() if quick else pytest.mark.full)
        for each in MUTANTS
        if each.quick == quick
    ]


@pytest.mark.parametrize("mutant", [*_cases(quick=True), *_cases(quick=False)])
def test_the_simulator_notices_that(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    assert caught(mutant, monkeypatch) is not None, f"{mutant.seeds} seeds did not notice that {mutant.name}"
