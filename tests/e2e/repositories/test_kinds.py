"""The main job with other repositories: saved at a site whose copies lie in S3, run where they lie in Postgres."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from brokers.s3_repository.settings import BucketSection
from brokers.s3_repository.store import S3Store
from hub.client.client import Client
from hub.demo.load import library_files, load
from hub.demo.reading import Access, fingerprint
from schemas.queries import AppView
from tests.e2e.stack import Stack, running_stack, until

pytestmark = [pytest.mark.stack, pytest.mark.full, pytest.mark.xdist_group("repositories")]

OPTIONS = ("--repository", "north=s3", "--repository", "south=postgres", "--repository", "south=filesystem")
FILES = 150
SAVE_SECONDS = 120.0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    home = tmp_path_factory.mktemp("repositories") / "home"
    async with running_stack(home, options=OPTIONS) as started:
        await started.must("template", "apply", "calque.yaml")
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(stack: Stack) -> AsyncIterator[Client]:
    async with await stack.client() as connected:
        yield connected


async def access(client: Client, app: AppView) -> Access:
    """Where everything of an app is read past it."""
    ideas, docs, thumbs = [await client.binding(app.id, name) for name in ("ideas", "docs", "thumbs")]
    bucket = {**docs.attributes, **{name: secret.value for name, secret in docs.secrets.items()}}
    assert app.url is not None
    return Access(
        url=app.url,
        postgres_uri=ideas.secrets["uri"].value,
        s3_endpoint=bucket["endpoint"],
        s3_bucket=bucket["bucket"],
        s3_access_key=bucket["access_key"],
        s3_secret_key=bucket["secret_key"],
        thumbs_path=thumbs.attributes["path"],
    )


async def app(client: Client, name: str) -> AppView:
    return next(each for each in await client.apps() if each.name == name)


async def test_there_and_back_through_s3_postgres_and_a_directory(stack: Stack, client: Client) -> None:
    """Each arrow is a transfer between repositories of two kinds."""
    brokers = {(each.site, each.name) for each in await client.brokers() if each.kind == "crb"}
    assert brokers == {("north", "s3"), ("south", "postgres"), ("south", "filesystem")}
    await stack.must("deploy", "hackathon", "--site", "north", "--name", "ideas")
    ideas = await app(client, "ideas")
    assert ideas.url is not None
    await load(url=ideas.url, files=(await asyncio.to_thread(library_files))[:FILES])
    expected = await fingerprint(await access(client, ideas))

    await stack.must("save", "ideas", "--name", "first")
    await stack.must("run", "first", "--site", "south", "--name", "there")
    assert await fingerprint(await access(client, await app(client, "there"))) == expected

    await stack.must("save", "there", "--name", "second", "--repository", "filesystem")
    await stack.must("run", "second", "--site", "north", "--name", "back")
    assert await fingerprint(await access(client, await app(client, "back"))) == expected

    for name in ("ideas", "there", "back"):
        await stack.must("app", "delete", name, "--yes")
    for name in ("first", "second"):
        await stack.must("image", "delete", name, "--yes")
    settings = json.loads((stack.home / "config" / "north-crb-s3.json").read_text())
    bucket = S3Store(BucketSection.model_validate(settings["bucket"]))

    async def empty() -> bool:
        return await asyncio.to_thread(lambda: not list(bucket.list("packs/")) and not list(bucket.list("copies/")))

    try:
        await until(empty, seconds=30, what="the bucket has no copy left")
    finally:
        await asyncio.to_thread(bucket.close)


async def test_a_repository_that_is_killed_during_a_save_goes_on(stack: Stack, client: Client) -> None:
    await stack.must("deploy", "hackathon", "--site", "north", "--name", "killed")
    killed = await app(client, "killed")
    assert killed.url is not None
    await load(url=killed.url, files=(await asyncio.to_thread(library_files))[:FILES])
    expected = await fingerprint(await access(client, killed))

    saving = (await stack.must("save", "killed", "--name", "survived", "--no-wait", "-o", "json")).json["operation"]
    stack.kill("north-crb-s3")
    await client.wait(saving, timeout=SAVE_SECONDS)
    await stack.must("run", "survived", "--site", "south", "--name", "revived")
    assert await fingerprint(await access(client, await app(client, "revived"))) == expected
