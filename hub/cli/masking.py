"""``mask ...``: what masking rules would do to a running app. Nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from hub.cli.apps import site_option
from hub.cli.completion import app_names
from hub.cli.exits import Exit
from hub.cli.options import client_options
from hub.cli.output import plain
from hub.cli.session import Session, asynchronous
from hub.cli.tables import show_table
from hub.client import Client
from hub.client.errors import InvalidError, NotFoundError
from hub.manifest import load_rules
from schemas.brokers import MaskedRows, MaskingPreview
from schemas.masking import Masking
from schemas.problems import invalid, not_found
from schemas.queries import AppView
from schemas.values import Template

ROWS = 5
MOST_ROWS = 50

_what = click.argument("name", metavar="APP|TEMPLATE[@VERSION]", shell_complete=app_names)
rules_option = click.option(
    "--rules",
    "rules_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    metavar="FILE",
    help="Masking rules by data service, in place of the template's.",
)
_data_service_option = click.option(
    "--data-service", "only", default=None, metavar="NAME", help="Only this data service; else all that have rules."
)


class Shown(NamedTuple):
    """What rules do to one data service of an app; ``preview`` is ``None`` where it is kept as a whole."""

    data_service: str
    preview: MaskingPreview | None


@click.group()
def mask() -> None:
    """Masking: what rules do to the data of an app, before it is saved masked."""


@mask.command()
@_what
@rules_option
@_data_service_option
@click.option(
    "--rows", type=click.IntRange(1, MOST_ROWS), default=ROWS, show_default=True, help="So many of each table."
)
@click.option("--before", is_flag=True, help="Also the rows as they are: real data, on your terminal.")
@site_option
@client_options
@asynchronous
async def preview(
    session: Session, name: str, rules_file: Path | None, only: str | None, rows: int, before: bool, site: str | None
) -> int:
    """Show rows of a running app as they would be masked. Nothing is stored.

    Of a template, its one running app is meant. Values are made with a key of this preview alone: a save makes others.
    """
    async with session.client() as client:
        found = await _shown(client, name, rules_file, only=only, rows=rows, before=before, site=site)
    if not session.shown(_plain(found)):
        for each in found:
            _show_rows(each)
        _show_kept(found)
    return _told(session, found)


@mask.command()
@_what
@rules_option
@_data_service_option
@site_option
@client_options
@asynchronous
async def check(session: Session, name: str, rules_file: Path | None, only: str | None, site: str | None) -> int:
    """Check masking rules against the schema of a running app: what becomes of each column, how many rows are kept, and
    what would refuse a save. No rows are shown."""
    async with session.client() as client:
        found = await _shown(client, name, rules_file, only=only, site=site)
    if not session.shown(_plain(found)):
        show_table(
            ("data service", "table", "column", "type", "becomes", "by rule"),
            [
                (each.data_service, column.table, column.column, column.type, column.transformer or "-", column.rule)
                for each in found
                if each.preview
                for column in each.preview.columns
            ],
            empty="no columns",
        )
        _show_kept(found)
    return _told(session, found)


async def _shown(
    client: Client,
    name: str,
    rules_file: Path | None,
    *,
    only: str | None,
    rows: int = 0,
    before: bool = False,
    site: str | None,
) -> list[Shown]:
    app, template = await _app(client, name, site=site)
    there = {each.name for each in app.data_services}
    if rules_file is not None:
        rules = load_rules(rules_file)
    else:
        written = template.data_services.items()
        rules = {each: spec.masking for each, spec in written if spec.masking is not None and each in there}
    if only is not None:
        rules = {each: one for each, one in rules.items() if each == only}
    if not rules:
        what = f"data service {only!r}" if only else f"template {app.template}"
        raise InvalidError(invalid("rules", f"there are no masking rules for {what}", "name a file of rules: --rules"))
    if unknown := sorted(rules.keys() - there):
        listed = ", ".join(sorted(there)) or "none"
        message = f"app {app.name!r} has no data service {unknown[0]!r}"
        raise NotFoundError(not_found("rules", message, f"it has: {listed}"))
    return [Shown(each, await _asked(client, app, each, one, rows=rows, before=before)) for each, one in rules.items()]


async def _asked(
    client: Client, app: AppView, data_service: str, rules: Masking, *, rows: int, before: bool
) -> MaskingPreview | None:
    if rules.keep:
        return None
    return await client.preview_masking(app.id, data_service, rules, rows=rows, before=before, site=app.site)


async def _app(client: Client, name: str, *, site: str | None) -> tuple[AppView, Template]:
    """The app that is meant, and its template."""
    try:
        app = await client.app(name, site=site)
    except NotFoundError as error:
        plain_name, _, version = name.partition("@")
        running = [
            each
            for each in await client.apps(site=site)
            if each.template.partition("@")[0] == plain_name and version in ("", each.template.partition("@")[2])
        ]
        if not running:
            raise error from None
        if len(running) > 1:
            listed = ", ".join(each.name for each in running)
            raise InvalidError(
                invalid("app", f"several apps of template {name!r} run", f"name one: {listed}")
            ) from None
        app = running[0]
    template, _, version = app.template.partition("@")
    return app, await client.template(template, version=version)


def _plain(found: list[Shown]) -> dict[str, object]:
    return {each.data_service: plain(each.preview) if each.preview else {"keep": True} for each in found}


def _show_rows(each: Shown) -> None:
    if each.preview is None:
        click.echo(f"{each.data_service}: kept as a whole")
        return
    for table in each.preview.rows:
        click.echo(f"\n{each.data_service}: {table.table}")
        heads = ("", *table.columns) if table.before else table.columns
        show_table(heads, list(_lines(table)), empty="no rows")


def _show_kept(found: list[Shown]) -> None:
    """How much is kept of the tables that lose rows."""
    lines = [
        (each.data_service, share.table, share.rows, share.kept, share.rule or "by what it refers to")
        for each in found
        if each.preview
        for share in each.preview.tables
    ]
    if lines:
        click.echo("")
        show_table(("data service", "table", "rows", "kept", "by rule"), lines, empty="")


def _lines(table: MaskedRows) -> Iterator[tuple[object, ...]]:
    for number, after in enumerate(table.after):
        made = tuple("NULL" if value is None else value for value in after)
        if not table.before:
            yield made
            continue
        yield ("before", *("NULL" if value is None else value for value in table.before[number]))
        yield ("after", *made)


def _told(session: Session, found: list[Shown]) -> int:
    """What speaks against the rules goes to stderr, and makes the program fail."""
    bad = False
    for each in found:
        if each.preview is None:
            continue
        for problem in each.preview.problems:
            bad = True
            click.echo(f"{each.data_service}: {problem.sentence()}", err=True)
        for rule in each.preview.unused:
            session.say(f"{each.data_service}: rule {rule!r} fits nothing")
        for note in each.preview.notes:
            session.say(f"{each.data_service}: {note}")
    return Exit.FAILED if bad else Exit.OK
