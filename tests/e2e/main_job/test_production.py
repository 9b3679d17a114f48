"""An app that was there before: taken in at another site, saved while it runs, run elsewhere; and it never changes.

An app of the site south stands for it. The site north, which takes it in, did not deploy it and gets its own way in:
URLs without passwords, and secrets by their names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import pytest
import pytest_asyncio

from schemas.secrets import Secret
from tests.e2e.main_job.belongings import belongings
from tests.e2e.main_job.test_no_secret_leaks import _forms, _in_files
from tests.e2e.main_job.ways import command, ended, must, refused, slow_save
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]


@dataclass(frozen=True)
class Production:
    """``attach`` are the options that name its data services, ``url`` where it answers."""

    url: str
    attach: tuple[str, ...]
    secrets: Mapping[str, str]

    async def seen(self) -> Any:
        """Everything that its users see."""
        async with (
            aiohttp.ClientSession(base_url=self.url, raise_for_status=True) as session,
            session.get("/api/ideas") as answer,
        ):
            return await answer.json()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def production(stack: Stack, clean: object) -> AsyncIterator[Production]:
    """Runs at south; what is needed to reach its data is set as secrets at north."""
    deployed = (await must(stack, "deploy", "hackathon", "--site", "south", "--name", "theirs", "-o", "json")).json
    async with aiohttp.ClientSession(base_url=deployed["url"], raise_for_status=True) as session:
        for number in range(5):
            idea = {"title": f"Idea {number}", "text": "of theirs", "author": "them", "document": "dGhlaXJz"}
            async with session.post("/api/ideas", json=idea):
                pass
    async with await stack.client() as client:
        ideas, docs, thumbs = [await client.binding("theirs", name) for name in ("ideas", "docs", "thumbs")]
        secrets = {"their-db": ideas.secrets["password"].value, "their-bucket": docs.secrets["secret_key"].value}
        for name, value in secrets.items():
            await client.set_secret(name, Secret(value=value), site="north")
    uri = urlsplit(ideas.secrets["uri"].value)
    bucket = urlencode({"endpoint": docs.attributes["endpoint"], "access_key": docs.attributes["access_key"]})
    attach = (
        *("--attach", f"ideas=postgresql://{uri.username}@{uri.hostname}:{uri.port}{uri.path}"),
        *("--attach", f"docs=s3://{docs.attributes['bucket']}?{bucket}"),
        *("--attach", f"thumbs={Path(thumbs.attributes['path']).as_uri()}"),
        *("--attach-secret", "ideas=their-db", "--attach-secret", "docs=their-bucket"),
    )
    yield Production(deployed["url"], attach, secrets)
    for name in ("adopted", "beside", "theirs"):
        if (await command(stack, "app", "describe", name)).code == 0:
            await must(stack, "app", "delete", name, "--yes")
    for name in secrets:
        await must(stack, "secret", "remove", name, "--site", "north", "--yes")


async def test_it_is_adopted_saved_run_elsewhere_and_deleted_and_stays_what_it_is(
    stack: Stack, production: Production
) -> None:
    before, south = await production.seen(), await belongings(stack.home, "south")
    north = await belongings(stack.home, "north")
    adopt = ("app", "adopt", "adopted", "--template", "hackathon", "--site", "north", *production.attach)
    adopted = (await must(stack, *adopt, "-o", "json")).json
    assert (adopted["state"], adopted["status"], adopted["adopted"]) == ("running", "UP", True)
    assert adopted.get("services", []) == []
    assert {each["name"]: each["origin"] for each in adopted["data_services"]} == dict.fromkeys(
        ("ideas", "docs", "thumbs"), "attached"
    )
    refused(await command(stack, "app", "stop", "adopted"), 5, "adopted", "run somewhere else")
    refused(await command(stack, "secret", "remove", "their-db", "--site", "north", "--yes"), 5, "adopted")

    image = (await must(stack, "save", "adopted", "--name", "of-production", "-o", "json")).json
    assert (image["state"], image["level"]) == ("saved", "crash")
    assert {each["origin"] for each in image["parts"]} == {"attached"}
    copy = (await must(stack, "run", "of-production", "--site", "north", "--name", "tested", "-o", "json")).json
    assert {each.get("origin", "provisioned") for each in copy["data_services"]} == {"provisioned"}
    theirs = {str(each["binding"]) for each in adopted["data_services"]}
    assert not theirs & {str(each["binding"]) for each in copy["data_services"]}
    async with aiohttp.ClientSession(base_url=copy["url"], raise_for_status=True) as session:
        async with session.get("/api/ideas") as answer:
            assert await answer.json() == before
        idea = {"title": "Only here", "text": "in the copy", "author": "a tester", "document": "b3Vycw=="}
        async with session.post("/api/ideas", json=idea):
            pass
    assert await production.seen() == before

    await must(stack, "app", "delete", "tested", "--yes")
    await must(stack, "app", "delete", "adopted", "--yes")
    await must(stack, "image", "delete", "of-production", "--yes")
    assert await production.seen() == before
    after = await belongings(stack.home, "south")
    assert (after.beyond(south), south.beyond(after)) == ({}, {})
    assert (await belongings(stack.home, "north")).beyond(north) == {}


@pytest.mark.full
async def test_our_own_services_use_it_and_failures_cancels_and_crashes_leave_it_alone(
    stack: Stack, production: Production
) -> None:
    before, south = await production.seen(), await belongings(stack.home, "south")
    deploy = ("deploy", "hackathon", "--site", "north", "--name", "beside", *production.attach)
    beside = (await must(stack, *deploy, "-o", "json")).json
    assert await _ideas(beside["url"]) == before

    broken = ("--name", "broken", "--set", "web.IDEAS_URI=postgresql://nobody@127.0.0.1:1/none")
    failed = await command(stack, *deploy[:4], *broken, *production.attach)
    assert failed.code == 1, failed.stderr
    async with slow_save(stack, "beside", "never") as saving:
        stack.kill("north-dsb-postgres")
        await must(stack, "operation", "cancel", saving)
        stack.kill("north-agent")
    async with await stack.client() as client:
        assert await ended(client, saving) in ("cancelled", "failed")
    await must(stack, "app", "stop", "beside")
    await must(stack, "app", "start", "beside")
    assert await _ideas((await must(stack, "app", "describe", "beside", "-o", "json")).json["url"]) == before
    await must(stack, "app", "delete", "beside", "--yes")

    assert await production.seen() == before
    after = await belongings(stack.home, "south")
    assert (after.beyond(south), south.beyond(after)) == ({}, {})


async def test_a_password_in_a_url_is_refused_before_it_is_stored(stack: Stack, production: Production) -> None:
    adopt = ("app", "adopt", "told", "--template", "hackathon", "--site", "north")
    told = [each.replace("@", ":hunter2hunter2@") for each in production.attach]
    refused(await command(stack, *adopt, *told), 2, "attach.ideas", "calque secret set")
    partly = await command(stack, *adopt, *production.attach[:2])
    refused(partly, 2, "attach.docs", "--attach docs=URL")
    unset = [each.replace("their-db", "not-set") for each in production.attach]
    refused(await command(stack, *adopt, *unset), 1, "not-set", "calque secret set not-set --site north")
    values = {name: _forms(value) for name, value in (*production.secrets.items(), ("typed", "hunter2hunter2"))}
    assert _in_files(stack.home, values) == []


async def _ideas(url: str) -> Any:
    async with (
        aiohttp.ClientSession(base_url=url, raise_for_status=True) as session,
        session.get("/api/ideas") as answer,
    ):
        return await answer.json()
