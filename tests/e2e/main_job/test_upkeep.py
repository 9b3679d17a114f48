"""Snapshots and the replay that checks them, on a whole stack, by the command line."""

from __future__ import annotations

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
