"""``up --detach``: the stack in a process of its own, watched until it is ready; and how a start is told."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hub.cli.exits import Exit
from hub.cli.session import Session
from hub.client import ConflictError
from hub.client.contexts import choose
from schemas.problems import CalqueError, conflict

if TYPE_CHECKING:
    from hub.stack.keeper import PartState
    from hub.stack.running import RunningStack

START_SECONDS = 180.0
LOG_LIMIT_BYTES = 8 << 20
LAST_LINES = 15
_POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What was said to ``up``, as it was said; empty or ``None`` where nothing was."""

    sites: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    hubs: int | None = None
    servers: int | None = None

    def arguments(self) -> list[str]:
        """The same as arguments of another ``up``, wherever that is started."""
        from hub.stack.clusters import absolute

        said = [("--site", each) for each in self.sites]
        said += [("--repository", each) for each in self.repositories]
        said += [("--kubernetes", absolute(each)) for each in self.clusters]
        said += [("--images", each) for each in self.images]
        said += [("--hubs", str(self.hubs))] if self.hubs is not None else []
        said += [("--cluster", str(self.servers))] if self.servers is not None else []
        return [word for pair in said for word in pair]


class PartsView:
    """Tells of each part when it becomes ready, and when one fails and is started again."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._started = time.monotonic()
        self._told: dict[str, tuple[str, int]] = {}

    def __call__(self, states: Mapping[str, PartState]) -> None:
        """Tell what is new in ``states``."""
        for name, state in states.items():
            now = (state.phase, state.restarts)
            if self._told.get(name) == now:
                continue
            self._told[name] = now
            passed = f"{time.monotonic() - self._started:5.1f} s"
            if state.phase == "ready":
                again = f"  (restart {state.restarts})" if state.restarts else ""
                self._say(f"{passed}  {name} is ready{again}")
            elif state.phase in ("backoff", "failed"):
                what = "is started again" if state.phase == "backoff" else "failed"
                self._say(f"{passed}  {name} {what}: {state.cause or 'it ended'}")


async def start_in_background(session: Session, home: Path, wishes: Wishes) -> int:
    """Start a stack that outlives this process; returns when it is ready, or has failed.

    One that runs already is waited for. Raises :class:`ConflictError` when it runs with other sites, repositories or
    hubs.
    """
    from hub.stack.running import look

    before = look(home)
    if before.keeper is not None:
        there = before.announced.sites if before.announced else ()
        if wishes.sites and there and set(wishes.sites) != set(there):
            raise ConflictError(
                conflict("site", f"the stack in {home} runs with {', '.join(there)}", "stop it first: 'calque down'")
            )
        _same_repositories(home, wishes.repositories, sites=there)
        _same_hubs(home, wishes)
        session.say(f"a stack runs in {home} already (process {before.keeper.pid})")
        return await _until_ready(session, home, before.keeper.pid, ended=lambda: None)
    process = _spawn(home, wishes)
    session.say(f"starting in {home}, in the background (process {process.pid})")
    session.parting = (
        f"It goes on starting. To see it: calque logs up -f{_at(home)}. To stop it: calque down{_at(home)}"
    )
    return await _until_ready(session, home, process.pid, ended=process.poll)


def say_next(session: Session, sites: tuple[str, ...], *, home: Path, stop: str) -> None:
    """What to do now, as commands to copy."""
    at = f"export CALQUE_HOME={home}\n    " if _at(home) else ""
    session.say(
        f"""
all is ready. {"In another terminal" if "Ctrl-C" in stop else "What to do now"}:

    {at}calque status
    calque template apply examples/hackathon/calque.yaml
    calque deploy hackathon --site {sites[0]} --name ideas
    calque save ideas --name first
    calque run first --site {sites[-1]} --name ideas-copy

{stop}
"""
    )


def known_sites(home: Path) -> tuple[str, ...]:
    """The sites that a home was made with."""
    directory = home / "sites"
    return tuple(sorted(each.name for each in directory.iterdir() if each.is_dir())) if directory.is_dir() else ()


def _same_repositories(home: Path, wishes: tuple[str, ...], *, sites: tuple[str, ...]) -> None:
    from hub.stack.layout import HomeLayout
    from hub.stack.repositories import chosen, remembered

    has = remembered(HomeLayout(home).repositories, sites=sites)
    for site, kinds in chosen(wishes, sites=sites).items():
        if set(kinds) != set(has[site]):
            there = ", ".join(has[site])
            raise ConflictError(
                conflict(
                    "repository", f"the stack in {home} runs with {there} at {site}", "stop it first: 'calque down'"
                )
            )


def _same_hubs(home: Path, wishes: Wishes) -> None:
    from hub.stack.hubs import Hubs, known_hubs
    from hub.stack.layout import HomeLayout

    has = known_hubs(HomeLayout(home)) or Hubs()
    for option, wanted, there in (("--hubs", wishes.hubs, has.hubs), ("--cluster", wishes.servers, has.servers)):
        if wanted not in (None, there):
            raise ConflictError(
                conflict(option, f"the stack in {home} runs with {there}, not {wanted}", "stop it first: 'calque down'")
            )


def _spawn(home: Path, wishes: Wishes) -> subprocess.Popen[bytes]:
    from hub.stack.files import PRIVATE_FILE, private_directory
    from hub.stack.layout import HomeLayout
    from hub.stack.logfiles import SUPERVISOR

    log = private_directory(HomeLayout(home).logs) / f"{SUPERVISOR}.log"
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
    # -P keeps the working directory out of the import path: the home has a directory `hub`.
    command = [sys.executable, "-P", "-m", "hub.cli.main", "up", "--home", str(home), *wishes.arguments()]
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_FILE), "ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=home, start_new_session=True
        )


async def _until_ready(session: Session, home: Path, pid: int, *, ended: Callable[[], int | None]) -> int:
    from hub.stack.running import look

    tell = PartsView(session.say)
    deadline = time.monotonic() + START_SECONDS
    seen = False
    while time.monotonic() < deadline:
        now = look(home)
        ours = now.keeper is not None and now.keeper.pid == pid
        if ours:
            tell(now.parts)
        if ours and now.ready:
            session.parting = None
            _say_started(session, now)
            return Exit.OK
        code = ended()
        if code is not None or (seen and not ours):
            session.parting = None
            return _tell_failure(session, home, code)
        seen = seen or ours
        await asyncio.sleep(_POLL_SECONDS)
    session.say(f"calque: not ready within {START_SECONDS:.0f} s; it goes on: see 'calque status{_at(home)}'")
    return Exit.TIMED_OUT


def _say_started(session: Session, now: RunningStack) -> None:
    sites = now.announced.sites if now.announced else ()
    stop = f"It runs in the background. To stop it: calque down{_at(now.home)}"
    say_next(session, sites, home=now.home, stop=f"{stop}  (state is kept)")


def _tell_failure(session: Session, home: Path, code: int | None) -> int:
    from hub.stack.layout import HomeLayout
    from hub.stack.logfiles import SUPERVISOR, last_lines

    log = HomeLayout(home).logs / f"{SUPERVISOR}.log"
    session.say(f"calque: the stack did not start; {log} ends with:")
    for line in last_lines(log, lines=LAST_LINES):
        session.say(f"  {line}")
    return code if code in (Exit.CONFLICT, Exit.USAGE) else Exit.FAILED


def _at(home: Path) -> str:
    """The option that names ``home``, where a command without it would mean another one."""
    try:
        meant = choose().home
    except CalqueError:
        meant = None
    return "" if meant is not None and meant.resolve() == home.resolve() else f" --home {home}"
