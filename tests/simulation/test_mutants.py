"""Each mutant is noticed by some seed, and stands in the README."""

from __future__ import annotations

import pytest
from _pytest.mark import ParameterSet

from tests.simulation.mutants import BEGIN, END, MUTANTS, README, Mutant, caught, known_seeds, table
from tests.simulation.run import simulate


def _cases() -> list[ParameterSet]:
    """Those of which a seed is known take a moment; others are looked for."""
    known = known_seeds()
    return [
        pytest.param(
            each, id=each.name.replace(" ", "-"), marks=() if each.name in known or each.story else pytest.mark.full
        )
        for each in MUTANTS
    ]


@pytest.mark.parametrize("mutant", _cases())
def test_the_simulator_notices_that(mutant: Mutant) -> None:
    assert caught(mutant) is not None, f"no seed noticed that {mutant.name}"


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.story], ids=lambda each: str(each.name))
def test_the_story_of_a_mutant_goes_well_without_it(mutant: Mutant) -> None:
    assert mutant.story is not None
    verdict = simulate(0, mutant.story)
    assert not verdict.complaints, verdict.report()


def test_the_readme_lists_them() -> None:
    told = README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()
    assert told == "\n".join(table(known_seeds())), "make it anew: python -m tests.simulation.mutants"
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20
