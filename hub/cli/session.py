"""One run of the program: the hub that is meant, the form of output, a connected client, waiting for operations."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from bus import tracing
from hub.cli.output import Format, shown
from hub.cli.progress import observer_for
from hub.client import Client, OperationFailedError, Started, home_directory, load_context
from hub.client.client import CONNECT_SECONDS
from hub.client.contexts import Choice, choose
from hub.client.errors import InvalidError
from hub.stack.running import seems_down
from schemas.problems import CalqueError, invalid
from schemas.queries import OperationView

DOWN_SECONDS = 1.0
"""How long to try to connect to a stack that seems to be stopped."""

P = ParamSpec("P")
R = TypeVar("R")


class Session:
    """One run of the program.

    ``detached`` is the operation that goes on when the user leaves now; ``parting`` what else is to be said then.
    """

    def __init__(self) -> None:
        self.chosen_home: str | None = None
        self.chosen_context: str | None = None
        self.format: Format = "table"
        self.detached: str | None = None
        self.parting: str | None = None

    @property
    def choice(self) -> Choice:
        """The hub that is meant, and why."""
        if self.chosen_context and self.chosen_home:
            raise click.UsageError("--context and --home both name a hub: leave one of them out")
        return choose(context=self.chosen_context, home=self.chosen_home)

    @property
    def home(self) -> Path:
        """The home of the stack on this machine that is meant; raises :class:`InvalidError` when there is none."""
        choice = self.choice
        if choice.home is None:
            problem = invalid(
                "home", f"context {choice.name!r} is of a hub that does not run from a home here", "add --home"
            )
            raise InvalidError(problem)
        return choice.home

    @property
    def home_for_traces(self) -> Path:
        """Where the details of an error inside are kept, whatever else is wrong."""
        try:
            return self.home
        except (CalqueError, click.ClickException):
            return home_directory()

    @property
    def json(self) -> bool:
        """Whether stdout gets JSON."""
        return self.format == "json"

    def shown(self, value: object, *names: str) -> bool:
        """Print ``value`` as the wanted form for programs; ``False`` when people are to be shown it."""
        return shown(self.format, value, names=names)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client that is connected to the hub that is meant."""
        choice = self.choice
        context = choice.load() if choice.home is None else load_context(choice.home)
        down = choice.home is not None and seems_down(choice.home)
        async with await Client.connect(context, deadline_seconds=DOWN_SECONDS if down else CONNECT_SECONDS) as client:
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
        if not tracing.wanted():
            return asyncio.run(function(click.get_current_context().ensure_object(Session), *args, **kwargs))
        tracing.set_up(service="calque-cli", version=metadata.version("calque"), site="")
        try:
            return asyncio.run(function(click.get_current_context().ensure_object(Session), *args, **kwargs))
        finally:
            tracing.flush()

    return run
