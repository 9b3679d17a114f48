"""All tables as bytes, and back: the same state is the same bytes, whatever order of writers it was folded in.

A dump is lines of JSON, each ``{"<table>": [[<key>, <row>], ...]}``. What several writers feed is sorted by its key,
since no order between writers is defined; what the hub alone feeds stays in the hub's order, which means something (the
newest version of a template). Where a line ends follows from the key of its last row alone, so that a row more or less
changes one line and leaves the others as they are. Indexes that follow from the rows are not in it. The position in
``EVENTS`` is not either: it is of the stream, not of the state.

In a snapshot each line is a piece of its own. Lines of tables that are seldom asked for are loaded as they are
(:mod:`hub.projections.rows`), and dumped as they are when nobody asked in the meantime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from bus.pieces import Piece
from hub.domain.webhook import Webhook
from hub.projections.apps import AppRow
from hub.projections.images import EntryRow
from hub.projections.operations import CommandRow, OperationRow
from hub.projections.quick import no_collection
from hub.projections.rows import Key, Rows, Unread, ends_piece, rows_of
from hub.projections.secrets import SecretRow
from hub.projections.sites import BrokerRow
from hub.projections.state import Projections
from hub.projections.templates import TemplateRow
from schemas.events import LocationAdded, SiteAnnounced
from schemas.values import SiteState

FEW = 32
"""Rows in a line, on average: of big rows that are read when somebody asks for one of them ..."""
MANY = 128
"""... and of others. A line is encoded without letting others run: at most some milliseconds."""


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
    contents: list[tuple[Key, msgspec.Raw]] = []
    copies: list[tuple[Key, msgspec.Raw]] = []
    locations: list[tuple[Key, LocationAdded]] = []
    operations: list[tuple[Key, OperationRow]] = []
    ended: list[tuple[Key, msgspec.Raw]] = []
    commands: list[tuple[Key, CommandRow]] = []
    brokers: list[tuple[Key, BrokerRow]] = []
    announced: list[tuple[str, SiteAnnounced]] = []
    signers: list[tuple[str, str]] = []
    secrets: list[tuple[Key, SecretRow]] = []


class Table(NamedTuple):
    """A field of :class:`Line`: where it lies in the state; ``of_hub`` when the hub alone feeds it, in its order; a
    line ends after one in ``every`` rows. ``fed_by`` are the aggregates whose events change a row, and no other row of
    it than that with the key ``(writer, id)``, or ``id`` in a table of the hub; empty for a small table."""

    name: str
    of: Callable[[Projections], dict[Any, Any] | set[Any] | Rows[Any]]
    of_hub: bool = False
    every: int = MANY
    fed_by: tuple[str, ...] = ()


TABLES = (
    Table("taken", lambda state: state.taken),
    Table("stopped", lambda state: state.stopped),
    Table("templates", lambda state: state.templates.rows, of_hub=True),
    Table("webhooks", lambda state: state.webhooks.rows, of_hub=True),
    Table("webhooks_added", lambda state: state.webhooks.added_at, of_hub=True),
    Table("webhook_commands", lambda state: state.webhooks.commands),
    Table("entries", lambda state: state.images.entries, of_hub=True, fed_by=("catalog",)),
    Table("memberships", lambda state: state.sites.states, of_hub=True),
    Table("apps", lambda state: state.apps.rows, fed_by=("instance",)),
    Table("contents", lambda state: state.images.contents, every=FEW, fed_by=("image",)),
    Table("copies", lambda state: state.images.copies, every=FEW, fed_by=("copy",)),
    Table("locations", lambda state: state.images.locations, fed_by=("location",)),
    Table("operations", lambda state: state.operations.rows, fed_by=("operation",)),
    Table("ended", lambda state: state.operations.ended, every=FEW, fed_by=("operation",)),
    Table("commands", lambda state: state.operations.commands, fed_by=("command",)),
    Table("brokers", lambda state: state.sites.brokers),
    Table("announced", lambda state: state.sites.announced),
    Table("signers", lambda state: state.sites.signers),
    Table("secrets", lambda state: state.secrets.rows),
)

Place = tuple[str, Any]
"""The table of a line, and the key of its last row."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Line)
_label = msgspec.json.Decoder(tuple[str, str | tuple[str, ...]])
_TABLES = {table.name: table for table in TABLES}


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
    for _, line in _lines(state):
        yield line.piece.plain() if isinstance(line, Unread) else line


def dump_pieces(state: Projections) -> Iterator[Piece]:
    """The same as pieces of a snapshot. What is to be dumped is noted before this returns, and the pieces are made as
    they are taken: that may be in another thread. ``state`` must not change before the last one is taken, but may be
    asked."""
    return (piece_of(place, line) for place, line in _lines(state))


