"""Seeds of the simulator. A failing one prints its trace, and ``python -m tests.simulation --trace SEED`` again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.simulation.run import let_go, simulate
from tests.simulation.summary import GROUPS, PROPERTY
from tests.simulation.tally import Tally

SEEDS = 2000
MORE = 2000
MORE_GROUPS = 40


def _hold(seeds: range) -> Tally:
    tally = Tally()
    for seed in seeds:
        verdict = simulate(seed)
        assert not verdict.complaints, verdict.report()
        tally.take(verdict)
    let_go()
    return tally


@pytest.mark.timeout(900)  # a group takes 10 s on a machine of its own
@pytest.mark.parametrize("group", range(GROUPS))
def test_what_must_hold_holds_whatever_goes_wrong(group: int, record_property: Callable[[str, object], None]) -> None:
    size = SEEDS // GROUPS
    record_property(PROPERTY, _hold(range(group * size, (group + 1) * size)).as_json())


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("group", range(MORE_GROUPS))
def test_it_holds_for_more_seeds(group: int) -> None:
    size = MORE // MORE_GROUPS
    _hold(range(SEEDS + group * size, SEEDS + (group + 1) * size))


def test_a_seed_is_the_same_run_in_another_process_and_after_other_seeds() -> None:
    program = (
        "from tests.simulation.run import simulate\n"
        "for seed in (4, 9):\n"
        "    verdict = simulate(seed)\n"
        "    print(seed, verdict.callbacks, verdict.trace.digest())\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    here = {seed: simulate(seed) for seed in (9, 17, 4)}
    assert said == {"".join(f"{seed} {here[seed].callbacks} {here[seed].trace.digest()}\n" for seed in (4, 9))}
