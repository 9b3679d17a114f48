"""``dlq ...``: messages that could not be handled."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from hub.cli.completion import site_names
from hub.cli.exits import Exit
from hub.cli.kinds import Column, Kind
from hub.cli.lists import show_list
from hub.cli.options import client_options
from hub.cli.output import age, printable, size
from hub.cli.session import Session, asynchronous, confirm
from hub.cli.tables import show_fields
from hub.client import Client
from schemas.letters import MOST_LETTERS, LetterOutcome, LettersView, LetterView, WholeLetter

F = TypeVar("F", bound=Callable[..., Any])

AT_ONCE = 100
LETTERS = Kind[LetterView](
    columns=(
        Column("id", lambda each: each.id, firm=True),
        Column("stream", lambda each: each.stream),
        Column("type", lambda each: _short(each.type)),
        Column("code", lambda each: each.code, firm=True),
        Column("times", lambda each: each.times),
        Column("age", lambda each: age(each.at), firm=True),
        Column("reason", lambda each: printable(each.reason)),
        Column("message", lambda each: printable(each.message), wide=True),
        Column("consumer", lambda each: each.consumer, wide=True),
        Column("delivered", lambda each: each.delivered, wide=True),
        Column("size", lambda each: size(each.size), wide=True),
        Column("subject", lambda each: printable(each.subject), wide=True),
    ),
    name=lambda each: each.id,
    id=lambda each: each.id,
    empty="no dead letters",
)
_FILTERS = (
    click.option("--site", default=None, shell_complete=site_names, help="Only those of this site; hub for the hub's."),
    click.option("--stream", default=None, help="Only messages of this stream: JOBS, CMD, EVENTS, ..."),
    click.option("--type", "type_", default=None, help="Only messages of this type, such as hub.instance.deploy."),
    click.option("--code", default=None, help="Only those with this problem code."),
)
ids_argument = click.argument("ids", metavar="[ID]...", nargs=-1)
all_option = click.option("--all", "every", is_flag=True, help="All that the filters let through.")


def filter_options(function: F) -> F:
    """Which letters."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function


@click.group(
    epilog="Deliveries of webhooks that were given up are listed by 'calque webhook dead list': their receivers get"
    " them, not the hub."
)
def dlq() -> None:
    """Dead letters: messages that could not be handled. They are kept for 90 days, the oldest go when room is short."""


@dlq.command("list")
@filter_options
@client_options
@asynchronous
async def list_letters(
    session: Session, site: str | None, stream: str | None, type_: str | None, code: str | None
) -> None:
    """List dead letters of the hub and of all sites, oldest first."""
    async with session.client() as client:
        found = await _find(client, site=site, stream=stream, type_=type_, code=code)
    show_list(session, LETTERS, found.letters)
    _tell_rest(session, found)


@dlq.command()
@click.argument("id", metavar="ID")
@client_options
@asynchronous
async def describe(session: Session, id: str) -> None:
    """Show a dead letter whole: the message, and why, where, when and how often it could not be handled."""
    async with session.client() as client:
        _show(session, await client.dead_letter(id))


@dlq.command()
@ids_argument
@all_option
@filter_options
@client_options
@asynchronous
async def retry(
    session: Session,
    ids: Sequence[str],
    every: bool,
    site: str | None,
    stream: str | None,
    type_: str | None,
    code: str | None,
) -> int:
    """Try dead letters once more: those named, or --all that the filters let through.

    A command has its one effect however often it is sent. What fails again is the same letter again, with the new
    reason.
    """
    async with session.client() as client:
        wanted = await _wanted(session, client, ids, every=every, site=site, stream=stream, type_=type_, code=code)
        outcomes = [each for some in _chunks(wanted) for each in await client.retry_dead_letters(some)]
    return _tell(session, outcomes)


