"""Two copies of the tally example on a real stack: each talks over its channel, and neither hears the other."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from tests.e2e.stack import ROOT, Stack, until

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

TALLY = str(ROOT / "examples" / "tally" / "calque.yaml")


async def get(app: dict[str, Any], path: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(f"{app['url']}{path}") as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def post(app: dict[str, Any], path: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{app['url']}{path}") as answer:
        assert answer.status == 202, await answer.text()


@pytest.mark.full
async def test_two_copies_of_an_app_share_no_message(stack: Stack) -> None:
    await stack.must("template", "apply", TALLY)
    first = (await stack.must("deploy", "tally", "--site", "north", "--name", "tally-one", "-o", "json")).json
    try:
        await stack.must("save", "tally-one", "--name", "tally-image", "-o", "json")
        second = (await stack.must("run", "tally-image", "--site", "north", "--name", "tally-two", "-o", "json")).json
        for _ in range(3):
            await post(first, "/votes/tea")
        await post(second, "/votes/coffee")

        async def counted() -> bool:
            return bool(await get(first, "/counted") == {"tea": 3} and await get(second, "/counted") == {"coffee": 1})

        await until(counted, seconds=10, what="each copy counts its own votes")
        assert await get(first, "/total") == {"tea": 3}
        assert await get(second, "/total") == {"coffee": 1}

        await post(first, "/forge/tea")

        async def refused() -> bool:
            said = (await stack.must("app", "logs", "tally-one", "--service", "booth")).stdout
            return 'permissions violation for publish to "votes.counted.tea"' in said.lower()

        await until(refused, seconds=10, what="the forged count is refused")
        assert await get(first, "/counted") == {"tea": 3}
        assert await get(second, "/counted") == {"coffee": 1}
    finally:
        for app in ("tally-two", "tally-one"):
            await stack.cli("app", "delete", app, "--yes", "--wait")
        await stack.cli("image", "delete", "tally-image", "--yes")
    gone = (await stack.must("app", "list", "-o", "json")).json
    assert not [app for app in gone if app["name"].startswith("tally")]
