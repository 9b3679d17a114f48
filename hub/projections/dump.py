"""All tables as bytes, and back: the same state is the same bytes, whatever order of writers it was folded in.

A dump is lines of JSON, each ``{"<table>": [[<key>, <row>], ...]}`` with at most ``ROWS_PER_LINE`` rows. What several
writers feed is sorted by its key, since no order between writers is defined; what the hub alone feeds stays in the
hub's order, which means something (the newest version of a template). Indexes that follow from the rows are not in it.
The position in ``EVENTS`` is not either: it is of the stream, not of the state.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import msgspec

from hub.domain.webhook import Webhook
from hub.projections.apps import AppRow
from hub.projections.images import ContentRow, CopyRow, EntryRow
from hub.projections.operations import CommandRow, OperationRow
from hub.projections.secrets import SecretRow
from hub.projections.sites import BrokerRow
from hub.projections.state import Projections
from hub.projections.templates import TemplateRow
from schemas.events import LocationAdded, SiteAnnounced
from schemas.values import SiteState

ROWS_PER_LINE = 128
"""A line is encoded without letting others run: at most some milliseconds."""
Key = tuple[str, str]


class Line(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line; one of the fields is not empty."""

    taken: list[tuple[str, int]] = []
    stopped: list[tuple[tuple[str, str, str], str]] = []
    templates: list[tuple[str, TemplateRow]] = []
    webhooks: list[tuple[str, Webhook]] = []
    webhooks_added: list[tuple[str, str]] = []
    webhook_commands: list[tuple[str, None]] = []
    entries: list[tuple[str, EntryRow]] = []
    memberships: list[tuple[str, SiteState]] = []
    apps: list[tuple[Key, AppRow]] = []
    contents: list[tuple[Key, ContentRow]] = []
    copies: list[tuple[Key, CopyRow]] = []
    locations: list[tuple[Key, LocationAdded]] = []
    operations: list[tuple[Key, OperationRow]] = []
    commands: list[tuple[Key, CommandRow]] = []
    brokers: list[tuple[Key, BrokerRow]] = []
    announced: list[tuple[str, SiteAnnounced]] = []
    signers: list[tuple[str, str]] = []
    secrets: list[tuple[Key, SecretRow]] = []


class Table(NamedTuple):
    """A field of :class:`Line`: where it lies in the state; ``of_hub`` when the hub alone feeds it, in its order."""

    name: str
    of: Callable[[Projections], dict[Any, Any] | set[Any]]
    of_hub: bool = False


TABLES = (
    Table("taken", lambda state: state.taken),
    Table("stopped", lambda state: state.stopped),
    Table("templates", lambda state: state.templates.rows, of_hub=True),
    Table("webhooks", lambda state: state.webhooks.rows, of_hub=True),
    Table("webhooks_added", lambda state: state.webhooks.added_at, of_hub=True),
    Table("webhook_commands", lambda state: state.webhooks.commands),
    Table("entries", lambda state: state.images.entries, of_hub=True),
    Table("memberships", lambda state: state.sites.states, of_hub=True),
    Table("apps", lambda state: state.apps.rows),
    Table("contents", lambda state: state.images.contents),
    Table("copies", lambda state: state.images.copies),
    Table("locations", lambda state: state.images.locations),
    Table("operations", lambda state: state.operations.rows),
    Table("commands", lambda state: state.operations.commands),
    Table("brokers", lambda state: state.sites.brokers),
    Table("announced", lambda state: state.sites.announced),
    Table("signers", lambda state: state.sites.signers),
    Table("secrets", lambda state: state.secrets.rows),
)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Line)


class Difference(NamedTuple):
    """A row that two dumps do not have in common; ``None`` where there is none."""

    table: str
    key: str
    one: str | None
    other: str | None


def dump(state: Projections) -> bytes:
    """All of ``state``. Raises ``OverflowError`` or ``TypeError`` for a value that no JSON can hold."""
    return b"".join(dump_lines(state))


def dump_lines(state: Projections) -> Iterator[bytes]:
    """The same, line by line. ``state`` must not change before the last one is taken."""
    for table in TABLES:
        content = table.of(state)
        keys: Sequence[Any] = list(content) if table.of_hub else sorted(content)
        for start in range(0, len(keys), ROWS_PER_LINE):
            part = keys[start : start + ROWS_PER_LINE]
            if isinstance(content, dict):
                yield _encoder.encode({table.name: [(key, content[key]) for key in part]}) + b"\n"
            else:
                yield _encoder.encode({table.name: [(key, None) for key in part]}) + b"\n"


def load(data: bytes) -> Projections:
    """The state that ``data`` is the dump of, with no position. Raises ``msgspec.DecodeError``."""
    return load_lines(data.splitlines())


def load_lines(lines: Iterable[bytes]) -> Projections:
    """The same from lines. Garbage is not collected meanwhile: a load makes millions of objects and drops few."""
    state = Projections()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for line in lines:
            read = _decoder.decode(line)
            for table in TABLES:
                rows = getattr(read, table.name)
                if rows:
                    content = table.of(state)
                    if isinstance(content, dict):
                        content.update(rows)
                    else:
                        content.update(key for key, _ in rows)
        state.apps.index()
        state.images.index()
        state.operations.index()
    finally:
        if collecting:
            gc.enable()
    return state


def differences(one: Iterable[bytes], other: Iterable[bytes], *, most: int = 20) -> list[Difference]:
    """The first rows in which two dumps differ, by table and key. Empty when they are the same."""
    found: list[Difference] = []
    rest: tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]] = ({}, {})
    # Lines that are the same hold the same rows: only the others are looked into.
    for line, counterpart in zip_longest(one, other):
        if line != counterpart:
            for side, text in zip(rest, (line, counterpart), strict=True):
                for table, key, row in _rows(text):
                    side.setdefault(table, {})[key] = row
    for table in (each.name for each in TABLES):
        left, right = (side.get(table, {}) for side in rest)
        for key in sorted(left.keys() | right.keys()):
            if left.get(key) != right.get(key):
                found.append(Difference(table, key, left.get(key), right.get(key)))
        if not found and list(left) != list(right):
            found.append(Difference(table, "(order)", " ".join(left), " ".join(right)))
        if len(found) >= most:
            break
    return found[:most]


def _rows(line: bytes | None) -> Iterator[tuple[str, str, str]]:
    if line is None:
        return
    for table, rows in msgspec.json.decode(line, type=dict[str, list[tuple[msgspec.Raw, msgspec.Raw]]]).items():
        for key, row in rows:
            named = msgspec.json.decode(key)
            yield table, named if isinstance(named, str) else "/".join(named), bytes(row).decode()
