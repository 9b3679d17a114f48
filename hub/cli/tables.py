"""Results for people on stdout: tables that fit the terminal, and one thing as lines of ``name: value``."""

from __future__ import annotations

import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import click

from hub.cli.colour import colour, terminal
from hub.cli.output import printable

_COLOURS = {
    **dict.fromkeys(("running", "UP", "online", "saved", "succeeded", "done", "committed", "bound", "ready"), "green"),
    **dict.fromkeys(("failed", "ERROR", "DOWN", "offline", "lost", "backoff"), "red"),
    **dict.fromkeys(("degraded", "stale", "PENDING", "waiting", "queued", "stopped", "starting"), "yellow"),
}
_GAP = "  "
_SHORTEST = 8


def show_table(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    empty: str = "nothing there",
    firm: frozenset[str] = frozenset(),
    fit: bool = True,
) -> None:
    """Columns as wide as their content; ``empty`` goes to stderr, so that no rows make no output.

    On a terminal that is too narrow the widest columns are cut, but for ``firm`` ones, unless ``fit`` is off.
    """
    lines = table_lines(heads, rows, firm=firm, width=terminal_width() if fit else None)
    if not lines:
        click.echo(empty, err=True)
    for line in lines:
        click.echo(line, color=colour(sys.stdout))


def table_lines(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    firm: frozenset[str] = frozenset(),
    width: int | None = None,
) -> list[str]:
    """The lines of a table, none without rows, at most ``width`` columns wide where that can be done."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        return []
    table = [[head.upper() for head in heads], *cells]
    widths = [max(_width(row[column]) for row in table) for column in range(len(heads))]
    if width is not None:
        _narrow(widths, heads, firm=firm, width=width)
    coloured = colour(sys.stdout)
    lines = []
    for number, row in enumerate(table):
        padded = [_padded(cell, room) for cell, room in zip(row, widths, strict=True)]
        padded[-1] = padded[-1].rstrip()
        if coloured:
            padded = [
                click.style(text, bold=True) if number == 0 else click.style(text, fg=_COLOURS.get(text.strip()))
                for text in padded
            ]
        lines.append(_GAP.join(padded).rstrip())
    return lines


def show_fields(fields: Mapping[str, object]) -> None:
    """One thing as lines of ``name: value``; empty values are left out. Long ones are broken on a terminal."""
    there = {name: _cell(value) for name, value in fields.items() if value not in (None, "", (), {}, [])}
    indent = max((len(name) for name in there), default=0) + 2
    room = (terminal_width() or 10_000) - indent
    for name, text in there.items():
        lines = textwrap.wrap(text, max(room, 20), break_long_words=False, break_on_hyphens=False) or [text]
        click.echo(f"{name + ':':<{indent}}{lines[0]}")
        for line in lines[1:]:
            click.echo(" " * indent + line)


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is, ``None`` when it is none."""
    return shutil.get_terminal_size().columns if terminal(sys.stdout) else None


def _narrow(widths: list[int], heads: Sequence[str], *, firm: frozenset[str], width: int) -> None:
    """Take from the widest column that may be cut, until all of them fit or none can give more."""
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        soft = [
            number
            for number, head in enumerate(heads)
            if head not in firm and widths[number] > max(_SHORTEST, _width(head))
        ]
        if not soft:
            return
        widths[max(soft, key=lambda number: widths[number])] -= 1


def _padded(cell: str, room: int) -> str:
    if _width(cell) > room:
        kept = ""
        for each in cell:
            if _width(kept + each) > room - 1:
                break
            kept += each
        cell = kept + "…"
    return cell + " " * (room - _width(cell))


def _cell(value: object) -> str:
    """One line of printable text: names come from elsewhere, and a terminal obeys control characters."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        text = ", ".join(f"{key}={each}" for key, each in value.items())
    elif isinstance(value, (list, tuple)):
        text = ", ".join(str(each) for each in value)
    else:
        text = str(value)
    return printable(text) or "-"


def _width(text: str) -> int:
    """Columns on a terminal."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
