"""A site with two platforms: each app service goes to the one that can run it. An app on a cluster is copied too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.hackathon.sample import idea
from tests.e2e.stack import HACKATHON, Stack, running_stack, until
from tests.integration.kubernetes.services import settings
from tests.integration.kubernetes.simulated.api import SimulatedCluster
from tests.integration.kubernetes.simulated.node import Image

pytestmark = [pytest.mark.stack, pytest.mark.full, pytest.mark.xdist_group("stack")]

IMAGE = "registry.example/hackathon:1.0.0"


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[SimulatedCluster]:
    made = SimulatedCluster()
    made.node.images[IMAGE] = Image(HACKATHON / "app", ("python", "-m", "app"))
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def stack(cluster: SimulatedCluster, tmp_path: Path) -> AsyncIterator[Stack]:
    told = tmp_path / "kubernetes.json"
    told.write_text(json.dumps({**settings(tmp_path, cluster), "kubeconfig": "kubeconfig"}))
    async with running_stack(tmp_path / "home", sites=("north",), options=("--kubernetes", str(told))) as running:

        async def there() -> bool:
            known = (await running.must("broker", "list", "-o", "json")).json
            return {"process", "kubernetes"} <= {each["name"] for each in known if each["kind"] == "psb"}

        await until(there, seconds=20, what="both platforms are known")
        yield running


async def described(stack: Stack, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await stack.must("app", "describe", name, "-o", "json")).json
    return found


async def titles(url: str) -> list[str]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/ideas") as answer:
        return [each["title"] for each in (await answer.json())["ideas"]]


async def test_an_app_on_the_cluster_is_saved_and_runs_again(stack: Stack, cluster: SimulatedCluster) -> None:
    await stack.must("template", "apply", str(HACKATHON / "calque.yaml"))
    await stack.must("deploy", "hackathon", "--site", "north", "--name", "here")
    assert cluster.store.all("deployments") == []
    on_the_cluster = ("--without", "thumbs", "--artifact", f"web={IMAGE}")
    await stack.must("deploy", "hackathon", "--site", "north", "--name", "there", *on_the_cluster)
    assert len(cluster.store.all("deployments")) == 1
    app = await described(stack, "there")
    assert app["status"] == "UP", app
    url = app["url"]
    async with aiohttp.ClientSession() as session, session.post(f"{url}/api/ideas", json=idea(title="Kites")) as answer:
        assert answer.status == 201
    saved = await stack.must("save", "there", "--name", "kites", "-o", "json")
    assert saved.code == 0
    assert [seen.path.rpartition("/")[2] for seen in cluster.seen if "/proxy/" in seen.path] == ["quiesce", "thaw"]
    await stack.must("run", "kites", "--site", "north", "--name", "again")
    again = await described(stack, "again")
    assert again["url"] != url
    assert await titles(again["url"]) == ["Kites"]
    logs = await stack.must("app", "logs", "again")
    assert logs.stdout
    for name in ("there", "again", "here"):
        await stack.must("app", "delete", name, "--yes")
    assert [cluster.store.all(kind) for kind in ("deployments", "pods", "services", "secrets")] == [[], [], [], []]
