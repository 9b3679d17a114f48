"""The second sample: layers, a secret, a worker, an optional service, hooks that run commands, other artifacts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import pytest_asyncio

from tests.e2e.main_job.ways import command, must, refused
from tests.e2e.stack import ROOT, Stack, until

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

LETTERS = ROOT / "examples" / "letters"
TOKEN = "a-token-for-sending-mail"
SECONDS = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def applied(stack: Stack) -> None:
    """The template is known; the secret is not set."""
    await must(stack, "template", "apply", str(LETTERS / "calque.yaml"))


def about(url: str) -> dict[str, Any]:
    """What the app says of itself."""
    with urlopen(url) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def write(url: str, text: str) -> None:
    """A letter."""
    with urlopen(Request(f"{url}/letters", data=text.encode(), method="POST")) as answer:
        assert answer.status == 201


def layers(app: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Variable -> its value (or secret) and its layer."""
    return {
        f"{each['service']}.{each['variable']}": (each.get("secret") or each.get("value", ""), each["layer"])
        for each in app["configuration"]
    }


async def test_a_template_with_everything_runs_is_saved_and_runs_again(stack: Stack, tmp_path: Path) -> None:
    deploy = ("deploy", "letters", "--site", "north", "--name", "letters", "--environment", "production")
    refused(await command(stack, *deploy), 1, "mail-token", "calque secret set mail-token --site north")
    file = tmp_path / "token"
    file.write_text(TOKEN)
    await must(stack, "secret", "set", "mail-token", "--site", "north", "--from-file", str(file))

    app = (await must(stack, *deploy, "--set", "sender.SENDING=off", "-o", "json")).json
    write(app["url"], "one")
    write(app["url"], "two")
    said = about(app["url"])
    assert (said["title"], said["greeting"], said["search"], len(said["queue"])) == ("Letters", "Hello", True, 2)

    described = await must(stack, "app", "describe", "letters", "--config", "-o", "json")
    assert {
        "web.GREETING": ("Hello", "app"),
        "web.TITLE": ("Letters", "environment"),
        "web.SEARCH_URL": ("${search.url}", "service"),
        "sender.SENDING": ("off", "instance"),
        "sender.MAIL_TOKEN": ("mail-token", "service"),
    }.items() <= layers(described.json).items()
    table = (await must(stack, "app", "describe", "letters", "--config")).stdout
    assert "environments.production.services.web.environment.TITLE" in table
    assert "*** (secret mail-token)" in table
    assert TOKEN not in described.stdout + table

    await must(stack, "save", "letters", "--name", "letters-today")
    assert about(app["url"])["marks"] == ["before_copy", "after_copy"]

    run = ("run", "letters-today", "--site", "north", "--name", "letters-dev", "--environment", "dev")
    again = (await must(stack, *run, "--set", "sender.SENDING=on", "-o", "json")).json
    said = about(again["url"])
    assert said["marks"] == ["before_copy", "after_restore"]
    assert (said["queue"], said["sent"]) == ([], []), "the hook before anything ran left nothing to send"
    assert (said["greeting"], said["search"]) == ("Hello from dev", False)
    assert again["environment"] == "dev"
    assert again["without"] == ["search"]
    assert {each["name"] for each in again["services"]} == {"web", "sender"}
    write(again["url"], "three")

    async def sent() -> bool:
        return len(about(again["url"])["sent"]) == 1

    await until(sent, seconds=SECONDS, what="the worker, which got the secret, sends")

    await must(stack, "save", "letters-dev", "--name", "letters-partial")
    image = (await must(stack, "image", "describe", "letters-partial", "-o", "json")).json
    assert (image["environment"], image["without"]) == ("dev", ["search"])


async def test_another_artifact_runs_and_its_failing_hook_fails_the_save(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    await must(stack, "secret", "set", "mail-token", "--site", "north", "--from-file", str(file))
    other = tmp_path / "app"
    shutil.copytree(LETTERS / "app", other)
    (other / "letters" / "mark.py").write_text(
        "import os, sys\nprint(sys.argv[1], 'of', os.environ['SEEN'], flush=True)\n"
        "open(os.environ['BOX'] + '/' + sys.argv[1], 'w').close()\nsys.exit(3 if sys.argv[1] == 'before_copy' else 0)\n"
    )
    deploy = ("deploy", "letters", "--site", "north", "--name", "letters-other", "--without", "search")
    chosen = ("--artifact", f"web={other}", "--set-secret", "web.SEEN=mail-token")
    app = (await must(stack, *deploy, *chosen, "-o", "json")).json
    assert about(app["url"])["title"] == "Letters, unnamed"
    failed = await command(stack, "save", "letters-other", "--name", "never")
    refused(failed, 1, "before_copy", "exit code 3", "before_copy of ***")
    assert TOKEN not in failed.stderr
    box = Path(app["data_services"][0]["binding"]["path"])
    assert (box / "after_copy").exists(), "what runs after a copy ran, although there is none"


async def test_what_can_not_be_chosen_says_why(stack: Stack) -> None:
    deploy = ("deploy", "letters", "--site", "north", "--name", "nobody")
    refused(await command(stack, *deploy, "--without", "sender"), 5, "'sender' is not optional", "search")
    refused(await command(stack, *deploy, "--environment", "test"), 3, "environment_name", "dev, production")
    refused(await command(stack, *deploy, "--set", "web.1X=1"), 2, "web.1X")
    refused(await command(stack, *deploy, "--artifact", "web=registry.example/letters:2"), 5, "image", "process")
    refused(await command(stack, *deploy, "--artifact", "web=./nowhere"), 2, "nowhere")
