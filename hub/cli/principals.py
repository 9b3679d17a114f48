"""``principal ...``: who may speak to the hub of this machine from outside, and what each may do."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from hub.cli.completion import app_names
from hub.cli.options import client_options, stack_options
from hub.cli.session import Session, asynchronous, confirm
from hub.cli.tables import show_table
from hub.client import ConflictError, HubUnreachableError, NotFoundError
from hub.client.credentials import CredentialFiles
from hub.stack.access import Access
from hub.stack.errors import StackError
from hub.stack.keys import make_seed, public_key
from hub.stack.nats_principals import account
from hub.stack.principals import ROLES, Principal, Role, checked, commands_to_the_hub
from schemas.problems import CalqueError, conflict, not_found
from schemas.secrets import Secret


def principal_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The principals of the home."""
    try:
        known = Access(ctx.ensure_object(Session).home).principals()
    except (CalqueError, StackError, click.ClickException, OSError):
        return []
    return [CompletionItem(name, help=each.role) for name, each in known.items() if name.startswith(incomplete)]


def verb_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The commands that a publisher may be given."""
    return [CompletionItem(verb) for verb in commands_to_the_hub() if verb.startswith(incomplete)]


_name = click.argument("name", shell_complete=principal_names)
_out = click.option(
    "--out",
    type=click.Path(file_okay=False),
    default=".",
    show_default="the working directory",
    help="Directory for the credentials: NAME.json and NAME.nk.",
)


@click.group()
def principal() -> None:
    """Principals: who may speak to the hub of this machine from outside, each with credentials of its own.

    A publisher sends the commands that it was given, a subscriber reads events and keeps its place in them, a viewer
    sees everything but secrets and changes nothing, an operator may do all. The server holds each to that.
    """


@principal.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What it may do.")
@click.option(
    "--verb",
    "verbs",
    multiple=True,
    shell_complete=verb_names,
    help="A command that a publisher may send, such as save or image.run; may be repeated.",
)
@click.option(
    "--app",
    "apps",
    multiple=True,
    shell_complete=app_names,
    help="Only for this app, by name or id (it is the app that is meant, not the name); may be repeated.",
)
@_out
@click.option("--replace", is_flag=True, help="Change what one that is there may do; it keeps its key.")
@click.option(
    "--print-config",
    is_flag=True,
    help="Change nothing here: print the account for the configuration of a server that you run yourself.",
)
@click.option("--server", "servers", multiple=True, metavar="URL", help="With --print-config: where that server is.")
@click.option("--site", "sites", multiple=True, metavar="NAME", help="With --print-config: a site of that hub.")
@stack_options
@asynchronous
async def add(
    session: Session,
    name: str,
    role: Role,
    verbs: tuple[str, ...],
    apps: tuple[str, ...],
    out: str,
    replace: bool,
    print_config: bool,
    servers: tuple[str, ...],
    sites: tuple[str, ...],
) -> None:
    """Let a principal in, at once and without a restart, and write its credentials. They are not kept here."""
    files = CredentialFiles.of(Path(out), name)
    if print_config:
        if not servers:
            raise click.UsageError("--print-config needs --server: it stands in the credentials")
        files.check_new()
        seed = make_seed()
        made = checked(Principal(name=name, nkey=public_key(seed), role=role, verbs=verbs, apps=apps))
        files.write(servers=servers, principal=name, role=role, seed=Secret(value=seed))
        click.echo(account(made, sites=sites), nl=False)
        session.say(f"put this into 'accounts' of the hub's server and reload it; credentials: {files.context}")
        return
    if servers or sites:
        raise click.UsageError("--server and --site go with --print-config")
    access = Access(session.home)
    known = access.principals().get(name)
    if known is not None and (not replace or name in access.built_in):
        remedy = "it belongs to the stack itself" if name in access.built_in else "change it with --replace"
        raise ConflictError(conflict("name", f"there is a principal {name!r} already", remedy))
    if known is None:
        files.check_new()
    made, new_seed = await access.add(
        name, role=role, verbs=verbs, apps=await _ids(session, apps), replace=replace and known is not None
    )
    if new_seed is None:
        session.say(f"principal {name} is {role} now; its credentials stay as they are")
        return
    files.write(servers=[access.url], principal=name, role=role, seed=Secret(value=new_seed))
    _tell_written(session, files, f"principal {name} may speak as {role}")


@principal.command("list")
@client_options
@click.pass_obj
def list_principals(session: Session) -> None:
    """List who may speak to the hub of this machine."""
    access = Access(session.home)
    known = access.principals()
    documents = [
        {
            "name": each.name,
            "role": each.role,
            "verbs": list(each.verbs),
            "apps": list(each.apps),
            "nkey": each.nkey,
            "built_in": each.name in access.built_in,
        }
        for each in known.values()
    ]
    if session.shown(documents, *known):
        return
    show_table(
        ("name", "role", "verbs", "apps", "nkey"),
        [(each.name, each.role, ", ".join(each.verbs), ", ".join(each.apps), each.nkey) for each in known.values()],
        fit=session.format != "wide",
        firm=frozenset({"name", "role"}),
    )


@principal.command()
@_name
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@stack_options
@asynchronous
async def remove(session: Session, name: str, yes: bool) -> None:
    """Let a principal in no more, and end its subscriptions. Who is connected with its key is cut off."""
    access = Access(session.home)
    _check_changeable(access, name)
    confirm(session, kind="principal", name=name, yes=yes, consequence="Whoever uses its credentials is cut off.")
    await access.remove(name)
    session.say(f"principal {name} removed")
    try:
        async with session.client() as client:
            for place in await client.subscriptions(principal=name):
                await client.unsubscribe(place.name, principal=name)
    except HubUnreachableError:
        session.say(f"no hub answers: end its subscriptions later with 'calque subscription delete --principal {name}'")


@principal.command()
@_name
@_out
@stack_options
@asynchronous
async def rotate(session: Session, name: str, out: str) -> None:
    """Give a principal a new key and write its credentials. Who is connected with the old one is cut off."""
    access = Access(session.home)
    _check_changeable(access, name)
    made, seed = await access.rotate(name)
    files = CredentialFiles.of(Path(out), name)
    files.write(servers=[access.url], principal=name, role=made.role, seed=Secret(value=seed))
    _tell_written(session, files, f"principal {name} has a new key")


async def _ids(session: Session, apps: tuple[str, ...]) -> list[str]:
    """The ids of the apps that are meant now: a credential holds ids, since a name may be another app's tomorrow."""
    if not apps:
        return []
    async with session.client() as client:
        return [(await client.app(each)).id for each in apps]


def _check_changeable(access: Access, name: str) -> None:
    if name not in access.principals():
        raise NotFoundError(not_found("name", f"there is no principal {name!r}", "see 'calque principal list'"))
    if name in access.built_in:
        problem = conflict("name", f"principal {name!r} belongs to the stack itself", "choose another one")
        raise ConflictError(problem)


def _tell_written(session: Session, files: CredentialFiles, said: str) -> None:
    session.say(f"{said}; its key is in {files.seed} and nowhere else")
    click.echo(str(files.context))
