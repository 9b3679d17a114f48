"""``events``, ``subscription ...``: what happened, and the places in it that readers keep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import msgspec
from click.shell_completion import CompletionItem

from bus.events import Recorded
from hub.cli.completion import app_names, live, site_names
from hub.cli.kinds import SUBSCRIPTIONS
from hub.cli.lists import show_list
from hub.cli.options import client_options, document_options, stack_options
from hub.cli.output import printable, shown_line
from hub.cli.session import Session, asynchronous, confirm
from hub.cli.values import Duration
from hub.client import Client, NotFoundError
from hub.client.history import EventFilter
from schemas.envelope import parse_timestamp
from schemas.problems import not_found


class Moment(click.ParamType[datetime]):
    """A moment: how long ago (``90s``, ``2m``, ``1h30m``), or RFC 3339."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return parse_timestamp(str(value))
        except ValueError:
            return datetime.now(UTC) - timedelta(seconds=Duration().convert(value, param, ctx))


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with those that come.")
@click.option("--after", type=click.IntRange(0), default=None, metavar="N", help="Only after this sequence.")
@click.option("--from-sequence", type=click.IntRange(1), default=None, metavar="N", help="Only from this sequence on.")
@click.option("--since", type=Moment(), default=None, help="Only since then: 90s, 2m, 1h30m ago, or RFC 3339.")
@click.option("--site", default=None, shell_complete=site_names, help="Only those written by this site, or by 'hub'.")
@click.option("--aggregate", default=None, metavar="KIND[/ID]", help="Only those about this, such as image/ID.")
@click.option("--type", "kind", default=None, help="Only types with this in them, such as copy.committed.")
@click.option(
    "--app", "apps", multiple=True, shell_complete=app_names, help="Only those about this app; may be repeated."
)
@click.option(
    "--durable", metavar="NAME", default=None, help="Keep the place under this name, and go on there the next time."
)
@document_options
@asynchronous
async def events(
    session: Session,
    follow: bool,
    after: int | None,
    from_sequence: int | None,
    since: datetime | None,
    site: str | None,
    aggregate: str | None,
    kind: str | None,
    apps: tuple[str, ...],
    durable: str | None,
) -> None:
    """Show what happened, as it was recorded. With -f and without a point in the past: from now on.

    As JSON: one CloudEvents envelope per line, with its "sequence" in the record.

    About an app are its own events and those that operations on it wrote. With --durable each event is acknowledged
    when it is printed; who is interrupted gets the next one the next time. --type is a whole type then (copy.committed)
    or a kind (copy), and a subscription that is there keeps its place and its filters.
    """
    if [after, from_sequence, since].count(None) < 2:
        raise click.UsageError("--after, --from-sequence and --since each say where to begin: give one of them")
    if durable is not None and aggregate is not None:
        raise click.UsageError("--durable knows no --aggregate: use --type or --app")
    begin = after if from_sequence is None else from_sequence - 1
    async with session.client() as client:
        ids = [(await client.app(each)).id for each in apps]
        if durable is not None:
            reading = client.subscribe(
                durable,
                start="new" if follow else "first",
                sequence=None if begin is None else begin + 1,
                since=since,
                sites=[site] if site else None,
                types=[kind] if kind else None,
                apps=ids or None,
                follow=follow,
            )
            async with reading as found:
                async for each in found:
                    _show(session, each.recorded)
            return
        wanted = EventFilter(site=site, aggregate=aggregate, type=kind)
        async for event in client.events(after=begin, since=since, follow=follow, wanted=wanted, apps=ids):
            _show(session, event)


def _show(session: Session, event: Recorded) -> None:
    if shown_line(session.format, {"sequence": event.sequence, **_fields(event.envelope)}):
        return
    name = event.envelope.type.removeprefix("calque.event.").removesuffix(".v1")
    data = msgspec.json.decode(event.envelope.data)
    shown = ", ".join(f"{key}={_short(value)}" for key, value in data.items())
    click.echo(f"{event.sequence}  {event.envelope.time}  {event.writer}  {name}  {event.id}  {shown}".rstrip())


@click.group()
def subscription() -> None:
    """Durable subscriptions: places in the record of events, kept under a name until they are deleted."""


async def _subscriptions(client: Client, _: click.Context) -> list[tuple[str, str]]:
    return [(place.name, f"{place.pending} to come") for place in await client.subscriptions()]


def subscription_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The sender's own subscriptions."""
    return live(_subscriptions)(ctx, param, incomplete)


@subscription.command("list")
@click.option("--principal", default=None, metavar="NAME", help="Those of this principal (for operators).")
@click.option("--all", "everybody", is_flag=True, help="Those of all principals (for operators).")
@client_options
@asynchronous
async def list_subscriptions(session: Session, principal: str | None, everybody: bool) -> None:
    """List one's own subscriptions: how far each is, and how much is still to come."""
    async with session.client() as client:
        found = await client.subscriptions(principal=principal, everybody=everybody)
    show_list(session, SUBSCRIPTIONS, found)


@subscription.command()
@click.argument("name", shell_complete=subscription_names)
@click.option("--principal", default=None, metavar="NAME", help="That of this principal (for operators).")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@stack_options
@asynchronous
async def delete(session: Session, name: str, principal: str | None, yes: bool) -> None:
    """Delete a subscription: its place in the record is forgotten. Events stay."""
    consequence = "Its reader begins anew, and gets no event of the time between."
    confirm(session, kind="subscription", name=name, yes=yes, consequence=consequence)
    async with session.client() as client:
        if not await client.unsubscribe(name, principal=principal):
            message = f"there is no subscription {name!r}"
            raise NotFoundError(not_found("name", message, "see 'calque subscription list'"))
    session.say(f"subscription {name} deleted")


def _fields(envelope: msgspec.Struct) -> dict[str, object]:
    return {field: value for field in envelope.__struct_fields__ if (value := getattr(envelope, field)) is not None}


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "{...}" if value else "{}"
    if isinstance(value, list):
        return f"[{len(value)}]"
    text = printable(str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
