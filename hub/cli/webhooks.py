"""``webhook ...``: events sent on as HTTP requests."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import click

from hub.cli.completion import app_names, site_names, webhook_names
from hub.cli.exits import Exit
from hub.cli.kinds import Column, Kind
from hub.cli.lists import show_list
from hub.cli.options import client_options, document_options
from hub.cli.output import age, plain
from hub.cli.session import Session, asynchronous, confirm
from hub.cli.tables import show_fields, show_table
from hub.cli.values import Duration
from hub.client import Client, ClientError
from hub.client.errors import client_error
from hub.client.started import Started
from schemas.envelope import parse_timestamp, timestamp
from schemas.problems import temporary
from schemas.secrets import Secret
from schemas.webhooks import DeadLetter, DeliveryView, StartAt, WebhookSpec, WebhookStatus, WebhookView

ROTATED_SECONDS = 10.0
UNKNOWN = "?"
"""What is shown where the process that delivers does not answer."""


class Row(NamedTuple):
    """A webhook, and how far it is if that is known."""

    webhook: WebhookView
    status: WebhookStatus | None


WEBHOOKS = Kind[Row](
    columns=(
        Column("name", lambda row: row.webhook.name, firm=True),
        Column("state", lambda row: row.webhook.state, firm=True),
        Column("url", lambda row: row.webhook.spec.url),
        Column("types", lambda row: row.webhook.spec.types or ("all",)),
        Column("waiting", lambda row: row.status.waiting if row.status else UNKNOWN),
        Column("retrying", lambda row: row.status.retrying if row.status else UNKNOWN),
        Column("dead", lambda row: row.status.dead if row.status else UNKNOWN),
        Column("last", lambda row: _outcome(row.status.last) if row.status else UNKNOWN),
        Column("sites", lambda row: row.webhook.spec.sites or ("all",), wide=True),
        Column("apps", lambda row: row.webhook.spec.apps or ("all",), wide=True),
        Column("age", lambda row: age(row.webhook.added_at), wide=True),
    ),
    name=lambda row: row.webhook.name,
    id=lambda row: row.webhook.name,
    empty="no webhooks; add one with 'calque webhook add NAME --url URL'",
)
DELIVERIES = Kind[DeliveryView](
    columns=(
        Column("at", lambda each: each.at, firm=True),
        Column("event", lambda each: each.sequence, firm=True),
        Column("type", lambda each: _short(each.type)),
        Column("attempt", lambda each: each.attempt),
        Column("outcome", lambda each: each.outcome, firm=True),
        Column("status", lambda each: each.status),
        Column("seconds", lambda each: f"{each.seconds:.2f}"),
        Column("message", lambda each: each.message),
        Column("again at", lambda each: each.again_at, wide=True),
        Column("id", lambda each: each.event, wide=True),
    ),
    name=lambda each: str(each.sequence),
    id=lambda each: f"{each.sequence}/{each.attempt}",
    empty="nothing was sent yet",
)
DEAD = Kind[DeadLetter](
    columns=(
        Column("webhook", lambda each: each.webhook),
        Column("event", lambda each: each.sequence, firm=True),
        Column("type", lambda each: _short(each.type)),
        Column("attempts", lambda each: each.attempts),
        Column("age", lambda each: age(each.at)),
        Column("reason", lambda each: each.reason),
        Column("id", lambda each: each.event, wide=True),
    ),
    name=lambda each: f"{each.webhook}/{each.sequence}",
    id=lambda each: f"{each.webhook}/{each.sequence}",
    empty="no dead letters",
)

name_argument = click.argument("name", metavar="NAME", shell_complete=webhook_names)
events_argument = click.argument("events", metavar="[EVENT]...", type=click.IntRange(1), nargs=-1)


class From(click.ParamType[StartAt]):
    """A place in the record: ``beginning``, an event's number, a duration ago (``2h``), or a time (RFC 3339)."""

    name = "start"
    _AGO = re.compile(r"(?=.*[hms])[0-9.hms]+")

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> StartAt:
        text = str(value).strip()
        if isinstance(value, StartAt):
            return value
        if text == "beginning":
            return StartAt(after=0)
        if text.isdecimal():
            return StartAt(after=max(int(text) - 1, 0))
        if self._AGO.fullmatch(text):
            seconds = Duration().convert(text, param, ctx)
            return StartAt(since=timestamp(datetime.fromtimestamp(time.time() - seconds, UTC)))
        try:
            return StartAt(since=timestamp(parse_timestamp(text)))
        except ValueError:
            self.fail(f"{text!r} is no place in the record; write beginning, 1200, 2h or 2026-02-01T12:00Z", param, ctx)


@click.group()
def webhook() -> None:
    """Events sent on as HTTP requests: signed, tried again, put aside when they can't be delivered."""


