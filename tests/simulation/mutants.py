"""The mutants: deliberate breaks of the product, by area, each of which the simulator must notice.

``python -m tests.simulation.mutants`` tries all, and writes down which seed notices each (``mutant_seeds.json``) and
the table in the README. A test tries those seeds first, and looks for others when the product has changed since.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

from site_agent.domain import plans
from tests.simulation import breaks_of_hubs as hubs
from tests.simulation import breaks_of_sites as sites
from tests.simulation.breaks_of_sites import Patch, without_undo
from tests.simulation.run import Story, simulate
from tests.simulation.stories import two_saves_of_one_name

HERE = Path(__file__).parent
SEEDS_FILE = HERE / "mutant_seeds.json"
README = HERE / "README.md"
BEGIN, END = "<!-- mutants -->", "<!-- end of mutants -->"
MOST_SEEDS = 1500


class Mutant(NamedTuple):
    """A break, and the area of what must hold that it is in."""

    area: str
    name: str
    apply: Callable[[Patch], None]
    story: Story | None = None
    """For what chance meets too seldom: the run is this story instead of a seed's."""


DEDUPE = "the same command, one effect"
EXPIRY = "a command that expired has no effect"
STORE = "stored, then told"
STREAM = "decisions are made of the writer's own stream"
UNDO = "what failed is undone"
THAW = "writers are let go"
IMAGE = "an image is whole"
CARRY_ON = "what was begun is carried on"
FORGED = "the forged and the foreign"
KNOWN = "what is known is what is on record"

MUTANTS: tuple[Mutant, ...] = (
    Mutant(DEDUPE, "a site skips its dedupe check", sites.site_skips_its_dedupe_check),
    Mutant(DEDUPE, "a hub skips its dedupe check", hubs.hub_skips_its_dedupe_check),
    Mutant(DEDUPE, "the hub forgets what it passed on", hubs.hub_forgets_what_it_passed_on),
    Mutant(DEDUPE, "every attempt of a hub's step has the id of the first", hubs.hub_sends_each_attempt_under_one_id),
    Mutant(EXPIRY, "a site carries out what has expired", sites.site_carries_out_what_has_expired),
    Mutant(EXPIRY, "the hub carries out what has expired", hubs.hub_carries_out_what_has_expired),
    Mutant(STORE, "a site acknowledges a command before it is stored", sites.site_acknowledges_before_storing),
    Mutant(STORE, "a hub acknowledges a command before it is stored", hubs.hub_acknowledges_before_storing),
    Mutant(STORE, "a hub acknowledges an event before it has reacted", hubs.hub_acknowledges_events_before_it_reacts),
    Mutant(STORE, "a site goes on with what it could not store", sites.site_goes_on_without_having_stored),
    Mutant(STORE, "the events of one decision are stored one by one", hubs.events_of_a_decision_are_stored_one_by_one),
    Mutant(STREAM, "an append is not guarded by the expected sequence", hubs.appends_are_not_guarded),
    Mutant(STREAM, "a taken name is taken again", hubs.hub_ignores_claims),
    Mutant(
        STREAM,
        "whether a name is free is read from the catalog",
        hubs.hub_decides_names_by_its_catalog,
        two_saves_of_one_name,
    ),
    Mutant(UNDO, "a database is not removed when a deployment is undone", without_undo(plans, "deploy", "provision")),
    Mutant(UNDO, "an app service is not removed when a deployment is undone", without_undo(plans, "deploy", "deploy")),
    Mutant(UNDO, "what was there before is removed with its app", sites.site_removes_what_was_there),
    Mutant(UNDO, "what was there before is removed when undone", sites.site_removes_it_when_undone),
    Mutant(UNDO, "a copy is not dropped when a save is undone", without_undo(plans, "save", "commit")),
    Mutant(UNDO, "a staged copy is not removed when a save is undone", sites.site_keeps_what_was_staged),
    Mutant(UNDO, "a moment is not discarded when a save is undone", without_undo(plans, "save", "prepare", "stage")),
    Mutant(UNDO, "the hook after a copy does not run when a save is undone", without_undo(plans, "save", "arm")),
    Mutant(UNDO, "an undo that failed counts as done", sites.site_gives_up_undoing),
    Mutant(UNDO, "a step that failed counts as done", sites.site_records_a_failure_as_success),
    Mutant(UNDO, "the secrets of a binding are kept", sites.site_keeps_the_secrets_of_a_binding),
    Mutant(UNDO, "the hub believes that a child is undone", hubs.hub_believes_that_a_child_is_undone),
    Mutant(THAW, "writers are not thawed after the moments are fixed", sites.site_forgets_the_thaw),
    Mutant(THAW, "writers are not thawed when a save is undone", without_undo(plans, "save", "quiesce")),
    Mutant(THAW, "a hold that lapsed counts as held", sites.site_believes_a_lapsed_hold),
    Mutant(THAW, "moments are fixed while writers write", sites.site_fixes_moments_while_writers_write),
    Mutant(IMAGE, "an image is saved before its copies are", sites.site_saves_before_its_copies_are_committed),
    Mutant(IMAGE, "where a copy lies is not recorded", sites.site_does_not_record_locations),
    Mutant(IMAGE, "the image of a failed save is left saving", sites.site_leaves_the_image_of_a_failed_save),
    Mutant(IMAGE, "the catalog keeps an image that was never saved", hubs.hub_does_not_withdraw),
    Mutant(IMAGE, "a copy that is gone stays on record", sites.site_misses_no_copy),
    Mutant(CARRY_ON, "a restarted agent does not resume", sites.site_does_not_resume),
    Mutant(CARRY_ON, "the hub has no timers", hubs.hub_has_no_timers),
    Mutant(FORGED, "what anybody signed is taken", sites.site_takes_what_anybody_signed),
    Mutant(FORGED, "an event counts whoever wrote it", hubs.forged_events_count),
    Mutant(FORGED, "an unknown event stops the stream", hubs.an_unknown_event_stops_the_stream),
    Mutant(KNOWN, "a hub that starts from a snapshot misses an event", hubs.a_snapshot_begins_one_event_late),
    Mutant(KNOWN, "a hub that starts from a snapshot reads an event twice", hubs.a_snapshot_begins_one_event_early),
)


