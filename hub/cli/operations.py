"""``operation ...``, ``events``: what is going on and what happened."""

from __future__ import annotations

from typing import get_args

import click
import msgspec

from hub.cli.completion import operation_ids, site_names
from hub.cli.kinds import OPERATIONS
from hub.cli.lists import show_or_watch
from hub.cli.options import client_options, document_options, wait_options, watch_option
from hub.cli.output import printable, shown_line
from hub.cli.results import show_operation, show_started
from hub.cli.session import Session, asynchronous
from hub.cli.values import Duration
from hub.client.history import EventFilter
from schemas.values import OperationState


@click.group()
def operation() -> None:
    """Operations: long-running jobs, such as a deployment or a save."""


@operation.command("list")
@click.option("--state", type=click.Choice(get_args(OperationState)), default=None, help="Only those in this state.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="At most so many.")
@watch_option
@client_options
@asynchronous
async def list_operations(session: Session, state: OperationState | None, limit: int, watch: bool) -> None:
    """List operations, newest first."""
    await show_or_watch(session, OPERATIONS, lambda client: client.operations(state=state, limit=limit), watch=watch)


@operation.command()
@click.argument("id", shell_complete=operation_ids)
@client_options
@asynchronous
async def describe(session: Session, id: str) -> None:
    """Show an operation with its steps."""
    async with session.client() as client:
        show_operation(session, await client.operation(id))


@operation.command()
@click.argument("id", shell_complete=operation_ids)
@click.option("--timeout", type=Duration(), default=None, help="Stop waiting after this time (90, 2m, 1h).")
@client_options
@asynchronous
async def wait(session: Session, id: str, timeout: float | None) -> None:
    """Wait until an operation has succeeded or failed."""
    async with session.client() as client:
        show_operation(session, await session.follow_operation(client, id, timeout=timeout))


@operation.command()
@click.argument("id", shell_complete=operation_ids)
@wait_options
@client_options
@asynchronous
async def cancel(session: Session, id: str, wait: bool, timeout: float | None) -> None:
    """Cancel an operation; what it did is undone."""
    async with session.client() as client:
        started = await client.cancel(id)
        if not wait:
            show_started(session, started, said=f"operation {id} is being cancelled")
            return
        session.tell_queued(started)
        show_operation(session, await session.follow_to_end(client, id, timeout=timeout))


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with those that come.")
@click.option("--after", type=click.IntRange(0), default=None, metavar="N", help="Only after this sequence.")
@click.option("--site", default=None, shell_complete=site_names, help="Only those written by this site, or by 'hub'.")
@click.option("--aggregate", default=None, metavar="KIND[/ID]", help="Only those about this, such as image/ID.")
@click.option("--type", "kind", default=None, help="Only types with this in them, such as copy.committed.")
@document_options
@asynchronous
async def events(
    session: Session, follow: bool, after: int | None, site: str | None, aggregate: str | None, kind: str | None
) -> None:
    """Show what happened, as it was recorded. With -f and without --after: from now on.

    As JSON: one CloudEvents envelope per line, with its "sequence".
    """
    wanted = EventFilter(site=site, aggregate=aggregate, type=kind)
    async with session.client() as client:
        async for event in client.events(after=after, follow=follow, wanted=wanted):
            if shown_line(session.format, {"sequence": event.sequence, **_fields(event.envelope)}):
                continue
            name = event.envelope.type.removeprefix("calque.event.").removesuffix(".v1")
            data = msgspec.json.decode(event.envelope.data)
            shown = ", ".join(f"{key}={_short(value)}" for key, value in data.items())
            click.echo(f"{event.sequence}  {event.envelope.time}  {event.writer}  {name}  {event.id}  {shown}".rstrip())


def _fields(envelope: msgspec.Struct) -> dict[str, object]:
    return {field: value for field in envelope.__struct_fields__ if (value := getattr(envelope, field)) is not None}


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "{...}" if value else "{}"
    if isinstance(value, list):
        return f"[{len(value)}]"
    text = printable(str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
