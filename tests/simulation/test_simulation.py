"""Seeds of the simulator. A failing one prints its trace, and ``python -m tests.simulation --trace SEED`` again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.run import simulate

QUICK = 200
GROUPS = 8
MANY = 2000
MANY_GROUPS = 40


def _hold(seeds: range) -> Counter[tuple[str, str]]:
    hits: Counter[tuple[str, str]] = Counter()
    for seed in seeds:
        verdict = simulate(seed)
        assert not verdict.complaints, verdict.report()
        hits.update(verdict.trace.hits)
    return hits


@pytest.mark.parametrize("group", range(GROUPS))
def test_what_must_hold_holds_whatever_goes_wrong(group: int) -> None:
    size = QUICK // GROUPS
    hits = _hold(range(group * size, (group + 1) * size))
    assert {"killed", "delivery lost"} <= {fault for fault, _ in hits}


@pytest.mark.full
@pytest.mark.parametrize("group", range(MANY_GROUPS))
def test_it_holds_for_many_seeds(group: int) -> None:
    size = MANY // MANY_GROUPS
    _hold(range(QUICK + group * size, QUICK + (group + 1) * size))


def test_a_seed_is_the_same_run_in_another_process() -> None:
    program = "from tests.simulation.run import simulate; v = simulate(5); print(v.steps, v.trace.digest())"
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
    here = simulate(5)
    assert said == {f"{here.steps} {here.trace.digest()}\n"}
