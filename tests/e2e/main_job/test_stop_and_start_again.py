"""The whole stack is stopped and started again: nothing runs meanwhile, and everything goes on where it was."""

from __future__ import annotations

import contextlib
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.main_job.conftest import Told
from tests.e2e.main_job.ways import must
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]


@pytest.mark.full
async def test_a_stack_that_was_stopped_goes_on_where_it_was(stack: Stack, told: Told) -> None:
    url = told.app["url"]
    async with aiohttp.ClientSession(base_url=url, raise_for_status=True) as session:
        idea = {"title": "Stays", "text": "over a restart", "author": "a tester", "document": "c3RheXM="}
        async with session.post("/api/ideas", json=idea):
            pass
    await must(stack, "save", "ideas", "--name", "kept")
    await must(stack, "app", "stop", "copy")
    images = (await must(stack, "image", "list", "-o", "json")).json
    events = (await must(stack, "events", "-o", "json")).stdout.splitlines()

    running = processes_of(stack.home)
    for program in ("nats-server", "weed", "postgres", "-m hub", "-m site_agent", "-m brokers.process", "-m app"):
        assert any(program in each for each in running.values()), f"the search is blind: no {program} in {running}"
    assert await stack.stop() == 0
    assert processes_of(stack.home) == {}

    await stack.start()
    back = (await must(stack, "app", "list", "-o", "json")).json
    assert sorted((each["name"], each["state"]) for each in back) == [("copy", "stopped"), ("ideas", "running")]
    assert next(each["url"] for each in back if each["name"] == "ideas") == url
    assert "Stays" in await _titles(url)
    assert (await must(stack, "image", "list", "-o", "json")).json == images
    assert (await must(stack, "events", "-o", "json")).stdout.splitlines()[: len(events)] == events

    await must(stack, "app", "start", "copy")
    again = (await must(stack, "run", "kept", "--site", "south", "--name", "kept-copy", "-o", "json")).json
    assert "Stays" in await _titles(again["url"])


async def _titles(url: str) -> list[str]:
    async with (
        aiohttp.ClientSession(base_url=url, raise_for_status=True) as session,
        session.get("/api/ideas") as answer,
    ):
        return [str(each["title"]) for each in (await answer.json())["ideas"]]


def processes_of(home: Path) -> dict[str, str]:
    """Processes whose arguments, environment or working directory are of this home, by id."""
    found = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        # It may end while it is looked at, or belong to somebody else.
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
            where = bytes((process / "cwd").readlink())
            if any(bytes(home) in each for each in (arguments, environment, where)):
                found[process.name] = arguments.replace(b"\0", b" ").decode(errors="replace")[:200]
    return found
