"""Deploying, saving and following events with a stock NATS client, JSON and the published schemas alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.main_job.stranger import Schemas, Stranger, uuid7
from tests.e2e.stack import ROOT, Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

PUBLISHED = ROOT / "schemas" / "generated" / "json"


@pytest_asyncio.fixture(loop_scope="session")
async def stranger(stack: Stack) -> AsyncIterator[Stranger]:
    context = json.loads((stack.home / "context.json").read_text())
    async with await Stranger.connect(context, Schemas(PUBLISHED)) as connected:
        yield connected


async def test_a_stranger_deploys_saves_runs_and_follows_events(stranger: Stranger) -> None:
    instance, image, copy = uuid7(), uuid7(), uuid7()
    deploy = {"name": "foreign", "site": "north", "template": {"name": "hackathon"}}
    answer = (await stranger.command("calque.command.hub.instance.deploy.v1", instance, deploy))[0]["data"]
    assert answer["state"] == "accepted", answer
    steps = await stranger.until_ended(answer["operation"])
    assert steps[0] == "accepted"
    assert steps[-1] == "succeeded"
    assert {"step_started", "step_succeeded"} <= set(steps)

    app = (await stranger.ask("calque.query.apps.v1", {"name": "foreign"}))["apps"][0]
    assert (app["id"], app["state"], app["site"]) == (instance, "running", "north")

    save = {"image": image, "name": "foreign-1", "tags": ["plain"], "comment": "by a stranger"}
    answer = (await stranger.command("calque.command.hub.instance.save.v1", instance, save))[0]["data"]
    assert (await stranger.until_ended(answer["operation"]))[-1] == "succeeded"
    saved = (await stranger.ask("calque.query.images.v1", {"name": "foreign-1"}))["images"][0]
    assert (saved["id"], saved["state"], saved["level"], saved["tags"]) == (image, "saved", "application", ["plain"])

    run = {"instance": copy, "name": "foreign-copy", "site": "south"}
    answer = (await stranger.command("calque.command.hub.image.run.v1", image, run))[0]["data"]
    assert (await stranger.until_ended(answer["operation"]))[-1] == "succeeded"
    app = (await stranger.ask("calque.query.apps.v1", {"name": "foreign-copy"}))["apps"][0]
    assert (app["id"], app["state"], app["image"]) == (copy, "running", image)


async def test_a_stranger_reads_the_whole_record_from_the_first_event_on(stranger: Stranger) -> None:
    last = (await stranger.ask("calque.query.status.v1", {}))["events"]
    seen = []
    async for event in stranger.events(filter="calque.evt.>"):
        seen.append(event["id"])
        if len(seen) >= last:
            break
    assert len(set(seen)) == len(seen)


async def test_what_a_stranger_gets_wrong_is_told_by_field(stranger: Stranger) -> None:
    kind = "calque.command.hub.instance.deploy.v1"
    for data, field in (
        ({"name": "x", "site": "north"}, "template"),
        ({"name": "x", "site": 7, "template": {"name": "hackathon"}}, "site"),
        ({"name": "X_", "site": "north", "template": {"name": "hackathon"}}, "name"),
        ({"name": "x", "site": "north", "template": {"name": "hackathon"}, "colour": "red"}, "colour"),
    ):
        answer = (await stranger.command(kind, uuid7(), data, unchecked=True))[0]["data"]
        assert answer["state"] == "rejected", answer
        problem = answer["problem"]
        assert problem["code"] == "invalid", answer
        assert field in f"{problem.get('field')} {problem['message']}", answer


def test_the_stranger_imports_nothing_of_ours() -> None:
    ours = ("hub", "site_agent", "brokers", "schemas", "bus")
    lines = (Path(__file__).parent / "stranger.py").read_text().splitlines()
    imports = [line.split()[1].partition(".")[0] for line in lines if line.startswith(("import ", "from "))]
    assert imports
    assert not set(imports) & set(ours)
