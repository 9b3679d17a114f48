"""One stack with two copy repositories at north, and an image in one of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hub.stack.layout import HomeLayout
from tests.e2e.stack import ROOT, Stack, running_stack, until

STOP_SECONDS = 10.0


@contextmanager
def vault(stack: Stack) -> Iterator[Path]:
    """A second filesystem repository at north, ``vault``, as an operator starts one: by its settings."""
    layout = HomeLayout(stack.home)
    settings = json.loads(layout.settings("north-crb-filesystem").read_text())
    agent = json.loads(layout.settings("north-agent").read_text())
    place = stack.home / "vault"
    settings |= {
        "bus": {**settings["bus"], "nkey_seed_file": agent["bus"]["nkey_seed_file"], "name": "north-crb-vault"},
        "name": "vault",
        "state_dir": str(place / "state"),
        "repository_dir": str(place / "repository"),
        "port": 0,
    }
    (place / "state").mkdir(parents=True)
    (place / "settings.json").write_text(json.dumps(settings))
    with (place / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "brokers.filesystem"],
            env={**os.environ, "CALQUE_CONFIG": str(place / "settings.json")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=ROOT,
        )
    try:
        yield place / "repository"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def twofold(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """``calque up`` with two repositories at north; the sample application runs there as ``ideas``."""
    async with running_stack(tmp_path_factory.mktemp("twofold") / "home") as stack:
        with vault(stack):
            await stack.must("template", "apply", "calque.yaml")
            await stack.must("deploy", "hackathon", "--site", "north", "--name", "ideas")

            async def registered() -> bool:
                return "north/vault" in (await stack.must("repository", "list", "-o", "name")).stdout.split()

            await until(registered, seconds=20, what="the second repository")
            yield stack


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kept(twofold: Stack) -> Mapping[str, Any]:
    """The image ``kept`` of ``ideas``, in north's second repository."""
    saved = await twofold.must("save", "ideas", "--name", "kept", "--repository", "vault", "-o", "json")
    image: Mapping[str, Any] = saved.json
    return image
