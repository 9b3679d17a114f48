"""``hub ...``: the upkeep of the hub itself - snapshots, a replay that checks what it knows, ``EVENTS`` made anew."""

from __future__ import annotations

import asyncio
import sys

import click

from hub.cli.colour import terminal
from hub.cli.completion import site_names
from hub.cli.exits import Exit
from hub.cli.kinds import Column, Kind
from hub.cli.lists import show_list, show_or_watch
from hub.cli.options import client_options, document_options, watch_option
from hub.cli.output import age, seconds, size
from hub.cli.session import Session, asynchronous, confirm
from hub.cli.tables import show_table
from hub.cli.values import Duration
from hub.client import Client, HubUnreachableError
from schemas.queries import HubView
from schemas.signals import Progress
from schemas.upkeep import RebuildView, SnapshotPlace

LOOK_SECONDS = 0.5

HUBS = Kind[HubView](
    columns=(
        Column("name", lambda each: each.name, firm=True),
        Column("version", lambda each: each.version),
        Column("age", lambda each: age(each.since)),
        Column("answers", lambda each: "yes" if each.answering else ""),
        Column("id", lambda each: each.id, wide=True),
    ),
    name=lambda each: each.name,
    id=lambda each: each.id,
    empty="no hub answers",
)
SNAPSHOTS = Kind[SnapshotPlace](
    columns=(
        Column("generation", lambda each: each.generation, firm=True),
        Column("position", lambda each: each.position, firm=True),
        Column("events", lambda each: sum(each.taken.values())),
        Column("age", lambda each: age(each.written_at)),
        Column("size", lambda each: size(each.size)),
        Column("state", lambda each: each.reason or "sound", firm=True),
        Column("why", lambda each: each.wrong),
        Column("by", lambda each: each.by, wide=True),
        Column("writers", lambda each: len(each.taken), wide=True),
        Column("unpacked", lambda each: size(each.plain_size), wide=True),
        Column("digest", lambda each: each.sha256, wide=True),
    ),
    name=lambda each: str(each.generation),
    id=lambda each: str(each.generation),
    empty="no snapshots: the hub reads all events at its next start; write one with 'calque hub snapshot'",
)


@click.group()
def hub() -> None:
    """The hub itself: snapshots of what it knows, and whether that is what its events say."""


@hub.command("list")
@watch_option
@client_options
@asynchronous
async def list_hubs(session: Session, watch: bool) -> None:
    """List the hub processes that share the work, as they answer just now."""
    await show_or_watch(session, HUBS, lambda client: client.hubs(), watch=watch)


@hub.command("snapshots")
@client_options
@asynchronous
async def list_snapshots(session: Session) -> None:
    """List snapshots, newest first; each is read and compared with its digest."""
    async with session.client() as client:
        show_list(session, SNAPSHOTS, await client.snapshots())


@hub.command("snapshot")
@document_options
@asynchronous
async def write_snapshot(session: Session) -> None:
    """Write a snapshot now. The hub does so by itself every so many events."""
    async with session.client() as client:
        written = await client.write_snapshot()
    if not session.shown(written):
        click.echo(f"snapshot {written.generation} at event {written.position}, {size(written.size)}")


@hub.command("replay")
@click.option("--verify", is_flag=True, required=True, help="Compare with what the hub knows.")
@click.option("--timeout", type=Duration(), default=None, help="Stop waiting after this time.")
@document_options
@asynchronous
async def replay(session: Session, verify: bool, timeout: float | None) -> int:  # noqa: ARG001 - it says what is meant
    """Replay all events beside the hub, and compare the result with what it knows, byte for byte.

    Exits with 1 when something differs: the tables and keys are named, the snapshots are dropped, and a restart of the
    hub makes it read its events anew.
    """
    async with session.client() as client:
        with_end = terminal(sys.stderr)

        def tell(progress: Progress) -> None:
            total = f" of {progress.total}" if progress.total is not None else ""
            back = "\r" if with_end else ""
            click.echo(f"{back}{progress.done}{total} events", err=True, nl=not with_end)

        found = await client.verify_replay(timeout=timeout, observer=tell)
        if with_end:
            click.echo("", err=True)
    code = Exit.OK if found.same else Exit.FAILED
    if session.shown(found):
        return code
    if found.same:
        click.echo(f"the same at event {found.position}: {found.events} events, {seconds(found.seconds)}")
        return code
    click.echo(f"different at event {found.position}: {found.events} events, {seconds(found.seconds)}")
    show_table(
        ("table", "key", "the hub", "the replay"),
        [(each.table, each.key, _has(each.live), _has(each.replayed)) for each in found.differences],
        firm=frozenset({"table", "key"}),
    )
    session.say("the snapshots are dropped; restart the hub, so that it reads its events anew, and report this")
    return code


@hub.command("rebuild-events")
@click.option(
    "--from-site",
    "sites",
    multiple=True,
    shell_complete=site_names,
    help="Whose events the site is to send again, all of them; repeatable.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--timeout", type=Duration(), default=None, help="Stop waiting after this time; it goes on.")
@document_options
@asynchronous
async def rebuild_events(session: Session, sites: tuple[str, ...], yes: bool, timeout: float | None) -> int:
    """Delete the hub's stream EVENTS, and make it anew from what it is sourced from.

    It is made of what the hub has of each site (IN_<site>) and of its own events. With --from-site, what the hub has of
    that site is deleted, too, and the site sends everything again; it has to be online. The hub starts again meanwhile.
    Subscriptions and webhooks go on at the first event that they have not acknowledged; some events come again.
    """
    consequence = "The hub's record of events is deleted and filled again from its sources; the hub is away meanwhile."
    confirm(session, kind="stream", name="EVENTS", yes=yes, consequence=consequence)
    async with session.client() as client:
        wanted = await client.rebuild_events(sites=sites)
        session.parting = "the rebuilding goes on without you; 'calque status' answers when it has ended"
        session.say("the hub starts again and makes EVENTS anew")
        try:
            async with asyncio.timeout(timeout):
                found = await _rebuilt(client, wanted.id)
        except TimeoutError:
            session.say("it has not ended yet, and goes on without you")
            return Exit.TIMED_OUT
        session.parting = None
    if session.shown(found):
        return Exit.OK
    click.echo(f"EVENTS holds {found.after} events, {found.before} before")
    if found.after < found.before:
        session.say("some are missing: see what the hub's log says, and try again with --from-site")
    show_table(("consumer", "begins at"), sorted(found.consumers.items()))
    return Exit.OK


async def _rebuilt(client: Client, id: str) -> RebuildView:
    """Wait until it has ended; the hub does not answer meanwhile."""
    while True:
        try:
            found = await client.rebuild()
        except HubUnreachableError:
            found = None
        if found is not None and found.id == id and found.state == "done":
            return found
        await asyncio.sleep(LOOK_SECONDS)


def _has(row: str | None) -> str:
    return "nothing" if row is None else row