class Caught(NamedTuple):
    """The seed that noticed a mutant, and what it said first."""

    seed: int
    complaint: str


def caught(mutant: Mutant, *, most: int = MOST_SEEDS) -> Caught | None:
    """The first seed that notices; the one that did so last time is tried first."""
    known = known_seeds()
    with pytest.MonkeyPatch.context() as patch:
        mutant.apply(patch)
        if mutant.story is not None:
            told = simulate(0, mutant.story).complaints
            return Caught(0, told[0]) if told else None
        for seed in chain([known[mutant.name]] if mutant.name in known else [], range(most)):
            if complaints := simulate(seed).complaints:
                return Caught(seed, complaints[0])
    return None


def _caught(name: str, most: int) -> Caught | None:
    return caught(next(mutant for mutant in MUTANTS if mutant.name == name), most=most)


def known_seeds() -> dict[str, int]:
    """Which seed noticed which mutant last time."""
    if not SEEDS_FILE.exists():
        return {}
    found: dict[str, int] = json.loads(SEEDS_FILE.read_text(encoding="utf-8"))
    return found


def table(found: dict[str, int]) -> Iterator[str]:
    """The mutants in Markdown, with the seeds that notice them."""
    yield "| area | mutant | noticed by seed |"
    yield "| --- | --- | --- |"
    for mutant in MUTANTS:
        yield f"| {mutant.area} | {mutant.name} | {'a story' if mutant.story else found.get(mutant.name, '-')} |"


def write_table(known: dict[str, int]) -> None:
    """Into the README."""
    text = README.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    lines = "\n".join(table(known))
    README.write_text(f"{before}{BEGIN}\n{lines}\n{END}{after}", encoding="utf-8")


def main() -> int:
    """Try all; exit code 1 when one is not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="those whose name contains this")
    parser.add_argument("--most", type=int, default=MOST_SEEDS, help="how many seeds to try")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    chosen = [mutant.name for mutant in MUTANTS if arguments.only in mutant.name]
    known = known_seeds()
    missed = 0
    with ProcessPoolExecutor(arguments.processes) as pool:
        results = {pool.submit(_caught, name, arguments.most): name for name in chosen}
        for each in as_completed(results):
            name, result = results[each], each.result()
            missed += result is None
            said = f"seed {result.seed}: {result.complaint[:120]}" if result else "NOT NOTICED"
            print(f"{name}: {said}", flush=True)
            if result is not None:
                known[name] = result.seed
    known = {mutant.name: known[mutant.name] for mutant in MUTANTS if mutant.name in known}
    SEEDS_FILE.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    write_table(known)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
