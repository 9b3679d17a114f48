"""``up``, ``demo``: the embedded stack, and the story that shows what it is for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hub.cli.background import PartsView, Wishes, known_sites, say_next, start_in_background
from hub.cli.exits import Exit
from hub.cli.options import no_color_option, stack_options
from hub.cli.output import seconds
from hub.cli.progress import observer_for
from hub.cli.session import Session, asynchronous
from hub.cli.version import own_version
from hub.client import Client, WaitTimedOutError, load_context
from hub.client.readiness import sites_ready

if TYPE_CHECKING:
    from hub.stack.embedded import EmbeddedStack
    from hub.stack.running import Phase

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
@click.option("--site", "sites", multiple=True, metavar="NAME", help="A site; may be repeated. [default: north, south]")
@click.option(
    "--repository",
    "repositories",
    multiple=True,
    metavar="[SITE=]KIND | SITE=NAME:DIRECTORY",
    help="A copy repository at each site, or at one: filesystem, s3 or postgres; or a directory, such as a disk with"
    " copies that was found, attached to a site under a name. May be repeated. Remembered. [default: filesystem]",
)
@click.option(
    "--kubernetes",
    "clusters",
    multiple=True,
    metavar="[SITE=]FILE",
    help="A Kubernetes platform at each site, or at one: JSON with settings of its broker, such as kubeconfig and "
    "expose. Not remembered.",
)
@click.option(
    "--images",
    "images",
    multiple=True,
    metavar="[SITE=]any|masked",
    help="Which images each site, or one, takes in: any, or masked ones only. May be repeated. Remembered. "
    "[default: any]",
)
@click.option(
    "--hubs",
    type=click.IntRange(1, 8),
    metavar="N",
    help="How many hub processes share the work. Remembered. [default: 1]",
)
@click.option(
    "--cluster",
    type=click.Choice(["1", "3", "5"]),
    metavar="N",
    help="How many NATS servers keep what the hub stores: 1, 3 or 5; a home stays with what it was made with. "
    "[default: 1]",
)
@click.option("-d", "--detach", is_flag=True, help="Return when all is ready; 'calque down' stops it.")
@stack_options
@asynchronous
async def up(
    session: Session,
    sites: tuple[str, ...],
    repositories: tuple[str, ...],
    clusters: tuple[str, ...],
    images: tuple[str, ...],
    hubs: int | None,
    cluster: str | None,
    detach: bool,
) -> int:
    """Run a hub, its sites and all their servers on this machine, until Ctrl-C.

    State lies in the home directory. Started again, it goes on where it was. With --detach it runs in the
    background, and what it says goes to the log 'up' (see 'calque logs up').
    """
    wishes = Wishes(
        sites=sites,
        repositories=repositories,
        clusters=clusters,
        images=images,
        hubs=hubs,
        servers=int(cluster) if cluster is not None else None,
    )
    if detach:
        return await start_in_background(session, session.home, wishes)
    return await _in_foreground(session, session.home, wishes)


async def _in_foreground(session: Session, home: Path, wishes: Wishes) -> int:
    from hub.stack import accepted, running
    from hub.stack import clusters as kubernetes
    from hub.stack.embedded import DEFAULT_SITES, EmbeddedStack
    from hub.stack.locking import holder
    from hub.stack.repositories import chosen

    sites = wishes.sites or known_sites(home) or DEFAULT_SITES
    stack = EmbeddedStack(
        home,
        sites=sites,
        repositories=chosen(wishes.repositories, sites=sites),
        kubernetes=kubernetes.chosen(wishes.clusters, sites=sites),
        images=accepted.chosen(wishes.images, sites=sites),
        hubs=wishes.hubs,
        servers=wishes.servers,
        on_change=PartsView(session.say),
    )
    began = datetime.now(UTC)

    def announce(phase: running.Phase) -> None:
        running.announce(home, phase=phase, sites=stack.sites, version=own_version(), since=began)

    session.say(f"starting in {home}")
    async with until_signalled() as stop:
        stopping = asyncio.create_task(stop.wait())
        starting = asyncio.create_task(_start(session, stack, announce))
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                announce("ready")
                say_next(session, stack.sites, home=home, stop="Ctrl-C stops everything; state is kept.")
                await stop.wait()
                announce("stopping")
            else:
                starting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await starting
            session.say("stopping")
        finally:
            stopping.cancel()
            await stack.stop()
            if holder(home) is None:  # it is not another one's by now
                running.withdraw(home)
    session.say("stopped; state is kept")
    return Exit.OK


async def _start(session: Session, stack: EmbeddedStack, announce: Callable[[Phase], None]) -> None:
    """Start everything, then wait until the hub knows of it. A broker that stays away is told, and not waited for."""
    await stack.start(locked=lambda: announce("starting"))
    if stack.upgraded is not None:
        session.say(f"the home was written by calque {stack.upgraded.before}; it is of {stack.upgraded.version} now")
    async with await Client.connect(load_context(stack.layout.home)) as client:
        try:
            for site, brokers in stack.brokers.items():
                await sites_ready(client, sites=(site,), brokers=brokers)
        except WaitTimedOutError as error:
            session.say(f"calque: {error.problem.sentence()}")


@click.command()
@click.option("--keep", is_flag=True, help="Leave the home of the demo there, to look at it.")
@no_color_option
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