@dlq.command()
@ids_argument
@all_option
@filter_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_options
@asynchronous
async def discard(
    session: Session,
    ids: Sequence[str],
    every: bool,
    site: str | None,
    stream: str | None,
    type_: str | None,
    code: str | None,
    yes: bool,
) -> int:
    """Throw dead letters away: those named, or --all that the filters let through."""
    async with session.client() as client:
        wanted = await _wanted(session, client, ids, every=every, site=site, stream=stream, type_=type_, code=code)
        if wanted:
            name = wanted[0] if len(wanted) == 1 else f"{len(wanted)} letters"
            confirm(session, kind="dead letters", name=name, yes=yes, consequence="This throws their messages away.")
        outcomes = [each for some in _chunks(wanted) for each in await client.discard_dead_letters(some)]
    return _tell(session, outcomes)


async def _find(
    client: Client, *, site: str | None, stream: str | None, type_: str | None, code: str | None
) -> LettersView:
    return await client.dead_letters(site=site, stream=stream, type=_full(type_), code=code, limit=MOST_LETTERS)


async def _wanted(
    session: Session,
    client: Client,
    ids: Sequence[str],
    *,
    every: bool,
    site: str | None,
    stream: str | None,
    type_: str | None,
    code: str | None,
) -> Sequence[str]:
    filtered = any(each is not None for each in (site, stream, type_, code))
    if ids and (every or filtered):
        raise click.UsageError("name letters, or say --all with filters: not both")
    if ids:
        return ids
    if not every:
        raise click.UsageError("name letters (see 'calque dlq list'), or say --all")
    found = await _find(client, site=site, stream=stream, type_=type_, code=code)
    _tell_rest(session, found)
    return [letter.id for letter in found.letters]


def _chunks(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[first : first + AT_ONCE] for first in range(0, len(ids), AT_ONCE)]


def _tell_rest(session: Session, found: LettersView) -> None:
    if found.silent:
        session.say(f"not asked, since they do not answer now: {', '.join(found.silent)}")
    if found.more:
        session.say(f"{found.more} more: use the filters, or do it again")


def _tell(session: Session, outcomes: Sequence[LetterOutcome]) -> int:
    kept = [each for each in outcomes if each.state == "kept"]
    if not session.shown({"outcomes": outcomes}, *(each.id for each in outcomes)):
        for each in outcomes:
            click.echo(f"{each.id}  {each.state}")
        if not outcomes:
            click.echo(LETTERS.empty)
    for each in kept:
        session.say(f"calque: {each.id}: {each.problem.sentence() if each.problem else 'it was kept'}")
    codes = {each.problem.code for each in kept if each.problem}
    if kept and codes == {"not_found"}:
        return Exit.NOT_FOUND
    return Exit.FAILED if kept else Exit.OK


def _show(session: Session, whole: WholeLetter) -> None:
    letter = whole.letter
    if session.shown(whole, letter.id):
        return
    show_fields(
        {
            "id": letter.id,
            "reason": f"{letter.code}: {printable(letter.reason)}",
            "failed in": f"{letter.consumer} on {letter.stream} at {letter.site}, sequence {letter.sequence}",
            "tried": f"{letter.delivered} times the last time; a letter {letter.times} times",
            "first": letter.first_at,
            "last": letter.at,
            "subject": printable(letter.subject),
            "type": printable(letter.type),
            "message": printable(letter.message),
            "size": f"{size(letter.size)}{' (cut: it can not be tried again)' if letter.cut else ''}",
            "fault": printable(whole.fault),
        }
    )
    click.echo("")
    envelope = json.loads(bytes(whole.envelope))
    if envelope is not None:
        click.echo(json.dumps(envelope, indent=2))
    else:
        for line in whole.text.splitlines():
            click.echo(printable(line))


def _full(kind: str | None) -> str | None:
    """A type as messages bear it: ``hub.instance.deploy`` is ``calque.command.hub.instance.deploy.v1``."""
    if kind is None or kind.startswith("calque."):
        return kind
    bare = kind if kind.startswith(("event.", "command.")) else f"command.{kind}"
    return f"calque.{bare}.v1"


def _short(kind: str) -> str:
    return printable(kind.removeprefix("calque.").removeprefix("command.").removesuffix(".v1"))
