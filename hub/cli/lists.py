"""Lists, once or watched: redrawn in place on a terminal, told change by change elsewhere."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import click

from hub.cli.colour import colour, terminal
from hub.cli.kinds import Kind
from hub.cli.output import shown_line
from hub.cli.session import Session
from hub.cli.tables import show_table, table_lines, terminal_width
from hub.client import Client, HubUnreachableError

T = TypeVar("T")
Fetch = Callable[[Client], Awaitable[Sequence[T]]]

EVERY_SECONDS = 1.0
_MIXED_FORMS = ("json", "yaml", "name")


async def show_or_watch(session: Session, kind: Kind[T], fetch: Fetch[T], *, watch: bool) -> None:
    """What ``fetch`` finds; with ``watch`` also every change, until interrupted."""
    async with session.client() as client:
        items = await fetch(client)
        if not watch:
            show_list(session, kind, items)
        elif session.format in _MIXED_FORMS:
            await _tell_changes(session, kind, items, client, fetch)
        else:
            await _redraw(session, kind, items, client, fetch)


def show_list(session: Session, kind: Kind[T], items: Sequence[T]) -> None:
    """The list in the form that is wanted."""
    if session.shown(items, *kind.names(items)):
        return
    columns = kind.chosen(session.format)
    show_table(
        [column.head for column in columns],
        [[column.value(item) for column in columns] for item in items],
        empty=kind.empty,
        firm=frozenset(column.head for column in columns if column.firm),
        fit=session.format != "wide",
    )


def changes(kind: Kind[T], before: Sequence[T], now: Sequence[T]) -> list[tuple[str, T]]:
    """``added``, ``changed`` and ``removed`` things, by their ids."""
    old, new = ({kind.id(item): item for item in items} for items in (before, now))
    found = [
        ("added" if id not in old else "changed", item) for id, item in new.items() if id not in old or old[id] != item
    ]
    return [*found, *(("removed", item) for id, item in old.items() if id not in new)]


async def _tell_changes(session: Session, kind: Kind[T], items: Sequence[T], client: Client, fetch: Fetch[T]) -> None:
    before: Sequence[T] = ()
    while True:
        for change, item in changes(kind, before, items):
            shown_line(session.format, {"change": change, "object": item}, name=kind.name(item))
        sys.stdout.flush()
        before = items
        items = await _next(session, client, fetch)


async def _redraw(session: Session, kind: Kind[T], items: Sequence[T], client: Client, fetch: Fetch[T]) -> None:
    in_place = terminal(sys.stdout)
    drawn: list[str] | None = None
    while True:
        lines = _lines(session, kind, items, in_place=in_place)
        if in_place and drawn is not None:
            click.echo(f"\x1b[{len(drawn)}F\x1b[J" if drawn else "", nl=False)
        elif drawn is not None and lines != drawn:
            click.echo("")
        if in_place or lines != drawn:
            for line in lines:
                click.echo(line, color=colour(sys.stdout))
        drawn = lines
        sys.stdout.flush()
        items = await _next(session, client, fetch)


def _lines(session: Session, kind: Kind[T], items: Sequence[T], *, in_place: bool) -> list[str]:
    columns = kind.chosen(session.format)
    lines = table_lines(
        [column.head for column in columns],
        [[column.value(item) for column in columns] for item in items],
        firm=frozenset() if in_place else frozenset(column.head for column in columns if column.firm),
        width=terminal_width(),
    ) or [kind.empty]
    # What scrolled out of sight can't be drawn again.
    return lines[: max(shutil.get_terminal_size().lines - 1, 2)] if in_place else lines


async def _next(session: Session, client: Client, fetch: Fetch[T]) -> Sequence[T]:
    """What there is after a while; a hub that is away is waited for."""
    told = False
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            return await fetch(client)
        except HubUnreachableError as error:
            if not told and not terminal(sys.stdout):
                session.say(f"calque: {error.problem.sentence()}; going on when it is back")
            told = True
