"""``plan`` and ``--dry-run`` on a whole stack: they change nothing, and what they show is what is then done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.main_job.conftest import Told
from tests.e2e.main_job.ways import command, must, refused, template
from tests.e2e.stack import HACKATHON, Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]


async def test_without_a_site_every_site_is_asked_and_nothing_changes(stack: Stack, told: Told) -> None:
    before = (await must(stack, "operation", "list", "-o", "json")).json
    plan = (await must(stack, "plan", "deploy", "hackathon", "-o", "json")).json
    assert [(one["site"], one["fits"]) for one in plan["candidates"]] == [("north", True), ("south", True)]
    shown = (await must(stack, "plan", "deploy", "hackathon")).stdout
    assert "north" in shown
    assert "south" in shown
    assert (await must(stack, "operation", "list", "-o", "json")).json == before


async def test_what_is_shown_is_what_is_done(stack: Stack, told: Told) -> None:
    asked = ("run", "first", "--site", "north", "--name", "planned", "--set", "web.TITLE=Planned")
    plan = (await must(stack, *asked, "--dry-run", "-o", "json")).json["candidates"][0]
    assert plan["transfer"] is None
    assert plan["plan"]["changes"][0]["value"] == "Planned"
    started = (await must(stack, *asked, "--expect-plan", plan["digest"], "--no-wait", "-o", "json")).json
    await must(stack, "operation", "wait", started["operation"])
    done = (await must(stack, "operation", "describe", started["operation"], "-o", "json")).json
    assert [each["step"] for each in done["steps"]] == plan["plan"]["steps"]
    refused(await command(stack, "app", "stop", "planned", "--expect-plan", plan["digest"]), 5, "expected_plan")
    stop = (await must(stack, "app", "stop", "planned", "--dry-run", "-o", "json")).json["candidates"][0]
    assert {one["does"] for one in stop["plan"]["data_services"]} == {"keep"}
    await must(stack, "app", "stop", "planned", "--expect-plan", stop["digest"])
    delete = (await must(stack, "plan", "delete", "planned", "-o", "json")).json["candidates"][0]
    assert {one["does"] for one in delete["plan"]["data_services"]} == {"deprovision"}
    await must(stack, "app", "delete", "planned", "--yes", "--expect-plan", delete["digest"])


async def test_running_elsewhere_says_what_is_fetched_and_from_where(stack: Stack, told: Told) -> None:
    fresh = (await must(stack, "save", "ideas", "--name", "to-plan", "-o", "json")).json
    plan = (await must(stack, "plan", "run", "to-plan", "-o", "json")).json
    by_site = {one["site"]: one for one in plan["candidates"]}
    assert by_site["north"]["transfer"] is None
    assert by_site["south"]["transfer"]["source"] == "north"
    assert by_site["south"]["transfer"]["bytes"] == fresh["stored"]
    assert "0 B" not in (await must(stack, "plan", "run", "to-plan")).stdout
    gone = (await must(stack, "image", "delete", "to-plan", "--dry-run", "-o", "json")).json
    assert [one["site"] for one in gone["candidates"]] == ["north"]


async def test_a_site_that_can_not_serve_it_says_what_it_lacks(stack: Stack, tmp_path: Path) -> None:
    post: dict[str, Any] = {"type": "mail"}
    data = yaml.safe_load((HACKATHON / "calque.yaml").read_text())["data_services"]
    await must(stack, "template", "apply", str(template(tmp_path, "wish-mail", data_services={**data, "post": post})))
    ended = await command(stack, "plan", "deploy", "wish-mail")
    assert ended.code == 1
    assert ended.stdout.count("mail") >= 2  # one line per site
    ended = await command(stack, "deploy", "wish-mail", "--site", "north", "--name", "wish", "--dry-run")
    assert ended.code == 5
    assert "data_services.post" in ended.stdout


async def test_a_verb_without_its_site_says_how_to_find_one(stack: Stack) -> None:
    refused(await command(stack, "deploy", "hackathon", "--name", "somewhere"), 2, "--site", "--dry-run")
    refused(await command(stack, "deploy", "hackathon", "--site", "north"), 2, "--name")
