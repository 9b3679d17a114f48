"""``up``, ``demo``: the embedded stack in the foreground, and the story that shows what it is for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hub.cli.exits import Exit
from hub.cli.output import seconds
from hub.cli.progress import observer_for
from hub.cli.session import Session, asynchronous
from hub.client import WaitTimedOutError, home_directory
from hub.client.readiness import sites_ready

if TYPE_CHECKING:
    from hub.stack.embedded import EmbeddedStack
    from hub.stack.keeper import PartState

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


@asynccontextmanager
async def until_signalled() -> AsyncIterator[asyncio.Event]:
    """An event that SIGINT or SIGTERM sets; a second signal does nothing more."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


@click.command()
@click.option(
    "--home",
    type=click.Path(file_okay=False),
    default=None,
    help="Directory of the stack; else CALQUE_HOME, else $XDG_DATA_HOME/calque.",
)
@click.option("--site", "sites", multiple=True, metavar="NAME", help="A site; may be repeated. [default: north, south]")
@asynchronous
async def up(session: Session, home: str | None, sites: tuple[str, ...]) -> int:
    """Run a hub, its sites and all their servers on this machine, until Ctrl-C.

    State lies in the home directory. Started again, it goes on where it was.
    """
    from hub.stack.embedded import DEFAULT_SITES, EmbeddedStack

    chosen = home_directory(home or session.chosen_home)
    session.chosen_home = str(chosen)
    stack = EmbeddedStack(
        chosen, sites=sites or _known_sites(chosen) or DEFAULT_SITES, on_change=PartsView(session.say)
    )
    session.say(f"starting in {chosen}")
    async with until_signalled() as stop:
        stopping = asyncio.create_task(stop.wait())
        starting = asyncio.create_task(_start(session, stack))
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                _say_next(session, stack.sites, home=chosen)
                await stop.wait()
            else:
                starting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await starting
            session.say("stopping")
        finally:
            stopping.cancel()
            await stack.stop()
    session.say("stopped; state is kept")
    return Exit.OK


async def _start(session: Session, stack: EmbeddedStack) -> None:
    """Start everything, then wait until the hub knows of it. A broker that stays away is told, and not waited for."""
    from hub.stack.embedded import BROKERS

    await stack.start()
    async with session.client() as client:
        try:
            await sites_ready(client, sites=stack.sites, brokers=BROKERS)
        except WaitTimedOutError as error:
            session.say(f"calque: {error.problem.sentence()}")


def _known_sites(home: Path) -> tuple[str, ...]:
    """The sites that a home was made with."""
    directory = home / "sites"
    return tuple(sorted(each.name for each in directory.iterdir() if each.is_dir())) if directory.is_dir() else ()


def _say_next(session: Session, sites: tuple[str, ...], *, home: Path) -> None:
    """What to do now, as commands to copy."""
    at = "" if home == home_directory() else f"export CALQUE_HOME={home}\n    "
    session.say(
        f"""
all is ready. In another terminal:

    {at}calque status
    calque template apply examples/hackathon/calque.yaml
    calque deploy hackathon --site {sites[0]} --name ideas
    calque save ideas --name first
    calque run first --site {sites[-1]} --name ideas-copy

Ctrl-C stops everything; state is kept.
"""
    )


@click.command()
@click.option("--keep", is_flag=True, help="Leave the home of the demo there, to look at it.")
@asynchronous
async def demo(session: Session, keep: bool) -> int:
    """Tell the main job from end to end on real parts: deploy, save while it is written to, run elsewhere.

    It uses a home of its own and leaves nothing behind.
    """
    from hub.demo.story import StoryFailedError, tell

    async with until_signalled() as stop:
        telling = asyncio.create_task(
            tell(
                say=click.echo,
                watching=lambda: observer_for(sys.stderr),
                parts=lambda say: PartsView(say),
                keep=keep,
            )
        )
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({telling, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not telling.done():
            session.say("interrupted: stopping and cleaning up")
            telling.cancel()
        try:
            took = await telling
        except asyncio.CancelledError:
            return Exit.INTERRUPTED
        except StoryFailedError as error:
            session.say(f"calque: the demo failed: {error}")
            return Exit.FAILED
    click.echo(f"\nAll of it was proved in {seconds(took)}.")
    return Exit.OK
