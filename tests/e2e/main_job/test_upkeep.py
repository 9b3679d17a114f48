"""Snapshots and the replay that checks them, on a whole stack, by the command line."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.main_job.conftest import Told
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]


async def test_snapshots_are_written_listed_and_checked_against_a_replay(stack: Stack, told: Told) -> None:
    written = (await stack.must("hub", "snapshot", "-o", "json")).json
    listed = (await stack.must("hub", "snapshots", "-o", "json")).json
    assert listed[0] == written
    assert (written["wrong"], set(written["taken"])) == ("", {"hub", "north", "south"})
    assert "sound" in (await stack.must("hub", "snapshots")).stdout
    ended = await stack.must("hub", "replay", "--verify", "-o", "json")
    assert ended.json["same"] is True
    assert ended.json["position"] >= written["position"]
    assert "events" in ended.stderr


@pytest.mark.full
@pytest.mark.parametrize("again", [(), ("--from-site", "north", "--from-site", "south")], ids=["hub", "sites"])
async def test_events_made_anew_show_the_same(stack: Stack, told: Told, again: tuple[str, ...]) -> None:
    async def shown() -> dict[str, Any]:
        listed = {what: (await stack.must(what, "list", "-o", "json")).json for what in ("app", "image", "operation")}
        return {what: sorted(rows, key=lambda each: each["id"]) for what, rows in listed.items()}

    written = (await stack.must("hub", "snapshot", "-o", "json")).json
    before = await shown()
    ended = await stack.must("hub", "rebuild-events", "--yes", *again, "-o", "json")
    assert ended.json["after"] >= ended.json["before"] >= written["position"]
    assert "sagas" in ended.json["consumers"]
    after = await shown()
    for what, rows in before.items():
        assert [each for each in after[what] if each["id"] in {row["id"] for row in rows}] == rows, what
    listed = (await stack.must("hub", "snapshots", "-o", "json")).json
    assert {each["generation"]: each["reason"] for each in listed}[written["generation"]] == "foreign"
    assert (await stack.must("hub", "replay", "--verify", "-o", "json")).json["same"] is True
    # what comes from now on is taken in by all: the hub, its sagas, the sites
    await stack.must("save", "ideas", "--name", f"after-{len(again)}", "-o", "json")
    await stack.must("image", "delete", f"after-{len(again)}", "--yes", "-o", "json")
