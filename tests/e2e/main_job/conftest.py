"""One whole stack for all tests of the main job; each module clears away what it made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.main_job.belongings import Belongings, belongings
from tests.e2e.main_job.command_lines import watched_command_lines
from tests.e2e.main_job.ways import clear
from tests.e2e.stack import Ended, Stack, running_stack

KEPT = frozenset({"ideas", "copy", "first"})


@dataclass(frozen=True, kw_only=True)
class Told:
    """What deploying, saving and running printed, and every command line that was seen on the machine meanwhile."""

    app: Mapping[str, Any]
    image: Mapping[str, Any]
    copy: Mapping[str, Any]
    commands: Mapping[str, Ended]
    command_lines: frozenset[bytes] = field(repr=False)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """``calque up`` with the sites north and south, and the sample template applied."""
    async with running_stack(tmp_path_factory.mktemp("main-job") / "home") as started:
        await started.must("template", "apply", "calque.yaml")
        yield started


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def clean(stack: Stack) -> Mapping[str, Belongings]:
    """What there is at each site before any app was deployed."""
    return {site: await belongings(stack.home, site) for site in stack.sites}


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def told(stack: Stack, clean: Mapping[str, Belongings]) -> Told:
    """``ideas`` at north, its image ``first``, and that run at south as ``copy``; no test takes them away."""
    with watched_command_lines() as command_lines:
        deploy = await stack.must("deploy", "hackathon", "--site", "north", "--name", "ideas", "-o", "json")
        about = ("--tag", "nightly", "--tag", "v1.0", "--comment", "before the upgrade")
        save = await stack.must("save", "ideas", "--name", "first", *about, "-o", "json")
        run = await stack.must("run", "first", "--site", "south", "--name", "copy", "-o", "json")
    return Told(
        app=deploy.json,
        image=save.json,
        copy=run.json,
        commands={"deploy": deploy, "save": save, "run": run},
        command_lines=frozenset(command_lines.seen),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def cleared(stack: Stack, clean: Mapping[str, Belongings]) -> AsyncIterator[None]:
    """Removes every app and image of a module after it; those of the told story stay."""
    yield
    await clear(stack, but=KEPT)
