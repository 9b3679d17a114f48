"""The everyday path through the command line: deploy, save, run elsewhere, look at it all, stop, start, delete."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.main_job.conftest import Told
from tests.e2e.main_job.ways import command, must, refused, slow_save
from tests.e2e.stack import ROOT, Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]


async def test_deploy_save_and_run_answer_with_what_they_made(told: Told) -> None:
    assert (told.app["name"], told.app["site"], told.app["state"], told.app["status"]) == (
        "ideas",
        "north",
        "running",
        "UP",
    )
    assert (told.image["name"], told.image["state"], told.image["site"]) == ("first", "saved", "north")
    assert set(told.image["tags"]) == {"nightly", "v1.0"}
    assert told.image["comment"] == "before the upgrade"
    assert told.image["level"] == "application"
    assert told.image["writers_wait_seconds"] > 0
    assert {part["data_service"]: part["state"] for part in told.image["parts"]} == {
        "ideas": "committed",
        "docs": "committed",
        "thumbs": "committed",
    }
    assert (told.copy["name"], told.copy["site"], told.copy["image"]) == ("copy", "south", told.image["id"])
    for app in (told.app, told.copy):
        async with aiohttp.ClientSession() as session, session.get(f"{app['url']}/healthz") as answer:
            assert answer.status == 200


async def test_progress_is_told_on_stderr_as_plain_lines_off_a_terminal(told: Told) -> None:
    for verb, steps in {
        "deploy": ("provision ideas", "bind docs", "deploy web"),
        "save": ("quiesce web", "prepare ideas", "thaw web", "copy docs"),
        "run": ("transfer south", "restore ideas", "deploy web"),
    }.items():
        said = told.commands[verb].stderr
        assert [step for step in steps if step not in said] == [], said
        assert "\x1b" not in said
        assert "\r" not in said


@pytest.mark.parametrize("form", ["table", "json"])
async def test_whatever_is_listed_or_described_is_data_on_stdout(stack: Stack, told: Told, form: str) -> None:
    operations = (await must(stack, "operation", "list", "--limit", "1000", "-o", "json")).json
    saving = next(each["id"] for each in operations if each["kind"] == "save" and each["target"] == told.app["id"])
    expected = {
        ("template", "list"): ("hackathon", "1.0.0"),
        ("app", "list"): ("ideas", "copy", "north", "south", "running"),
        ("app", "describe", "copy"): (told.copy["id"], "bound", told.copy["url"]),
        ("app", "logs", "ideas"): ("listening",),
        ("image", "list"): ("first", "application", "nightly"),
        ("image", "describe", "first"): (told.image["id"], "before the upgrade", "committed", "south/filesystem"),
        ("operation", "list"): ("save", "deploy", "run", "succeeded"),
        ("operation", "describe", saving): (saving, "succeeded", "quiesce"),
        ("operation", "wait", saving): (saving, "succeeded"),
        ("site", "list"): ("north", "south", "online", "dsb-postgres"),
        ("broker", "list"): ("postgres", "s3", "process", "filesystem", "small"),
        ("status",): ("north", "south"),
        ("version",): ("client", "hub"),
    }
    for arguments, words in expected.items():
        answer = await must(stack, *arguments, "-o", form)
        if form == "json":
            assert answer.json, arguments
        assert [word for word in words if word not in answer.stdout] == [], (arguments, answer)
        if arguments[:2] != ("operation", "wait"):
            assert answer.stderr == "", arguments


async def test_an_empty_list_is_an_empty_array(stack: Stack, told: Told) -> None:
    for arguments in (("template", "list", "--name", "nothing"), ("operation", "list", "--state", "accepted")):
        assert (await must(stack, *arguments, "-o", "json")).json == []
        table = await must(stack, *arguments)
        assert table.stdout == ""
        assert table.stderr


async def test_an_image_is_run_again_and_the_app_stopped_started_and_deleted(stack: Stack, told: Told) -> None:
    again = (await must(stack, "run", "first", "--site", "south", "--name", "again", "-o", "json")).json
    assert again["state"] == "running"
    assert again["url"] != told.copy["url"]
    assert _bound(again).isdisjoint(_bound(told.copy) | _bound(told.app))

    assert "stopped" in (await must(stack, "app", "stop", "again")).stdout
    assert (await must(stack, "app", "describe", "again", "-o", "json")).json["state"] == "stopped"
    with pytest.raises(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session, session.get(again["url"]):
            pass
    refused(await command(stack, "app", "stop", "again"), 5, "again", "stopped")

    assert (await must(stack, "app", "start", "again", "-o", "json")).json["state"] == "running"
    gone = await must(stack, "app", "delete", "again", "--yes", "-o", "json")
    assert gone.json["state"] == "deleted"
    refused(await command(stack, "app", "describe", "again", "--site", "south"), 3, "again", "calque app list")
    assert "again" not in (await must(stack, "app", "list")).stdout
    assert "again" in (await must(stack, "app", "list", "--all")).stdout


async def test_a_deleted_image_is_gone_and_its_name_free_again(stack: Stack, told: Told) -> None:
    first = (await must(stack, "save", "ideas", "--name", "second", "-o", "json")).json
    deleted = await must(stack, "image", "delete", "second", "--yes", "-o", "json")
    assert deleted.json["state"] == "deleted"
    assert "second" not in (await must(stack, "image", "list")).stdout
    refused(
        await command(stack, "run", "second", "--site", "north", "--name", "never"), 3, "second", "calque image list"
    )
    anew = (await must(stack, "save", "ideas", "--name", "second", "-o", "json")).json
    assert anew["id"] != first["id"]


async def test_destructive_verbs_off_a_terminal_need_yes(stack: Stack, told: Told) -> None:
    refused(await stack.cli("app", "delete", "ideas"), 2, "ideas", "--yes")
    refused(await command(stack, "image", "delete", "first"), 2, "first", "--yes")
    assert (await must(stack, "app", "describe", "ideas", "-o", "json")).json["state"] == "running"


async def test_events_are_cloudevents_line_by_line_from_any_point(stack: Stack, told: Told) -> None:
    lines = [json.loads(line) for line in (await must(stack, "events", "-o", "json")).stdout.splitlines()]
    sequences = [line["sequence"] for line in lines]
    assert sequences == list(range(1, len(lines) + 1))
    assert all(line["specversion"] == "1.0" and line["type"].endswith(".v1") for line in lines)
    later = (await must(stack, "events", "--after", str(sequences[-3]), "-o", "json")).stdout.splitlines()
    assert [json.loads(line)["id"] for line in later[:2]] == [line["id"] for line in lines[-2:]]

    saved = await must(stack, "events", "--aggregate", f"image/{told.image['id']}")
    kinds = [line.split()[3] for line in saved.stdout.splitlines()]
    assert kinds == ["image.saving", "image.saved"]


async def test_events_are_followed_as_they_come_until_interrupted(stack: Stack, told: Told) -> None:
    async with _started(stack, "events", "-f", "-o", "json", "--type", "instance.") as following:
        assert following.stdout is not None
        # What is followed begins when it listens: a change is made until one is seen.
        seen = asyncio.create_task(following.stdout.readline())
        for verb in ("stop", "start") * 5:
            await must(stack, "app", verb, "copy")
            if seen.done():
                break
        event = json.loads(await asyncio.wait_for(seen, 60))
        assert event["type"].startswith("calque.event.instance.")
        assert event["source"] == "south"
        following.send_signal(signal.SIGINT)
        rest, errors = await asyncio.wait_for(following.communicate(), 60)
        assert all(json.loads(line) for line in rest.splitlines())
    assert following.returncode == 130
    assert b"Traceback" not in errors
    if verb == "stop":
        await must(stack, "app", "start", "copy")


async def test_waiting_ends_at_its_timeout_or_ctrl_c_and_the_operation_goes_on(stack: Stack, told: Told) -> None:
    async with slow_save(stack, "ideas", "slow") as operation:
        refused(await stack.cli("operation", "wait", operation, "--timeout", "0.5"), 6, f"operation wait {operation}")
        async with _started(stack, "operation", "wait", operation) as waiting:
            assert waiting.stderr is not None
            await asyncio.wait_for(waiting.stderr.readuntil(b"running"), 60)
            waiting.send_signal(signal.SIGINT)
            _, errors = await asyncio.wait_for(waiting.communicate(), 60)
        assert waiting.returncode == 130
        assert f"calque operation wait {operation}" in errors.decode()
        assert b"Traceback" not in errors
        assert (await must(stack, "operation", "describe", operation, "-o", "json")).json["state"] == "running"
    ended = await must(stack, "operation", "wait", operation, "-o", "json")
    assert ended.json["state"] == "succeeded"
    assert (await must(stack, "image", "describe", "slow", "-o", "json")).json["state"] == "saved"


async def test_a_cancelled_save_leaves_no_image_and_its_name_is_free(stack: Stack, told: Told) -> None:
    async with slow_save(stack, "ideas", "cut-short") as operation:
        await must(stack, "operation", "cancel", operation, "--no-wait")
    refused(await command(stack, "operation", "wait", operation), 1, "cancelled", "removed", operation)
    view = (await must(stack, "operation", "describe", operation, "-o", "json")).json
    assert (view["state"], view["cleanup"]) == ("cancelled", "done")
    refused(await command(stack, "operation", "cancel", operation), 5, "cancelled")
    assert "cut-short" not in (await must(stack, "image", "list")).stdout
    refused(await command(stack, "run", "cut-short", "--site", "south", "--name", "never"), 3, "cut-short")
    assert (await must(stack, "save", "ideas", "--name", "cut-short", "-o", "json")).json["state"] == "saved"


async def test_a_hub_that_is_not_there_is_7_and_says_what_to_do(stack: Stack, tmp_path: Path) -> None:
    refused(await stack.cli("status", "--home", str(tmp_path)), 7, "calque up", str(tmp_path))
    context = json.loads((stack.home / "context.json").read_text())
    (tmp_path / "context.json").write_text(json.dumps({**context, "servers": ["nats://127.0.0.1:1"]}))
    refused(await command(stack, "app", "list", "--home", str(tmp_path)), 7, "calque up")


async def test_a_second_stack_on_the_same_home_is_refused(stack: Stack) -> None:
    refused(await stack.cli("up", "--home", str(stack.home)), 5, str(stack.home))


class _started:
    """A command of the CLI that goes on until it is interrupted."""

    def __init__(self, stack: Stack, *arguments: str) -> None:
        self._command = (sys.executable, "-m", "hub.cli.main", "--home", str(stack.home), *arguments)

    async def __aenter__(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=ROOT
        )
        return self._process

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def _bound(app: Mapping[str, Any]) -> set[str]:
    """What of an app's bindings no other app may share: databases, users, buckets, keys."""
    names = re.compile("database|user|bucket|access_key")
    return {
        value for service in app["data_services"] for name, value in service["binding"].items() if names.fullmatch(name)
    }


async def test_the_address_of_an_app_is_printed_for_scripts(stack: Stack, told: Told) -> None:
    assert (await must(stack, "app", "url", "ideas")).stdout == f"{told.app['url']}\n"
    assert (await must(stack, "app", "url", "ideas", "--service", "web")).stdout == f"{told.app['url']}\n"
    refused(await command(stack, "app", "url", "ideas", "--service", "www"), 3, "www", "web")
