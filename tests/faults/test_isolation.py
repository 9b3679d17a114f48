"""The copy stands alone: it runs, writes, restarts and is saved while everything of its source is out of reach."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hub.stack.layout import HomeLayout
from hub.stack.processes import session_members
from tests.e2e.stack import Stack, until
from tests.faults.reality import app_processes
from tests.faults.world import APP, World

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("faults")]


@contextmanager
def unreachable(stack: Stack, site: str) -> Iterator[None]:
    """Every process of a site stands still and its directory is not where it was; nobody starts anything anew."""
    assert stack.process is not None
    place = HomeLayout(stack.home).site(site)
    away = place.with_name(f"{site}.away")
    pids = {stack.process.pid}
    for name, part in stack.parts().items():
        if name.startswith(f"{site}-"):
            pids |= {member.pid for member in session_members(part["pid"])}
    pids |= set(app_processes(place))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    place.rename(away)
    try:
        yield
    finally:
        away.rename(place)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def state(pid: int) -> str:
    """The state of a process, as /proc tells it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_copy_works_with_its_source_unreachable(world: World) -> None:
    source = await world.get(APP, "/digest")
    image = await world.saved()
    copy, started = await world.run(image)
    await world.must(started)
    south = HomeLayout(world.stack.home).site("south")
    with unreachable(world.stack, "north"):
        assert state(world.stack.pid("north-postgres")) == "T"
        assert await world.get(copy, "/digest") == source
        await world.write(copy, seconds=10)
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
        await world.write(copy, seconds=10)

        name = world.fresh("image")
        await world.must(await world.client.save(copy, name=name, site="south"))
        assert await world.image_state(name) == ("saved", True)
        again_copy, started = await world.run(name, site="south")
        await world.must(started)
        assert await world.get(again_copy, "/digest") == source
    await world.write(APP, seconds=20)
    assert await world.get(APP, "/digest") == source
    await world.judge()
