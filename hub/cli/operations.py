"""``operation ...``: what is going on."""

from __future__ import annotations

from typing import get_args

import click

from hub.cli.completion import operation_ids
from hub.cli.kinds import OPERATIONS
from hub.cli.lists import show_or_watch
from hub.cli.options import client_options, wait_options, watch_option
from hub.cli.results import show_operation, show_started
from hub.cli.session import Session, asynchronous
from hub.cli.values import Duration
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
