"""Results for programs on stdout: JSON, YAML, names; and the units in which people are told of sizes and times."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import click
import msgspec
import yaml

from schemas.envelope import parse_timestamp
from schemas.secrets import Secret

Format = Literal["table", "wide", "json", "yaml", "name"]

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


def shown(form: Format, value: object, *, names: Sequence[str] = ()) -> bool:
    """Print ``value`` as a program wants it; ``False`` when ``form`` is one for people, and nothing was printed."""
    if form == "json":
        show_json(value)
    elif form == "yaml":
        click.echo(yaml_text(value), nl=False)
    elif form == "name":
        for name in names:
            click.echo(name)
    else:
        return False
    return True


def shown_line(form: Format, value: object, *, name: str = "") -> bool:
    """One of a stream: a line of JSON (NDJSON), a YAML document, a name; ``False`` when a person is to be told."""
    if form == "json":
        click.echo(json.dumps(plain(value), ensure_ascii=False))
    elif form == "yaml":
        click.echo("---\n" + yaml_text(value), nl=False)
    elif form == "name":
        click.echo(name)
    else:
        return False
    return True


def show_json(value: object) -> None:
    """One JSON document."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def yaml_text(value: object, *, sort: bool = False) -> str:
    """One YAML document, its fields in their own order, or sorted."""
    return str(yaml.safe_dump(plain(value), sort_keys=sort, allow_unicode=True, width=120))


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


def length(seconds: float) -> str:
    """A time as it is given to options: ``2h``, ``1h30m``, ``45s``."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{value}{unit}" for value, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if value]
    return "".join(parts) or "0s"


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


def printable(text: str) -> str:
    """``text`` without control characters."""
    return "".join(
        each if each.isprintable() else " " if each in "\t\n\r" else "\N{REPLACEMENT CHARACTER}" for each in text
    )