@webhook.command()
@click.argument("name", metavar="NAME")
@click.option("--url", required=True, help="Where to send to: https://host/path.")
@click.option("--type", "types", multiple=True, help="Only these events: image.saved, copy, '*.failed'; repeatable.")
@click.option("--site", "sites", multiple=True, shell_complete=site_names, help="Only of this site; repeatable.")
@click.option("--app", "apps", multiple=True, shell_complete=app_names, help="Only about this app; repeatable.")
@click.option("--from", "start", type=From(), default=None, help="Begin in the past: beginning, 1200, 2h or a time.")
@click.option("--attempts", type=int, default=20, show_default=True, help="How often an event is tried.")
@click.option("--timeout", type=Duration(), default=15.0, show_default="15s", help="How long an answer may take.")
@document_options
@asynchronous
async def add(
    session: Session,
    name: str,
    url: str,
    types: Sequence[str],
    sites: Sequence[str],
    apps: Sequence[str],
    start: StartAt | None,
    attempts: int,
    timeout: float,
) -> None:
    """Have events sent to a URL from now on.

    What is printed is the secret that signs them (Standard Webhooks): give it to the receiver.
    """
    spec = WebhookSpec(
        url=url, types=tuple(types), sites=tuple(sites), apps=tuple(apps), attempts=attempts, timeout_seconds=timeout
    )
    async with session.client() as client:
        await client.webhooks.add(name, spec, start=start)
        try:
            secret = (await client.webhooks.secret(name)).value
        except ClientError as error:
            session.say(f"{name} is added, but its secret can't be told now: {error}")
            session.say(f"Ask for it when the process 'webhooks' runs: calque webhook secret {name}")
            secret = None
        found = await client.webhooks.get(name)
    if not session.shown({**dict(plain(found)), "secret": secret}):
        click.echo(f"{name}  added")
        if secret is not None:
            click.echo(f"secret  {secret}")


@webhook.command("list")
@client_options
@asynchronous
async def list_webhooks(session: Session) -> None:
    """List webhooks, and how far their deliveries are."""
    async with session.client() as client:
        rows = await _rows(client)
    show_list(session, WEBHOOKS, rows)


@webhook.command()
@name_argument
@client_options
@asynchronous
async def describe(session: Session, name: str) -> None:
    """Show a webhook: what it sends, how far it is, and why it waits."""
    async with session.client() as client:
        await client.webhooks.get(name)
        [row] = await _rows(client, name)
    if session.shown(row, name):
        return
    found, status = row
    show_fields(
        {
            "name": found.name,
            "state": f"{found.state}: {found.reason}" if found.reason else found.state,
            "url": found.spec.url,
            "types": found.spec.types or "all",
            "sites": found.spec.sites or "all",
            "apps": found.spec.apps or "all",
            "attempts": found.spec.attempts,
            "timeout": f"{found.spec.timeout_seconds:g} s",
            "added by": found.added_by,
            "added at": found.added_at,
        }
    )
    if status is None:
        session.say("How far it is can't be told: the process 'webhooks' does not answer.")
        return
    click.echo("")
    show_table(
        ("waiting", "retrying", "dead", "last"), [(status.waiting, status.retrying, status.dead, _outcome(status.last))]
    )


@webhook.command()
@name_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_options
@asynchronous
async def remove(session: Session, name: str, yes: bool) -> None:
    """Send nothing more, and forget the webhook with its dead letters."""
    consequence = f"This removes the webhook {name}, what waits for it and its dead letters."
    confirm(session, kind="webhook", name=name, yes=yes, consequence=consequence)
    async with session.client() as client:
        started = await client.webhooks.remove(name)
    _show_changed(session, started, name, did="removed")


@webhook.command()
@name_argument
@click.option("--reason", default="", help="Why, for those who look.")
@client_options
@asynchronous
async def pause(session: Session, name: str, reason: str) -> None:
    """Send nothing for now; events wait."""
    async with session.client() as client:
        started = await client.webhooks.pause(name, reason=reason)
    _show_changed(session, started, name, did="paused")


@webhook.command()
@name_argument
@client_options
@asynchronous
async def resume(session: Session, name: str) -> None:
    """Go on with the first event that was not delivered."""
    async with session.client() as client:
        started = await client.webhooks.resume(name)
    _show_changed(session, started, name, did="resumed")


@webhook.command()
@name_argument
@click.option("--from", "start", type=From(), required=True, help="beginning, an event's number, 2h, or a time.")
@client_options
@asynchronous
async def replay(session: Session, name: str, start: StartAt) -> None:
    """Send events of the past once more, with the ids that they had. What waits is part of it."""
    async with session.client() as client:
        started = await client.webhooks.replay(name, start=start)
    _show_changed(session, started, name, did="replayed")


