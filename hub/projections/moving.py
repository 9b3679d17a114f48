"""A dump of tables that change meanwhile.

All rows are written while events are taken in, each as it is at some moment or other; it is noted of which of them
events tell in the meantime. Those are written again, until they are few, and the last ones, with all small tables,
while nothing is taken in: that is the moment that the dump is of. Then they are put in their places.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from bus.pieces import Piece
from hub.projections.dump import FEW, TABLES, Place, Table, lines_of, piece_of
from hub.projections.rows import Rows, Unread, by_writer, rows_of
from hub.projections.state import Projections

_encoder = msgspec.json.Encoder()


class _Written(NamedTuple):
    """A big table: the keys that it had, in their order if it means something; its lines with their last keys; rows
    that changed since, ``None`` for one that is gone; and the keys that came since, in their order."""

    table: Table
    keys: list[Any]
    lines: list[tuple[Any, Piece]]
    changed: dict[Any, bytes | None]
    new: list[Any]


class MovingDump:
    """A dump of ``state``. For the thread that changes it, but for :meth:`write` and :meth:`pieces`, which take long
    and are for another one. In this order; and :meth:`close` at the end, whatever happened.
    """

    def __init__(self, state: Projections) -> None:
        self._state = state
        self._written = [_Written(table, _keys(table, state), [], {}, []) for table in TABLES if table.fed_by]
        self._rows = [_rows(written, state) for written in self._written]
        self._waiting: list[tuple[str, str, str]] = []
        self._small: dict[str, list[tuple[Place, bytes | Unread]]] = {}
        state.touched = set()

    def write(self) -> None:
        """Write all rows. Raises what :func:`hub.projections.dump.dump` raises."""
        for written, rows in zip(self._written, self._rows, strict=True):
            for place, line in lines_of(written.table, rows):
                written.lines.append((place[1], piece_of(place, line)))

    def write_changed(self, *, most: int) -> int:
        """Write those again of which events told since, at most so many aggregates; how many are left."""
        if not self._waiting:
            self._waiting, self._state.touched = list(self._state.touched or ()), set()
        for aggregate, writer, id in self._waiting[-most:]:
            for written in self._written:
                if aggregate in written.table.fed_by:
                    self._write_row(written, id if written.table.of_hub else (writer, id))
        del self._waiting[-most:]
        return len(self._waiting) + len(self._state.touched or ())

    def _write_row(self, written: _Written, key: Any) -> None:
        content = written.table.of(self._state)
        row = content.content(key) if isinstance(content, Rows) else _row(content, key)
        if not isinstance(row, Unread):  # one that was not read did not change
            written.changed[key] = None if row is None else row if type(row) is bytes else _encoder.encode(row)

    def finish(self) -> None:
        """Write what is left, and the small tables: this is the moment that the dump is of."""
        while self.write_changed(most=FEW):
            pass
        self._state.touched = None
        for written in self._written:
            if written.table.of_hub:
                written.new.extend(_keys(written.table, self._state)[len(written.keys) :])
        for table in TABLES:
            if not table.fed_by:
                self._small[table.name] = list(lines_of(table, _all(table, self._state)))

    def pieces(self) -> Iterator[Piece]:
        """All of it, the same as :func:`hub.projections.dump.dump_pieces` makes of the state at its last moment."""
        big = {written.table.name: written for written in self._written}
        for table in TABLES:
            written = big.get(table.name)
            if written is None:
                lines: Iterable[tuple[Place, bytes | Unread]] = self._small[table.name]
            else:
                lines = lines_of(table, _as_told(written) if table.of_hub else _sorted(written))
            for place, line in lines:
                yield piece_of(place, line)

    def close(self) -> None:
        """Nobody wants to know any more what events tell of."""
        self._state.touched = None


def _keys(table: Table, state: Projections) -> list[Any]:
    content = table.of(state)
    return [] if isinstance(content, Rows) else list(content)


def _rows(written: _Written, state: Projections) -> Iterator[tuple[Any, Any] | Unread]:
    """The rows that a table has now, each as it is when it is taken."""
    content = written.table.of(state)
    if isinstance(content, Rows):
        return content.held().in_order()
    keys = written.keys if written.table.of_hub else by_writer(written.keys)
    return ((key, row) for key in keys if (row := _row(content, key)) is not None)


def _row(content: dict[Any, Any] | set[Any], key: Any) -> Any:
    return content.get(key) if isinstance(content, dict) else None


def _all(table: Table, state: Projections) -> Iterator[tuple[Any, Any]]:
    """The rows of a small table."""
    content = table.of(state)
    keys = list(content) if table.of_hub else sorted(content)
    return ((key, content[key] if isinstance(content, dict) else None) for key in keys)


def _sorted(written: _Written) -> Iterator[tuple[Any, Any] | Unread]:
    changed = sorted(written.changed)
    at, after = 0, ("", "")
    for last, piece in written.lines:
        end = bisect_right(changed, last, at)
        if end == at:
            yield Unread(after, last, piece)
        else:
            rows: dict[Any, Any] = dict(rows_of(piece.plain()))
            rows.update((key, written.changed[key]) for key in changed[at:end])
            yield from ((key, rows[key]) for key in sorted(rows) if rows[key] is not None)
        at, after = end, last
    yield from ((key, row) for key in changed[at:] if (row := written.changed[key]) is not None)


def _as_told(written: _Written) -> Iterator[tuple[Any, Any] | Unread]:
    """The rows of a table of the hub, from which none ever goes."""
    places = {key: place for place, key in enumerate(written.keys)}
    changed = sorted(places[key] for key in written.changed if key in places)
    at = 0
    for last, piece in written.lines:
        end = bisect_right(changed, places[last], at)
        if end == at:
            yield Unread(("", ""), last, piece)
        else:
            yield from ((key, written.changed.get(key, row)) for key, row in rows_of(piece.plain()))
        at = end
    yield from ((key, written.changed[key]) for key in written.new)
