"""``EVENTS`` made anew where three servers keep it and two hubs read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.stack import ROOT, running_stack, until

pytestmark = [pytest.mark.full, pytest.mark.stack, pytest.mark.xdist_group("hubs")]

TEMPLATE = ROOT / "examples" / "hackathon" / "calque.yaml"


async def test_events_are_made_anew_on_a_cluster_and_every_hub_takes_in_what_comes(tmp_path: Path) -> None:
    options = ("--hubs", "2", "--cluster", "3")
    async with running_stack(tmp_path / "home", sites=("north",), options=options) as stack:
        before = (await stack.must("broker", "list", "-o", "json")).json
        ended = (await stack.must("hub", "rebuild-events", "--yes", "--from-site", "north", "-o", "json")).json
        assert ended["state"] == "done"
        assert ended["after"] >= ended["before"] > 0
        assert (await stack.must("broker", "list", "-o", "json")).json == before
        await stack.must("template", "apply", str(TEMPLATE))

        async def known_to_all() -> bool:  # any of the hubs may answer
            answers = [await stack.must("template", "list", "-o", "name") for _ in range(8)]
            return all("hackathon" in each.stdout for each in answers)

        await until(known_to_all, seconds=30, what="the template at every hub")
        assert (await stack.must("hub", "replay", "--verify", "-o", "json")).json["same"] is True
