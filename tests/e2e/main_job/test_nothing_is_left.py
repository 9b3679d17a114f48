"""After everything was deleted nothing of it is left at any site."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.e2e.main_job.belongings import Belongings, belongings
from tests.e2e.main_job.ways import must
from tests.e2e.stack import Stack, until

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

GONE_SECONDS = 60.0


async def test_what_was_deleted_has_left_nothing(stack: Stack) -> None:
    before = {site: await belongings(stack.home, site) for site in stack.sites}
    listed = [(await must(stack, kind, "list", "-o", "json")).json for kind in ("app", "image")]
    app = (await must(stack, "deploy", "hackathon", "--site", "north", "--name", "passing", "-o", "json")).json
    idea = {"title": "Passes", "text": "and leaves nothing", "author": "a tester", "document": "cGFzc2Vz"}
    async with (
        aiohttp.ClientSession(base_url=app["url"], raise_for_status=True) as session,
        session.post("/api/ideas", json=idea),
    ):
        pass
    for image in ("one", "two"):
        await must(stack, "save", "passing", "--name", image)
    await must(stack, "run", "one", "--site", "south", "--name", "passing-copy")
    for site in stack.sites:
        there = (await belongings(stack.home, site)).beyond(before[site])
        assert there.keys() == Belongings.__dataclass_fields__.keys(), "the search is blind"

    await must(stack, "image", "delete", "one", "--yes")
    assert (await must(stack, "app", "describe", "passing-copy", "-o", "json")).json["status"] == "UP"
    again = (await must(stack, "run", "two", "--site", "south", "--name", "passing-again", "-o", "json")).json
    assert again["state"] == "running", "an image outlives another that shares its chunks"
    await must(stack, "app", "stop", "passing-again")
    for name in ("passing", "passing-copy", "passing-again"):
        await must(stack, "app", "delete", name, "--yes")
    await must(stack, "image", "delete", "two", "--yes")

    left: dict[str, dict[str, list[str]]] = {}

    async def gone() -> bool:
        found = await asyncio.gather(*(belongings(stack.home, site) for site in stack.sites))
        left.clear()
        left.update({site: each.beyond(before[site]) for site, each in zip(stack.sites, found, strict=True)})
        return not any(left.values())

    try:
        await until(gone, seconds=GONE_SECONDS, what="nothing is left")
    except AssertionError:
        pytest.fail(f"still there: {left}")
    assert [(await must(stack, kind, "list", "-o", "json")).json for kind in ("app", "image")] == listed
    status = (await must(stack, "status", "-o", "json")).json
    assert status["unassigned"] == []
