"""A table of which most rows are seldom asked for: those of a snapshot stay in its compressed pieces until then.

A piece is read when somebody asks for a row where it belongs: what is in it lies there as JSON from then on, and a row
becomes an object when it is asked for. What is in which piece follows from the keys alone (:func:`ends_piece`): so one
that nobody touched is just the one that a dump of the same rows has in that place, and goes into it unread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar, overload
from zlib import crc32

import msgspec

from bus.pieces import Piece

Key = tuple[str, str]
Row = TypeVar("Row")
Other = TypeVar("Other")


def ends_piece(key: Any, *, every: int) -> bool:
    """Whether a piece of a dump ends with ``key``: one in ``every`` does, always the same ones."""
    text = key if isinstance(key, str) else "\0".join(key)
    return crc32(text.encode("utf-8", "surrogatepass")) % every == 0


_lines = msgspec.json.Decoder(dict[str, list[tuple[str | tuple[str, ...], msgspec.Raw]]])


def rows_of(line: bytes) -> list[tuple[Any, msgspec.Raw]]:
    """The keys and rows, in JSON, of a line of a dump: ``{"<table>": [[<key>, <row>], ...]}``."""
    return [row for rows in _lines.decode(line).values() for row in rows]


def by_writer(keys: Iterable[Key]) -> Iterator[Key]:
    """In order; others may run meanwhile, which sorting many at once would not let them."""
    ids: dict[str, list[str]] = {}
    for writer, id in keys:
        ids.setdefault(writer, []).append(id)
    for writer in sorted(ids):
        for id in sorted(ids[writer]):
            yield writer, id


class Unread(NamedTuple):
    """A piece with the rows behind the key ``after``, up to ``last``."""

    after: Key
    last: Key
    piece: Piece


class Rows(Generic[Row]):
    """Rows by key, like a dictionary, but in no order. ``decode`` makes a row of its JSON, ``kept`` is told of one that
    stays an object."""

    def __init__(self, decode: Callable[[bytes], Row], *, kept: Callable[[Row], None] | None = None) -> None:
        self._decode = decode
        self._kept = kept
        self._rows: dict[Key, Row] = {}
        self._plain: dict[Key, bytes] = {}
        self._lasts: list[Key] = []
        self._unread: list[Unread] = []

    # --- what is there

    @overload
    def get(self, key: Key) -> Row | None: ...
    @overload
    def get(self, key: Key, default: Other) -> Row | Other: ...
    def get(self, key: Key, default: Any = None) -> Any:
        """The row; it may be changed."""
        row = self._rows.get(key)
        if row is not None:
            return row
        if self._lasts:
            self._read_at(key)
        plain = self._plain.get(key)
        if plain is None:
            return default
        made = self._rows[key] = self._decode(plain)
        del self._plain[key]
        if self._kept is not None:
            self._kept(made)
        return made

    def look(self, key: Key) -> Row | None:
        """The row, for reading only: it may be a copy that nobody keeps."""
        row = self._rows.get(key)
        if row is not None:
            return row
        if self._lasts:
            self._read_at(key)
        plain = self._plain.get(key)
        return None if plain is None else self._decode(plain)

    def __getitem__(self, key: Key) -> Row:
        row = self.get(key)
        if row is None:
            raise KeyError(key)
        return row

    def __contains__(self, key: Key) -> bool:
        if self._lasts:
            self._read_at(key)
        return key in self._rows or key in self._plain

    def __setitem__(self, key: Key, row: Row) -> None:
        if self._lasts:
            self._read_at(key)
        self._rows[key] = row
        self._plain.pop(key, None)

    def discard(self, key: Key) -> None:
        """There is no such row any more."""
        if key in self:
            self._plain.pop(key, None)
            self._rows.pop(key, None)

    def __len__(self) -> int:
        self.read_all()
        return len(self._rows) + len(self._plain)

    def __iter__(self) -> Iterator[Key]:
        self.read_all()
        return iter([*self._rows, *self._plain])

    def items(self) -> Iterator[tuple[Key, Row]]:
        """All of them; each becomes an object."""
        return ((key, self[key]) for key in self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and dict(self.items()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment]  # it changes

    # --- pieces

    def put(self, last: Key, piece: Piece) -> None:
        """A piece whose rows are in this table. They come in the order of their keys, ``last`` is its last one."""
        self._unread.append(Unread(self._lasts[-1] if self._lasts else ("", ""), last, piece))
        self._lasts.append(last)

    def fill(self, rows: Iterable[tuple[Key, bytes | msgspec.Raw]]) -> None:
        """Rows in JSON."""
        self._plain.update((key, bytes(row)) for key, row in rows)

    def read_some(self, most: int) -> bool:
        """Read at most so many pieces, so that nobody has to wait for that later; says whether some are left."""
        for _ in range(min(most, len(self._unread))):
            self._take(len(self._unread) - 1)
        return bool(self._unread)

    def read_all(self) -> None:
        """Read all pieces."""
        self.read_some(len(self._unread))

    def held(self) -> Held[Row]:
        """What is in the table at this moment, to be dumped."""
        return Held([*self._rows, *self._plain], list(self._unread), self._content)

    def content(self, key: Key) -> Row | bytes | Unread | None:
        """A row, as an object or as JSON, or the piece that was not read where it would be; ``None`` if there is
        none."""
        unread = self._where(key)
        return self._content(key) if unread is None else self._unread[unread]

    def _content(self, key: Key) -> Row | bytes | None:
        # Another thread may make an object of it between these: it is among those before it is gone from here.
        plain = self._plain.get(key)
        return self._rows.get(key) if plain is None else plain

    def _read_at(self, key: Key) -> None:
        """Read the piece where ``key`` would be, if that was not read."""
        at = self._where(key)
        if at is not None:
            self._take(at)

    def _where(self, key: Key) -> int | None:
        """Which of those that were not read would have ``key``."""
        at = bisect_left(self._lasts, key)
        return at if at < len(self._lasts) and self._unread[at].after < key else None

    def _take(self, at: int) -> None:
        rows = rows_of(self._unread[at].piece.plain())
        self.fill(rows)
        del self._unread[at], self._lasts[at]


class Held(NamedTuple, Generic[Row]):
    """A table as it was at one moment: its keys, the pieces that were not read, and what gives a row, as an object or
    as JSON. Of rows that change later, one state or another is seen; what is gone is left out."""

    keys: list[Key]
    unread: list[Unread]
    content: Callable[[Key], Row | bytes | None]

    def in_order(self) -> Iterator[tuple[Key, Row | bytes] | Unread]:
        """All rows in the order of their keys, and in place of those in a piece that was not read, that piece."""
        keys = by_writer(self.keys)
        key = next(keys, None)
        for unread in (*self.unread, None):
            while key is not None and (unread is None or key < unread.last):
                row = self.content(key)
                if row is not None:
                    yield key, row
                key = next(keys, None)
            if unread is not None:
                yield unread
