"""The copy stands alone: it runs, writes, restarts and is saved while everything of its source is out of reach."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from hub.stack.layout import HomeLayout
from hub.stack.processes import session_members
from tests.e2e.stack import Stack, until
from tests.faults.reality import app_processes
from tests.faults.world import APP, World

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("faults")]


@asynccontextmanager
async def unreachable(stack: Stack, site: str) -> AsyncIterator[None]:
    """Every process of a site stands still and its directory is not where it was; nobody starts anything anew."""
    assert stack.process is not None
    supervisor = stack.process.pid
    place = HomeLayout(stack.home).site(site)
    away = place.with_name(f"{site}.away")
    leaders = [part["pid"] for name, part in stack.parts().items() if name.startswith(f"{site}-")]
    stopped: set[int] = set()

    def processes() -> set[int]:
        members = {member.pid for leader in leaders for member in session_members(leader)}
        return {supervisor} | members | set(app_processes(place))

    async def all_stopped() -> bool:
        # One of them may have started another before its own turn came.
        moving = {pid for pid in processes() if state(pid) != "T"}
        for pid in moving:
            os.kill(pid, signal.SIGSTOP)
        stopped.update(moving)
        return not moving

    try:
        await until(all_stopped, seconds=10, what=f"a standstill of {site}", every_seconds=0.05)
        place.rename(away)
        try:
            yield
        finally:
            away.rename(place)
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def state(pid: int) -> str:
    """The state of a process, as /proc tells it; ``T`` also for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "T"


@pytest.mark.full
async def test_copy_works_with_its_source_unreachable(world: World) -> None:
    source = await world.get(APP, "/digest")
    image = await world.saved()
    copy, started = await world.run(image)
    await world.must(started)
    south = HomeLayout(world.stack.home).site("south")
    async with unreachable(world.stack, "north"):
        assert await world.get(copy, "/digest") == source
        await world.write(copy, seconds=60)
        found = await world.get(copy, "/entries")
        assert found["objects"] == [f"entries/{writer}/{seq}" for writer, seq in found["rows"]]

        (web,) = (pid for pid, (_, service) in app_processes(south).items() if service == "web")
        os.kill(web, signal.SIGKILL)

        async def again() -> bool:
            running = [pid for pid, (_, service) in app_processes(south).items() if service == "web" and pid != web]
            with suppress(Exception):
                return bool(running) and bool(await world.get(copy, "/healthz"))
            return False

        await until(again, seconds=30, what="the web service of the copy, after its process was killed")
        assert await world.get(copy, "/digest") == source
        await world.write(copy, seconds=60)

        name = world.fresh("image")
        await world.must(await world.client.save(copy, name=name, site="south"))
        assert await world.image_state(name) == ("saved", True)
        again_copy, started = await world.run(name, site="south")
        await world.must(started)
        assert await world.get(again_copy, "/digest") == source
    await world.write(APP, seconds=60)
    assert await world.get(APP, "/digest") == source
    await world.judge()