@webhook.command()
@name_argument
@document_options
@asynchronous
async def secret(session: Session, name: str) -> None:
    """Print the secret that signs a webhook's deliveries."""
    async with session.client() as client:
        found = await client.webhooks.secret(name)
    if not session.shown({"name": name, "secret": found.value}):
        click.echo(found.value)


@webhook.command()
@name_argument
@document_options
@asynchronous
async def rotate(session: Session, name: str) -> None:
    """Make a new secret and print it. For a day deliveries are signed with the old one too."""
    async with session.client() as client:
        await client.webhooks.get(name)
        before = await client.webhooks.secret(name)
        await client.webhooks.rotate(name)
        found = await _other_than(client, name, before)
    if not session.shown({"name": name, "secret": found.value}):
        click.echo(found.value)


@webhook.command()
@name_argument
@client_options
@asynchronous
async def test(session: Session, name: str) -> int:
    """Send a made-up event now (calque.webhook.test.v1), and say how that went."""
    async with session.client() as client:
        delivery = await client.webhooks.test(name)
    if not session.shown(delivery, name):
        click.echo(f"{name}  {_outcome(delivery)}  {delivery.seconds:.2f} s  {delivery.message}".rstrip())
    return Exit.OK if delivery.outcome == "delivered" else Exit.FAILED


@webhook.command()
@name_argument
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@client_options
@asynchronous
async def deliveries(session: Session, name: str, limit: int) -> None:
    """Show the last attempts, newest last. They are kept for a week, at most 200."""
    async with session.client() as client:
        show_list(session, DELIVERIES, await client.webhooks.deliveries(name, limit=limit))


@webhook.group()
def dead() -> None:
    """Dead letters: events that were given up. They are kept for 90 days."""


@dead.command("list")
@click.argument("name", metavar="[NAME]", required=False, shell_complete=webhook_names)
@client_options
@asynchronous
async def list_dead(session: Session, name: str | None) -> None:
    """List dead letters of one webhook, or of all."""
    async with session.client() as client:
        show_list(session, DEAD, await client.webhooks.dead(name))


@dead.command()
@name_argument
@events_argument
@client_options
@asynchronous
async def retry(session: Session, name: str, events: Sequence[int]) -> int:
    """Try dead letters once more, now: those of the named events, or all. It ends at the first that fails."""
    async with session.client() as client:
        tried = await client.webhooks.retry(name, sequences=events)
    delivered = [each for each in tried.deliveries if each.outcome == "delivered"]
    failed = [each for each in tried.deliveries if each.outcome != "delivered"]
    if not session.shown(tried, name):
        click.echo(f"{name}  {len(delivered)} delivered  {tried.left} left")
        for each in failed:
            session.say(f"event {each.sequence} failed again: {_outcome(each)} {each.message}".rstrip())
    return Exit.FAILED if failed else Exit.OK


@dead.command()
@name_argument
@events_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_options
@asynchronous
async def discard(session: Session, name: str, events: Sequence[int], yes: bool) -> None:
    """Throw dead letters away: those of the named events, or all."""
    what = f"dead letters {', '.join(map(str, events))}" if events else "all dead letters"
    confirm(session, kind="dead letters of", name=name, yes=yes, consequence=f"This throws {what} of {name} away.")
    async with session.client() as client:
        count = await client.webhooks.discard(name, sequences=events)
    if not session.shown({"webhook": name, "discarded": count}, name):
        click.echo(f"{name}  {count} discarded")


async def _other_than(client: Client, name: str, before: Secret) -> Secret:
    """The new secret, when the process that delivers has heard of it."""
    deadline = time.monotonic() + ROTATED_SECONDS
    while (found := await client.webhooks.secret(name)) == before:
        if time.monotonic() > deadline:
            raise client_error(temporary("timeout", f"ask for it in a moment: calque webhook secret {name}"))
        await asyncio.sleep(0.05)
    return found


async def _rows(client: Client, name: str | None = None) -> list[Row]:
    found = await client.webhooks.list(name)
    try:
        known = {each.name: each for each in await client.webhooks.status(name)} if found else {}
    except ClientError:
        known = {}
    return [Row(each, known.get(each.name)) for each in found]


def _show_changed(session: Session, started: Started, name: str, *, did: str) -> None:
    if not session.shown({"webhook": name, "command": started.command}, name):
        click.echo(f"{name}  {did}")


def _outcome(delivery: DeliveryView | None) -> str:
    if delivery is None:
        return ""
    return f"{delivery.outcome} {delivery.status}" if delivery.status else delivery.outcome


def _short(kind: str) -> str:
    return kind.removeprefix("calque.event.").removesuffix(".v1")
