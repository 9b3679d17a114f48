"""Copies of an app that keeps two stores in step while it writes: the copies of both are of one moment.

Quiesced by its hooks (`application`), all that the app holds equal is equal in every copy. Frozen in the middle of its
work (`paused`), what it did first is in the copy when what it did next is. In short with a few copies, and with many.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from hub.client import Client
from schemas.values import TemplateRef
from tests.e2e.main_job.ways import OPERATION_SECONDS, finished, must
from tests.e2e.stack import Stack, until

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

APP = Path(__file__).parent / "ledger"
COPIES = 25
FEW = 2
LEVELS = ["application", "paused"]
HOOKS = {
    "quiesce": {"http": "POST /hooks/quiesce", "timeout_seconds": 10},
    "thaw": {"http": "POST /hooks/thaw", "timeout_seconds": 10},
}


def template(directory: Path, *, name: str, hooks: bool) -> Path:
    """The app, with hooks or without."""
    web: dict[str, Any] = {
        "type": "public",
        "artifact": {"type": "process", "directory": str(APP), "command": ["python", "ledger.py"]},
        "port": 8080,
        "environment": {
            "WRITES": "yes",
            "ENTRIES_URI": "${entries.uri}",
            **{
                f"OBJECTS_{each.upper()}": f"${{objects.{each}}}"
                for each in ("endpoint", "bucket", "access_key", "secret_key", "region")
            },
        },
        "health": {"path": "/healthz", "interval_seconds": 1, "timeout_seconds": 5},
    }
    if hooks:
        web["hooks"] = HOOKS
    document = {
        "name": name,
        "version": "1.0.0",
        "description": "Two stores in step",
        "entrypoint": "web",
        "services": {"web": web},
        "data_services": {
            "entries": {"type": "database", "broker": "postgres", "plan": "small"},
            "objects": {"type": "objectstore", "broker": "s3", "plan": "small"},
        },
    }
    file = directory / f"{name}.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


async def check(url: str) -> dict[str, Any]:
    """What the stores of one app hold."""
    timeout = aiohttp.ClientTimeout(total=OPERATION_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{url}/check") as answer:
        answer.raise_for_status()
        found: dict[str, Any] = await answer.json()
        return found


@asynccontextmanager
async def copy_of(client: Client, image: str, *, name: str) -> AsyncIterator[str]:
    """The address of an app that runs from an image and writes nothing; gone afterwards, with the image."""
    started = await client.run(image, name=name, site="north", environment={"web": {"WRITES": "no"}})
    await finished(client, started)
    app = await client.app(started.target)
    assert app.url is not None
    yield app.url
    await finished(client, await client.delete(app.id))
    await finished(client, await client.delete_image(image))


@pytest.mark.parametrize("level", LEVELS)
async def test_a_few_copies_taken_under_load_are_of_one_moment(stack: Stack, tmp_path: Path, level: str) -> None:
    await copies_are_of_one_moment(stack, tmp_path, level, copies=FEW)


@pytest.mark.full
@pytest.mark.parametrize("level", LEVELS)
async def test_copies_taken_under_load_are_of_one_moment(stack: Stack, tmp_path: Path, level: str) -> None:
    await copies_are_of_one_moment(stack, tmp_path, level, copies=COPIES)


async def copies_are_of_one_moment(stack: Stack, directory: Path, level: str, *, copies: int) -> None:
    """Saves an app that writes so many times, and looks into an app that runs from each image."""
    name = f"ledger-{level}-{copies}"
    await must(stack, "template", "apply", str(template(directory, name=name, hooks=level == "application")))
    async with await stack.client() as client:
        started = await client.deploy(TemplateRef(name=name), name=name, site="north")
        await finished(client, started)
        app = await client.app(started.target)
        assert app.url is not None
        url, before = app.url, 0

        async def goes_on() -> bool:
            return bool((await check(url))["counter"] > before)

        for number in range(copies):
            await until(goes_on, seconds=OPERATION_SECONDS, what="the app writes on")
            saving = await client.save(app.id, name=f"{name}-{number}")
            await finished(client, saving)
            image = await client.image(saving.target)
            assert image.level == level
            assert image.writers_wait_seconds is not None
            assert image.writers_wait_seconds > 0
            async with copy_of(client, image.id, name=f"{name}-copy") as copied:
                found = await check(copied)
            assert found["bad"] == [], found
            assert found["last"] == found["counter"] > before, found
            assert found["rows"] == min(found["counter"], 60), found
            # Frozen between the two, the bucket's counter is one behind.
            behind = found["counter"] - found["other"]
            assert behind == 0 if level == "application" else behind in (0, 1), found
            before = found["counter"]
