"""``context ...``: which hub to speak to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from hub.cli.completion import context_names
from hub.cli.options import context_option, home_option, no_color_option, output_option
from hub.cli.session import Session
from hub.cli.tables import show_fields, show_table
from hub.client import home_directory
from hub.client.contexts import (
    Contexts,
    NamedContext,
    added,
    contexts_file,
    load_contexts,
    removed,
    save_contexts,
    used,
)
from hub.client.credentials import named_context

_name = click.argument("name", shell_complete=context_names)


@click.group()
def context() -> None:
    """Contexts: the hubs to speak to, by name.

    Which one is meant: --context, else --home, else CALQUE_CONTEXT, else CALQUE_HOME, else the current context,
    else the default home.
    """


@context.command("add")
@click.argument("name")
@click.option("--home", "stack_home", type=click.Path(file_okay=False), default=None, help="The home of a stack here.")
@click.option("--server", "servers", multiple=True, metavar="URL", help="The hub's NATS server; may be repeated.")
@click.option("--principal", default=None, help="As whom to speak, as the hub's configuration knows it.")
@click.option("--seed-file", type=click.Path(dir_okay=False), default=None, help="File with the principal's nkey seed.")
@click.option(
    "--credentials",
    type=click.Path(dir_okay=False, exists=True),
    default=None,
    help="Credentials file of a principal, as 'calque principal add' writes it; in place of all others.",
)
@click.option("--replace", is_flag=True, help="Even if there is another one of that name.")
@click.pass_obj
def add_context(
    session: Session,
    name: str,
    stack_home: str | None,
    servers: tuple[str, ...],
    principal: str | None,
    seed_file: str | None,
    credentials: str | None,
    replace: bool,
) -> None:
    """Give a hub a name: that of a stack's home, or one at a server. The first one added is the current one."""
    if [bool(stack_home), bool(servers), bool(credentials)].count(True) != 1:
        raise click.UsageError("name either the --home of a stack, or one --server or more, or --credentials")
    if servers and not principal:
        raise click.UsageError("--server needs --principal: as whom to speak")
    if not servers and (principal or seed_file):
        raise click.UsageError("--principal and --seed-file go with --server; a home and credentials have their own")
    made = (
        named_context(Path(credentials).absolute())
        if credentials
        else NamedContext(home=str(home_directory(stack_home)))
        if stack_home
        else NamedContext(
            servers=servers,
            principal=principal or "",
            nkey_seed_file=str(Path(seed_file).expanduser().absolute()) if seed_file else None,
        )
    )
    known = _change(lambda contexts: added(contexts, name, made, replace=replace))
    session.say(f"context {name} added" + (", and used from now on" if known.current == name else ""))


@context.command("use")
@_name
@click.pass_obj
def use_context(session: Session, name: str) -> None:
    """Speak to this hub when nothing else is said."""
    _change(lambda contexts: used(contexts, name))
    session.say(f"context {name} is used from now on")


@context.command("remove")
@_name
@click.pass_obj
def remove_context(session: Session, name: str) -> None:
    """Forget a context; the hub and its home stay as they are."""
    _change(lambda contexts: removed(contexts, name))
    session.say(f"context {name} removed")


@context.command("list")
@no_color_option
@output_option(("table", "json", "yaml", "name"))
@click.pass_obj
def list_contexts(session: Session) -> None:
    """List the contexts; '*' is before the current one."""
    known = load_contexts(contexts_file())
    documents = [
        {"name": name, "current": name == known.current, "context": each} for name, each in known.contexts.items()
    ]
    if session.shown(documents, *known.contexts):
        return
    show_table(
        ("", "name", "where", "as"),
        [
            ("*" if name == known.current else " ", name, _where(each), each.principal)
            for name, each in known.contexts.items()
        ],
        empty="no contexts; add one with 'calque context add NAME --home DIRECTORY'",
    )


@context.command("show")
@context_option
@home_option
@no_color_option
@output_option(("table", "json", "yaml", "name"))
@click.pass_obj
def show_context(session: Session) -> None:
    """Show which hub is meant now, and what decided it."""
    choice = session.choice
    document = {"name": choice.name, "decided_by": choice.why, "context": choice.context}
    if session.shown(document, choice.name or ""):
        return
    show_fields(
        {
            "context": choice.name or "none",
            "decided by": choice.why,
            "home": choice.home,
            "servers": choice.context.servers,
            "principal": choice.context.principal,
            "seed file": choice.context.nkey_seed_file,
            "kept in": contexts_file(),
        }
    )


def _change(change: Callable[[Contexts], Contexts]) -> Contexts:
    file = contexts_file()
    before = load_contexts(file)
    after = change(before)
    if after != before:
        save_contexts(file, after)
    return after


def _where(each: NamedContext) -> str:
    return each.home or ", ".join(each.servers)
