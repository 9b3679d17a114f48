"""What people read of the simulator: the trace of a run that failed, and the report over many."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.simulation import breaks_of_sites
from tests.simulation.faults import KINDS, TABLES, never_fired, points
from tests.simulation.mutants import known_seeds
from tests.simulation.run import simulate
from tests.simulation.tally import Tally


def test_a_run_that_failed_tells_what_is_wrong_and_what_happened_to_that(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = known_seeds()["what was there before is removed with its app"]
    breaks_of_sites.site_skips_its_dedupe_check(monkeypatch)
    verdict = next(each for each in map(simulate, range(seed, seed + 50)) if "command c" in str(each.complaints))
    told = verdict.report()
    complaint = next(each for each in verdict.complaints if each.startswith("command c"))
    command = complaint.split()[1]
    assert f"COMPLAINT: {complaint}" in told
    history = told.partition(f"COMPLAINT: {complaint}")[2].partition("COMPLAINT:")[0]
    assert f"what happened to {command}" in history
    assert f"sends {command} hub." in history
    assert f"records operation {command} ACCEPTED" in history
    assert " !! " in told
    assert told.endswith(f"  - {verdict.complaints[-1]}")


def test_a_report_shows_every_fault_and_place_also_those_that_never_struck() -> None:
    tally = Tally()
    for seed in range(12):
        tally.take(simulate(seed))
    again = Tally.from_json(json.loads(json.dumps(tally.as_json())))
    assert again.lines() == tally.lines()
    told = "\n".join(tally.lines())
    for table in TABLES:
        assert table.title in told
        assert all(f"  {place} " in told or f"  {place}\n" in told for place in table.places(tally.steps))
    assert "save: undo quiesce" in told
    assert {"provision before", "quiesce after", "transfer amid"} <= set(points())
    silent = Counter({hit: times for hit, times in tally.hits.items() if hit[0] != "killed"})
    assert "killed" in never_fired(silent)
    assert set(never_fired(Counter())) == set(KINDS)