def piece_of(place: Place, line: bytes | Unread) -> Piece:
    """A line as a piece of a snapshot."""
    return line.piece if isinstance(line, Unread) else Piece.of(_encoder.encode(place), line)


def _lines(state: Projections) -> Iterator[tuple[Place, bytes | Unread]]:
    held: list[tuple[Table, Callable[[], Iterable[tuple[Any, Any] | Unread]]]] = []
    for table in TABLES:
        content = table.of(state)
        if isinstance(content, Rows):
            held.append((table, content.held().in_order))
        else:
            row = content.__getitem__ if isinstance(content, dict) else _nothing
            held.append((table, partial(_in_order, list(content), row, as_is=table.of_hub)))
    return chain.from_iterable(lines_of(table, rows()) for table, rows in held)


def _in_order(keys: list[Any], row: Callable[[Any], Any], *, as_is: bool) -> Iterator[tuple[Any, Any]]:
    """The rows of a table that is a dictionary or a set."""
    return ((key, row(key)) for key in (keys if as_is else sorted(keys)))


def _nothing(_key: Any) -> None:
    """The row of a set."""


def lines_of(table: Table, rows: Iterable[tuple[Any, Any] | Unread]) -> Iterator[tuple[Place, bytes | Unread]]:
    """``rows`` in lines. A piece that was not read stands for its rows, and is a line if they are just those of one."""
    waiting: list[tuple[Any, Any]] = []

    def line() -> tuple[Place, bytes]:
        encoded = _encoder.encode({table.name: waiting}) + b"\n"
        place = table.name, waiting[-1][0]
        waiting.clear()
        return place, encoded

    for each in rows:
        if not isinstance(each, Unread):
            waiting.append((each[0], msgspec.Raw(each[1]) if type(each[1]) is bytes else each[1]))
        elif waiting or not ends_piece(each.last, every=table.every):
            # What was the last row before it is gone, or it was the end of the table: its rows are in other lines now.
            waiting.extend(rows_of(each.piece.plain()))
        else:
            yield (table.name, each.last), each
            continue
        if ends_piece(waiting[-1][0], every=table.every):
            yield line()
    if waiting:
        yield line()


def load(data: bytes) -> Projections:
    """The state that ``data`` is the dump of, with no position. Raises ``msgspec.DecodeError``."""
    return _loaded(_decoder.decode(line) for line in data.splitlines())


def load_pieces(pieces: Iterable[Piece]) -> Projections:
    """The same from the pieces of a snapshot. Raises also :class:`bus.pieces.Unsound`."""
    state = Projections()
    return _loaded(_lines_read(pieces, state), state)


def _lines_read(pieces: Iterable[Piece], state: Projections) -> Iterator[Line]:
    """The lines in ``pieces``, but for those that are left as they are."""
    for piece in pieces:
        name, last = _label.decode(piece.label)
        content = _TABLES[name].of(state) if name in _TABLES else None
        if isinstance(content, Rows) and isinstance(last, tuple) and len(last) == 2:
            content.put((last[0], last[1]), piece)
        else:
            yield _decoder.decode(piece.plain())


def _loaded(lines: Iterable[Line], state: Projections | None = None) -> Projections:
    """Garbage is not collected meanwhile: a load makes millions of objects and drops few."""
    state = state or Projections()
    with no_collection():
        for line in lines:
            for table in TABLES:
                rows = getattr(line, table.name)
                if not rows:
                    continue
                content = table.of(state)
                if isinstance(content, dict):
                    content.update(rows)
                elif isinstance(content, Rows):
                    content.fill(rows)
                else:
                    content.update(key for key, _ in rows)
        state.apps.index()
        state.images.index()
        state.operations.index()
        state.sites.index()
    return state


def differences(one: Iterable[bytes], other: Iterable[bytes], *, most: int = 20) -> list[Difference]:
    """The first rows in which two dumps differ, by table and key. Empty when they are the same."""
    found: list[Difference] = []
    rest: tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]] = ({}, {})
    # Lines that are the same hold the same rows: only the others are looked into.
    lines = list(one), list(other)
    for side, mine, others in zip(rest, lines, (set(lines[1]), set(lines[0])), strict=True):
        for line in mine:
            if line not in others:
                for table, key, row in _rows(line):
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


def _rows(line: bytes) -> Iterator[tuple[str, str, str]]:
    for table, rows in msgspec.json.decode(line, type=dict[str, list[tuple[msgspec.Raw, msgspec.Raw]]]).items():
        for key, row in rows:
            named = msgspec.json.decode(key)
            yield table, named if isinstance(named, str) else "/".join(named), bytes(row).decode()
