"""A command sent again, at once or after the hub was restarted, has one effect and the same answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.main_job.stranger import Document, Schemas, Stranger, uuid7
from tests.e2e.stack import HACKATHON, ROOT, Stack, until

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

TIMES = 5
APPLY = "calque.command.hub.template.apply.v1"
DEPLOY = "calque.command.hub.instance.deploy.v1"
SAVE = "calque.command.hub.instance.save.v1"
RUN = "calque.command.hub.image.run.v1"
STOP = "calque.command.hub.instance.stop.v1"


@pytest_asyncio.fixture(loop_scope="session")
async def sender(stack: Stack) -> AsyncIterator[Stranger]:
    context = json.loads((stack.home / "context.json").read_text())
    async with await Stranger.connect(context, Schemas(ROOT / "schemas" / "generated" / "json")) as connected:
        yield connected


async def _answer(sender: Stranger, kind: str, target: str, data: Document, id: str, times: int = TIMES) -> Document:
    """The one answer that sending it ``times`` times has: told at least once, and again to who asks for it."""
    answers = [each["data"] for each in await sender.command(kind, target, data, id=id, times=times)]
    answers.append(await sender.ask("calque.query.command.v1", {"id": id}))
    assert answers == [answers[0]] * len(answers)
    answer: Document = answers[0]
    return answer


@pytest.mark.full
async def test_each_command_sent_five_times_has_one_effect_and_the_same_answer(stack: Stack, sender: Stranger) -> None:
    template, deploy, save, run, stop, refused = (uuid7() for _ in range(6))
    instance, image, copy = uuid7(), uuid7(), uuid7()
    document: dict[str, Any] = {
        "name": "again",
        "version": "1.0.0",
        "entrypoint": "web",
        "services": {
            "web": {
                "type": "public",
                "artifact": {"directory": str(HACKATHON / "app"), "command": ["python", "-m", "app"]},
                "port": 8080,
                "environment": {
                    "IDEAS_URI": "${ideas.uri}",
                    **{
                        f"DOCS_{part}": f"${{docs.{part.lower()}}}"
                        for part in ("ENDPOINT", "BUCKET", "ACCESS_KEY", "SECRET_KEY", "REGION")
                    },
                },
                "health": {"path": "/healthz"},
                "hooks": {"quiesce": {"http": "POST /hooks/quiesce"}, "thaw": {"http": "POST /hooks/thaw"}},
            }
        },
        "data_services": {"ideas": {"type": "database"}, "docs": {"type": "objectstore"}},
    }
    deploying = {"name": "again", "site": "north", "template": {"name": "again", "version": "1.0.0"}}
    commands: dict[str, tuple[str, str, Document]] = {
        template: (APPLY, "again@1_0_0", {"template": document}),
        deploy: (DEPLOY, instance, deploying),
        refused: (DEPLOY, uuid7(), {**deploying, "site": "west"}),
        save: (SAVE, instance, {"image": image, "name": "again"}),
        run: (RUN, image, {"instance": copy, "name": "again-copy", "site": "south"}),
        stop: (STOP, copy, {}),
    }
    answers = {}
    for id, (kind, target, data) in commands.items():
        answers[id] = await _answer(sender, kind, target, data, id)
        assert answers[id]["command"] == id
        if operation := answers[id].get("operation"):
            assert operation == id
            assert (await sender.until_ended(id))[-1] == "succeeded"
    assert [answers[id]["state"] for id in commands] == [
        "rejected" if id == refused else "accepted" for id in commands
    ], answers
    effects = await _effects(sender)
    assert {kind: len(found) for kind, found in effects.items()} == {
        "template.applied": 1,
        "instance.deploying": 2,
        "image.saving": 1,
        "instance.stopping": 1,
        "command.rejected": 1,
    }

    before = stack.kill("hub")

    async def back() -> bool:
        part = stack.parts()["hub"]
        return bool(part["phase"] == "ready" and part["pid"] != before)

    await until(back, seconds=30, what="the hub is back")
    for id, (kind, target, data) in commands.items():
        assert await _answer(sender, kind, target, data, id, times=2) == answers[id], kind
    assert await _effects(sender) == effects
    apps = (await sender.ask("calque.query.apps.v1", {}))["apps"]
    mine = sorted((app["name"], app["state"]) for app in apps if app["id"] in (instance, copy))
    assert mine == [("again", "running"), ("again-copy", "stopped")]
    images = (await sender.ask("calque.query.images.v1", {"name": "again"}))["images"]
    assert [each["id"] for each in images] == [image]


async def _effects(sender: Stranger) -> dict[str, list[str]]:
    """Ids of the events that only these commands have caused, by kind."""
    last = (await sender.ask("calque.query.status.v1", {}))["events"]
    found: dict[str, list[str]] = {}
    count = 0
    started = False
    async for event in sender.events(filter="calque.evt.>"):
        count += 1
        kind = str(event["type"]).removeprefix("calque.event.").removesuffix(".v1")
        started = started or (kind == "template.applied" and event["data"]["template"]["name"] == "again")
        if started and kind in (
            "template.applied",
            "instance.deploying",
            "image.saving",
            "instance.stopping",
            "command.rejected",
        ):
            found.setdefault(kind, []).append(event["id"])
        if count >= last:
            break
    return found
