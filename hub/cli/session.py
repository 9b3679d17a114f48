"""What every command shares: the home, the form of output, a connected client, waiting for operations."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import click

from hub.cli.progress import observer_for
from hub.cli.values import Duration
from hub.client import Client, OperationFailedError, Started, home_directory, load_context
from schemas.queries import OperationView

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

Format = Literal["table", "json"]


class Session:
    """One run of the program. ``detached`` is the operation that goes on when the user leaves now."""

    def __init__(self) -> None:
        self.chosen_home: str | None = None
        self.format: Format = "table"
        self.detached: str | None = None

    @property
    def home(self) -> Path:
        """The home: the option, else the environment, else the default."""
        return home_directory(self.chosen_home)

    @property
    def json(self) -> bool:
        """Whether stdout gets JSON."""
        return self.format == "json"

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client that is connected as the home's context says."""
        async with await Client.connect(load_context(self.home)) as client:
            yield client

    def say(self, text: str) -> None:
        """Talk: on stderr, so that stdout stays data."""
        click.echo(text, err=True)

    async def follow(self, client: Client, started: Started, *, timeout: float | None) -> OperationView | None:
        """Wait with progress until what was started has ended; ``None`` when there is nothing to wait for."""
        self.tell_queued(started)
        if started.operation is None:
            return None
        return await self.follow_operation(client, started.operation, timeout=timeout)

    async def follow_operation(self, client: Client, operation: str, *, timeout: float | None) -> OperationView:
        """Wait with progress for one operation."""
        self.detached = operation
        with observer_for(sys.stderr) as observer:
            view = await client.wait(operation, timeout=timeout, observer=observer)
        self.detached = None
        return view

    async def follow_to_end(self, client: Client, operation: str, *, timeout: float | None) -> OperationView:
        """Wait with progress until the operation has ended, whichever way."""
        try:
            return await self.follow_operation(client, operation, timeout=timeout)
        except OperationFailedError as error:
            self.detached = None
            return error.view

    def tell_queued(self, started: Started) -> None:
        """Explain why nothing happens yet."""
        if started.queued:
            self.say(
                f"{started.queued} has not answered yet (it may be offline). The command waits for it and is carried"
                f" out when it is back, within a day (command {started.command})."
            )


def client_options(function: F) -> F:
    """``--home`` and ``-o`` for a command; both end up in the session."""

    def keep_home(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value:
            ctx.ensure_object(Session).chosen_home = value

    def keep_format(ctx: click.Context, _: click.Parameter, value: Format) -> None:
        ctx.ensure_object(Session).format = value

    function = click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        expose_value=False,
        callback=keep_format,
        help="Form of the result on stdout.",
    )(function)
    return click.option(
        "--home",
        type=click.Path(file_okay=False),
        expose_value=False,
        callback=keep_home,
        help="Directory of the stack; else CALQUE_HOME, else $XDG_DATA_HOME/calque.",
    )(function)


def wait_options(function: F) -> F:
    """``--wait/--no-wait`` and ``--timeout``."""
    function = click.option(
        "--timeout",
        type=Duration(),
        default=None,
        help="Stop waiting after this time (90, 2m, 1h); the operation goes on.",
    )(function)
    return click.option(
        "--wait/--no-wait", default=True, show_default=True, help="Wait until the operation has ended."
    )(function)


def confirm(session: Session, *, kind: str, name: str, yes: bool, consequence: str) -> None:
    """Have a person type the name of what is destroyed; off a terminal ``--yes`` must stand there."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(f"this removes {kind} {name!r}: add --yes to say that it is meant")
    session.say(consequence)
    typed = click.prompt(f"Type {name!r} to go on", default="", show_default=False, err=True)
    if typed != name:
        raise click.UsageError("the name does not match; nothing was changed")


def asynchronous(function: Callable[Concatenate[Session, P], Coroutine[Any, Any, R]]) -> Callable[..., R]:
    """Run the command's coroutine, with the session as its first argument."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return asyncio.run(function(click.get_current_context().ensure_object(Session), *args, **kwargs))

    return run
