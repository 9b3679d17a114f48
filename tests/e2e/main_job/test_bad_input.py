"""What is wrong is refused with the field or part and what to do, under its own exit code, and leaves nothing."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.e2e.main_job.belongings import Belongings, belongings
from tests.e2e.main_job.conftest import Told
from tests.e2e.main_job.stranger import Schemas, Stranger, uuid7
from tests.e2e.main_job.ways import command, must, refused, slow_save, template
from tests.e2e.stack import HACKATHON, ROOT, Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

BROKEN = HACKATHON / "broken"


WISHED = ("wish-", "dies-")  # templates that no site can serve are templates all the same


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def nothing_new(stack: Stack, told: Told) -> AsyncIterator[None]:
    """Fails when the tests of this module leave an app, an image, a template, or anything else at a site."""

    async def found() -> tuple[list[str], dict[str, Belongings]]:
        listed = []
        for kind in ("app", "image", "template"):
            rows = (await must(stack, kind, "list", "-o", "json")).json
            listed += sorted(f"{kind} {row['name']}" for row in rows if not row["name"].startswith(WISHED))
        return listed, {site: await belongings(stack.home, site) for site in stack.sites}

    before = await found()
    yield
    after = await found()
    assert after[0] == before[0]
    for site in stack.sites:
        assert after[1][site].beyond(before[1][site]) == {}, site


@pytest.mark.parametrize(
    ("file", "field", "words"),
    [
        ("unknown-service-type", "services.web.type", ("public", "worker")),
        ("unknown-data-service-type", "data_services.", ("database", "objectstore")),
        ("cycle", "depends_on", ("tally", "web")),
        ("binding-to-nothing", "services.web.environment.DOCS_BUCKET", ("papers",)),
        ("bad-port", "services.web.port", ("80800",)),
        ("missing-entrypoint", "entrypoint", ("www", "web")),
    ],
)
async def test_a_broken_template_is_refused_with_file_line_and_field(
    stack: Stack, file: str, field: str, words: tuple[str, ...]
) -> None:
    path = BROKEN / f"{file}.yaml"
    ended = await command(stack, "template", "apply", str(path))
    refused(ended, 2, f"{file}.yaml:", field, *words)
    line = re.search(rf"{file}\.yaml:(\d+)", ended.stderr)
    assert line, ended.stderr
    named = path.read_text().splitlines()[int(line[1]) - 1]
    assert field.rpartition(".")[2] in named or any(word in named for word in words), named


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name: [", (":1:8:", "not YAML")),
        ("", ("template",)),
        ("- a\n- b\n", ("template",)),
        ("name: x\nversion: 1.0.0\nservices: {}\nservises: {}\n", ("servises",)),
        ("name: Big_Name\nversion: 1.0.0\nservices: {}\n", ("name", "a-z")),
    ],
)
async def test_what_is_no_template_at_all_is_refused(
    stack: Stack, tmp_path: Path, content: str, words: tuple[str, ...]
) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(content)
    refused(await command(stack, "template", "apply", str(file)), 2, "odd.yaml", *words)


async def test_a_template_file_that_is_not_there_is_refused(stack: Stack, tmp_path: Path) -> None:
    refused(await command(stack, "template", "apply", str(tmp_path / "missing.yaml")), 3, "missing.yaml")


async def test_a_template_version_is_set_once(stack: Stack, tmp_path: Path) -> None:
    changed = template(tmp_path, "hackathon", description="another")
    refused(await command(stack, "template", "apply", str(changed)), 5, "1.0.0", "version")
    await must(stack, "template", "apply", str(HACKATHON / "calque.yaml"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"services": {"web": {"type": "shared"}}}, "services"),
        ({"services": {"web": {"depends_on": ["web"]}}}, "services.web.depends_on"),
        ({"services": {"web": {"environment": {"X": "${nothing.uri}"}}}}, "services.web.environment.X"),
        ({"services": {"web": {"port": 80800}}}, "services.web.port"),
        ({"services": {"web": {"port": "http"}}}, "services"),
        ({"data_services": {"ideas": {"type": "graph"}}}, "data_services"),
        ({"entrypoint": "www"}, "entrypoint"),
        ({"name": "Big_Name"}, "name"),
    ],
)
async def test_the_hub_refuses_a_broken_template_from_whoever_sends_it(
    stack: Stack, change: dict[str, Any], field: str
) -> None:
    document = _as_applied()
    for key, value in change.items():
        if isinstance(value, dict):
            for name, changes in value.items():
                document[key][name].update(changes)
        else:
            document[key] = value
    document["version"] = "7.0.0"
    context = json.loads((stack.home / "context.json").read_text())
    async with await Stranger.connect(context, Schemas(ROOT / "schemas" / "generated" / "json")) as stranger:
        kind, target = "calque.command.hub.template.apply.v1", f"{document['name']}@7_0_0"
        answer = (await stranger.command(kind, target, {"template": document}, unchecked=True))[0]["data"]
    assert answer["state"] == "rejected", answer
    assert answer["problem"]["code"] == "invalid", answer
    assert field in f"{answer['problem'].get('field')} {answer['problem']['message']}", answer


def _as_applied() -> dict[str, Any]:
    """The sample template as a command carries it."""
    document: dict[str, Any] = yaml.safe_load((HACKATHON / "calque.yaml").read_text())
    web = document["services"]["web"]
    web["artifact"] = {**web.pop("artifacts")[0], "directory": str(HACKATHON / "app")}
    return document


DEPLOY = ("deploy", "hackathon", "--site", "north", "--name", "new")
RUN = ("run", "first", "--site", "south", "--name", "new")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("deploy", "hackathon", "--site", "north", "--name", "ideas"), 5, ("name", "ideas", "north", "another")),
        (("run", "first", "--site", "north", "--name", "ideas"), 5, ("name", "ideas", "north", "another")),
        (("deploy", "hackathon", "--site", "north", "--name", "Taken_1"), 2, ("name", "Taken_1", "a-z")),
        (("deploy", "hackathon", "--site", "north", "--name", "a" * 41), 2, ("name", "40")),
        (("run", "first", "--site", "north", "--name", "-x"), 2, ("name", "-x")),
        (("save", "ideas", "--name", "first"), 5, ("name", "first", "another")),
        (("save", "ideas", "--name", "K E P T"), 2, ("name", "a-z")),
        (("save", "ideas", "--name", "new", "--tag", "no tag"), 2, ("tag", "no tag")),
        (("deploy", "hackathon", "--site", "west", "--name", "new"), 3, ("site", "west", "north, south")),
        (("run", "first", "--site", "west", "--name", "new"), 3, ("site", "west", "north, south")),
        ((*DEPLOY, "--plan", "ideas=huge"), 3, ("plans.ideas", "huge", "small")),
        ((*RUN, "--plan", "ideas=huge"), 3, ("plans.ideas", "huge", "small")),
        ((*DEPLOY, "--plan", "mail=small"), 2, ("plans.mail", "docs, ideas")),
        ((*DEPLOY, "--plan", "ideas"), 2, ("--plan", "data-service=plan")),
        ((*DEPLOY, "--set", "www.TITLE=x"), 2, ("environment.www", "web")),
        ((*DEPLOY, "--set", "TITLE=x"), 2, ("--set",)),
        (("deploy", "nothing", "--site", "north", "--name", "new"), 3, ("template", "nothing", "hackathon")),
        (("deploy", "hackathon@9.9", "--site", "north", "--name", "new"), 3, ("version", "9.9", "1.0.0")),
        (("run", "nothing", "--site", "south", "--name", "new"), 3, ("image", "nothing", "calque image list")),
        (("save", "nothing", "--name", "new"), 3, ("app", "nothing", "calque app list")),
        (("app", "list", "--site", "west"), 3, ("site", "west", "north, south")),
        (("app", "describe", "ideas", "--site", "west"), 3, ("site", "west", "north, south")),
        (("broker", "list", "--site", "west"), 3, ("site", "west", "north, south")),
        (("app", "describe", "nothing"), 3, ("app", "nothing", "calque app list")),
        (("app", "logs", "nothing"), 3, ("app", "nothing")),
        (("app", "logs", "ideas", "--service", "www"), 3, ("service", "www", "web")),
        (("app", "stop", "nothing"), 3, ("app", "nothing")),
        (("app", "start", "ideas"), 5, ("ideas", "running", "stopped")),
        (("app", "delete", "nothing", "--yes"), 3, ("app", "nothing")),
        (("image", "describe", "nothing"), 3, ("image", "nothing")),
        (("image", "delete", "nothing", "--yes"), 3, ("image", "nothing")),
        (("operation", "describe", "nothing"), 3, ("operation", "nothing", "calque operation list")),
        (("operation", "wait", "nothing"), 3, ("operation", "nothing")),
        (("operation", "cancel", "nothing"), 3, ("operation", "nothing")),
        (("deploy", "hackathon", "--name", "new"), 2, ("--site",)),
        (("operation", "wait", "x", "--timeout", "soon"), 2, ("--timeout", "soon")),
        (("app", "list", "-o", "xml"), 2, ("xml",)),
        (("no-such-verb",), 2, ("no-such-verb",)),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) and "--" in " ".join(value) else None,
)
async def test_a_request_that_can_not_be_met_is_refused(
    stack: Stack, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    refused(await command(stack, *arguments), code, *words)


@pytest.mark.parametrize(
    ("data_services", "words"),
    [
        ({"queue": {"type": "mail"}}, ("data_services.queue", "mail", "north")),
        ({"ideas": {"type": "database", "broker": "oracle"}}, ("data_services.ideas", "oracle", "north", "postgres")),
        ({"ideas": {"type": "database", "broker": "s3"}}, ("data_services.ideas", "s3", "database")),
    ],
    ids=["no broker of the type", "unknown broker", "broker of another type"],
)
async def test_a_site_that_can_not_serve_a_template_says_which_dependency(
    stack: Stack, tmp_path: Path, data_services: dict[str, Any], words: tuple[str, ...]
) -> None:
    before = {site: await belongings(stack.home, site) for site in stack.sites}
    name = f"wish-{uuid7()[-8:]}"
    document = _as_applied()
    file = template(tmp_path, name, data_services={**document["data_services"], **data_services})
    await must(stack, "template", "apply", str(file))
    ended = await command(stack, "deploy", name, "--site", "north", "--name", "new")
    refused(ended, ended.code, *words)
    assert ended.code in (1, 3, 5), ended
    for site in stack.sites:
        assert (await belongings(stack.home, site)).beyond(before[site]) == {}


async def test_an_image_still_saving_and_an_app_at_work_are_conflicts(stack: Stack) -> None:
    async with slow_save(stack, "ideas", "slow") as operation:
        for site in stack.sites:
            refused(await command(stack, "run", "slow", "--site", site, "--name", "new"), 5, "slow", "saved")
        refused(await command(stack, "image", "delete", "slow", "--yes"), 5, "slow", "saved")
        refused(await command(stack, "save", "ideas", "--name", "slow"), 5, "name", "slow")
        refused(await command(stack, "save", "ideas", "--name", "another"), 5, "ideas", "save", operation)
        for verb in (("delete", "--yes"), ("stop",)):
            refused(await command(stack, "app", verb[0], "ideas", *verb[1:]), 5, "ideas", "save", operation)
    await must(stack, "operation", "wait", operation)
    await must(stack, "save", "ideas", "--name", "another")
    for image in ("slow", "another"):
        await must(stack, "image", "delete", image, "--yes")


async def test_a_service_that_never_gets_healthy_fails_the_deployment_and_is_undone(
    stack: Stack, tmp_path: Path
) -> None:
    before = await belongings(stack.home, "south")
    app = tmp_path / "app"
    app.mkdir()
    (app / "broken.py").write_text("raise SystemExit('no configuration')\n")
    services = {
        "web": {
            "type": "public",
            "artifact": {"type": "process", "directory": str(app), "command": ["python", "broken.py"]},
            "port": 8080,
            "environment": {"IDEAS_URI": "${ideas.uri}"},
            "health": {"path": "/", "interval_seconds": 0.2, "timeout_seconds": 1, "start_period_seconds": 1},
        }
    }
    name = f"dies-{uuid7()[-8:]}"
    file = template(tmp_path, name, services=services, data_services={"ideas": {"type": "database"}})
    await must(stack, "template", "apply", str(file))
    ended = await command(stack, "deploy", name, "--site", "south", "--name", "new")
    refused(ended, 1, "web", "removed", "calque operation describe")
    failed = (await must(stack, "operation", "list", "--state", "failed", "-o", "json")).json
    assert (failed[0]["name"], failed[0]["cleanup"]) == ("new", "done")
    assert failed[0]["problem"]["message"]
    assert (await belongings(stack.home, "south")).beyond(before) == {}
    apps = (await must(stack, "app", "list", "--all", "--site", "south", "-o", "json")).json
    assert [app["state"] for app in apps if app["name"] == "new"] in ([], ["deleted"], ["failed"]), apps
