"""Rows on their way: lines of COPY's text format, in which only the masked columns are looked at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from brokers.masking.transformers import CannotMask, Change
from schemas.problems import CalqueError, permanent

REMEMBERED: Final = 20_000
"""So many values of a column are remembered with what became of them; then it is begun anew."""
LONGEST_REMEMBERED: Final = 256
_NULL: Final = b"\\N"
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_MEANT: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_SPECIAL = re.compile(rb"[\b\f\n\r\t\v\\]")
_WRITTEN: Final = {meant: b"\\" + letter for letter, meant in _MEANT.items()} | {b"\\": b"\\\\"}


class MaskedColumn(NamedTuple):
    """A column that is changed: its place in the row, and that of the column that a shift goes ``by`` (or -1)."""

    name: str
    place: int
    change: Change
    by: int = -1


class RowMask:
    """Changes the masked columns of one table's rows. One for each pass: it keeps the start of an unfinished line."""

    def __init__(self, table: str, columns: Sequence[MaskedColumn]) -> None:
        self._table = table
        self._columns = tuple((column, {_NULL: _NULL}) for column in columns)
        self._split = max((max(column.place, column.by) for column in columns), default=0) + 1
        self._rest = b""

    def feed(self, block: bytes) -> bytes:
        """The whole lines that ``block`` completes, changed. Raises :class:`CalqueError` for what can't be masked."""
        lines = (self._rest + bytes(block) if self._rest else bytes(block)).split(b"\n")
        self._rest = lines.pop()
        if not lines:
            return b""
        split, columns, changed = self._split, self._columns, self._changed
        for number, line in enumerate(lines):
            fields = line.split(b"\t", split)
            before = fields.copy() if split > 1 else fields
            for column, known in columns:
                place = column.place
                raw = fields[place]
                made = known.get(raw) if column.by < 0 or raw == _NULL else None
                if made is None:
                    made = changed(column, known, raw, before[column.by] if column.by >= 0 else None)
                fields[place] = made
            lines[number] = b"\t".join(fields)
        lines.append(b"")
        return b"\n".join(lines)

    def finish(self) -> bytes:
        """Nothing is left: a line that was cut short is an error."""
        if self._rest:
            raise CalqueError(permanent("cut_short", f"the last row of table {self._table} was cut short"))
        return b""

    def _changed(self, column: MaskedColumn, known: dict[bytes, bytes], raw: bytes, by: bytes | None) -> bytes:
        try:
            made = column.change(decoded(raw), None if by is None else decoded(by))
        except (CannotMask, ValueError, RecursionError) as error:
            words = str(error) if isinstance(error, CannotMask) else "a value is not of the form of its type"
            raise CalqueError(
                permanent(
                    "cannot_mask",
                    f"column {self._table}.{column.name} can't be masked: {words}",
                    field=f"{self._table}.{column.name}",
                    remedy="choose another transformer for it, such as redact or null",
                )
            ) from None  # what was raised may hold the value
        written = _NULL if made is None else encoded(made)
        if column.by < 0 and len(raw) <= LONGEST_REMEMBERED:
            if len(known) > REMEMBERED:
                known.clear()
                known[_NULL] = _NULL
            known[raw] = written
        return written


def decoded(raw: bytes) -> str:
    """A field of COPY's text format as the value that it stands for; not for NULL."""
    if b"\\" in raw:
        raw = _ESCAPE.sub(lambda found: _MEANT.get(found[1], found[1]), raw)
    return raw.decode()


def encoded(value: str) -> bytes:
    """A value as a field of COPY's text format."""
    return _SPECIAL.sub(lambda found: _WRITTEN[found[0]], value.encode())
