"""A data service with a server of its own on a whole stack: copied as files, run at another site, gone with its app and
with the stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hub.stack.layout import HomeLayout
from hub.stack.processes import identify
from hub.stack.servers.dedicated import stop_dedicated
from tests.e2e.main_job.ways import command, must, refused
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.full, pytest.mark.xdist_group("stack")]

IDEA = {"title": "A server of its own", "text": "copied as files", "author": "nobody", "document": "bm90aGluZw=="}


async def test_an_app_whose_database_is_a_server_of_its_own_is_saved_and_runs_elsewhere(
    stack: Stack, tmp_path: Path
) -> None:
    app = await deployed(stack, "alone")
    async with aiohttp.ClientSession(base_url=app["url"]) as session, session.post("/api/ideas", json=IDEA) as said:
        assert said.status < 300, await said.text()
    rules = tmp_path / "rules.yaml"
    rules.write_text('ideas: {columns: {"*.*": keep}}\ndocs: {keep: true}\nthumbs: {keep: true}\n')
    masked = await command(stack, "save", "alone", "--name", "masked-alone", "--rules", str(rules))
    refused(masked, 5, "'dedicated'", "can't be masked")
    await must(stack, "save", "alone", "--name", "of-files")
    copy = (await must(stack, "run", "of-files", "--site", "south", "--name", "alone-too", "-o", "json")).json
    async with aiohttp.ClientSession(base_url=copy["url"]) as session, session.get("/api/ideas") as answer:
        ideas = await answer.json()
    assert IDEA["title"] in [idea["title"] for idea in ideas["ideas"]]
    described = (await must(stack, "app", "describe", "alone-too")).stdout
    assert "physical" in described
    assert [len(servers(stack, site)) for site in ("north", "south")] == [1, 1]
    for name in ("alone", "alone-too"):
        await must(stack, "app", "delete", name, "--yes")
    assert [servers(stack, site) for site in ("north", "south")] == [[], []]


async def test_servers_that_a_stack_leaves_behind_are_stopped_by_their_directories(stack: Stack) -> None:
    await deployed(stack, "left")
    (data,) = servers(stack, "north")
    number = int((data / "postmaster.pid").read_text().split()[0])
    assert await stop_dedicated(HomeLayout(stack.home)) == [data]
    assert identify(number) is None
    await must(stack, "app", "delete", "left", "--yes")
    assert servers(stack, "north") == []


async def deployed(stack: Stack, name: str) -> dict[str, Any]:
    plan = ("--plan", "ideas=dedicated")
    told: dict[str, Any] = (
        await must(stack, "deploy", "hackathon", "--site", "north", "--name", name, *plan, "-o", "json")
    ).json
    return told


def servers(stack: Stack, site: str) -> list[Path]:
    return sorted(HomeLayout(stack.home).servers(site).glob("calque_*/data"))
