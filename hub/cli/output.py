"""Results on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from hub.cli.exits import colour
from schemas.envelope import parse_timestamp
from schemas.secrets import Secret

_COLOURS = {
    **dict.fromkeys(("running", "UP", "online", "saved", "succeeded", "done", "committed", "bound"), "green"),
    **dict.fromkeys(("failed", "ERROR", "DOWN", "offline", "lost"), "red"),
    **dict.fromkeys(("degraded", "stale", "PENDING", "waiting", "queued"), "yellow"),
}
_SPACES = str.maketrans("\t\n\r", "   ")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def plain(value: object) -> Any:
    """``value`` as JSON types with every field, also those that have their default. Secrets are masked."""
    if isinstance(value, Secret):
        return "***"
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    if isinstance(value, msgspec.Struct):
        return {field: plain(getattr(value, field)) for field in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    return value


def show_json(value: object) -> None:
    """One JSON document."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def show_line(value: object) -> None:
    """One line of a stream of JSON documents (NDJSON)."""
    click.echo(json.dumps(plain(value), ensure_ascii=False))


def show_table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "nothing there") -> None:
    """Columns as wide as their content; ``empty`` goes to stderr, so that no rows make no output."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        click.echo(empty, err=True)
        return
    table = [[head.upper() for head in heads], *cells]
    widths = [max(_width(row[column]) for row in table) for column in range(len(heads))]
    coloured = colour(sys.stdout)
    for number, row in enumerate(table):
        padded = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        if coloured:
            padded = [
                click.style(text, bold=True) if number == 0 else click.style(text, fg=_COLOURS.get(text.strip()))
                for text in padded
            ]
        click.echo("   ".join(padded).rstrip(), color=coloured)


def show_fields(fields: Mapping[str, object]) -> None:
    """One thing as lines of ``name: value``; empty values are left out."""
    shown = {name: _cell(value) for name, value in fields.items() if value not in (None, "", (), {}, [])}
    width = max((len(name) for name in shown), default=0)
    for name, text in shown.items():
        click.echo(f"{name + ':':<{width + 2}}{text}")


def size(bytes_: int | float | None) -> str:
    """``12.3 MiB``"""
    if bytes_ is None:
        return ""
    value = float(bytes_)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def seconds(value: float | None) -> str:
    """``1.2 s``, ``3 m 05 s``"""
    if value is None:
        return ""
    if value < 60:
        return f"{value:.1f} s" if value >= 1 or value == 0 else f"{value * 1000:.0f} ms"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m" if hours else f"{minutes} m {rest:02d} s"


def age(timestamp: str, *, now: datetime | None = None) -> str:
    """How long ago, in the biggest unit."""
    if not timestamp:
        return ""
    try:
        passed = ((now or datetime.now(UTC)) - parse_timestamp(timestamp)).total_seconds()
    except ValueError:
        return timestamp
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if passed >= length:
            return f"{passed // length:.0f}{unit}"
    return f"{max(passed, 0):.0f}s"


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


def printable(text: str) -> str:
    """``text`` without control characters."""
    return "".join(
        each if each.isprintable() else " " if each in "\t\n\r" else "\N{REPLACEMENT CHARACTER}" for each in text
    )


def _width(text: str) -> int:
    """Columns on a terminal."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
