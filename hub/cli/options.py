"""Options that several commands share; what they say ends up in the session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args

import click

from hub.cli.colour import UNCOLOURED
from hub.cli.completion import context_names
from hub.cli.output import Format
from hub.cli.session import Session
from hub.cli.values import Duration

F = TypeVar("F", bound=Callable[..., Any])


def _keep_home(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value:
        ctx.ensure_object(Session).chosen_home = value


def _keep_context(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value:
        ctx.ensure_object(Session).chosen_context = value


def _keep_format(ctx: click.Context, _: click.Parameter, value: Format) -> None:
    ctx.ensure_object(Session).format = value


def _keep_uncoloured(_ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        UNCOLOURED.set(True)


home_option = click.option(
    "--home",
    type=click.Path(file_okay=False),
    expose_value=False,
    callback=_keep_home,
    help="Directory of the stack; else CALQUE_HOME, else $XDG_DATA_HOME/calque.",
)
context_option = click.option(
    "--context",
    metavar="NAME",
    expose_value=False,
    callback=_keep_context,
    shell_complete=context_names,
    help="The hub to speak to; else CALQUE_CONTEXT, else the current context.",
)
no_color_option = click.option(
    "--no-color", is_flag=True, expose_value=False, callback=_keep_uncoloured, help="No colours; as NO_COLOR does."
)


def output_option(forms: Sequence[str]) -> Callable[[F], F]:
    """``-o`` with these forms, the first of which is the default."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(list(forms)),
        default=forms[0],
        show_default=True,
        expose_value=False,
        callback=_keep_format,
        help="Form of the result on stdout.",
    )


def client_options(function: F) -> F:
    """Of a command that asks a hub for things with names."""
    return context_option(home_option(no_color_option(output_option(get_args(Format))(function))))


def document_options(function: F) -> F:
    """Of a command whose result has no name."""
    return context_option(home_option(no_color_option(output_option(("table", "json", "yaml"))(function))))


def stack_options(function: F) -> F:
    """Of a command about the stack on this machine that prints no document."""
    return context_option(home_option(no_color_option(function)))


def deadline_option(**more: Any) -> Callable[[F], F]:
    """``--deadline``, with ``more`` of what click knows about options."""
    said = "Undo it if it has not succeeded within this time (90, 2m, 1h); else its verb's own, 1h to 24h."
    return click.option("--deadline", type=Duration(), default=None, help=said, **more)


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


watch_option = click.option("-w", "--watch", is_flag=True, help="Go on, and show each change.")
