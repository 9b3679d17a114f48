"""Rows that are left out on their way: each is known by its key, and one that is not known fails the copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from brokers.masking.keyed import Keyed
from brokers.masking.rowset import DIGEST_BYTES, RowSet
from brokers.postgres.rowfilter import RowFilter
from schemas.problems import CalqueError, permanent

_TAB: Final = b"\t"


def digester(key: Keyed) -> Callable[[bytes], int]:
    """Makes a number of the fields of a row's key as COPY's text format has them, tabs between."""
    digest, number = key.digest, int.from_bytes

    def made(fields: bytes) -> int:
        return number(digest(fields, size=DIGEST_BYTES), "big")

    return made


class KeptRows:
    """What is kept of one table, for the time of a copy. ``rows`` and ``kept`` are ``None`` where nothing is."""

    def __init__(self, table: str, key: tuple[str, ...], digest: Callable[[bytes], int]) -> None:
        self.table = table
        self.key = key
        self.digest = digest
        self.rows: RowSet | None = None
        self.kept = bytearray()

    def keeps(self, fields: bytes) -> bool:
        """Whether the row with these fields of its key is kept. Raises :class:`CalqueError` for one that is not
        known."""
        if self.rows is None:
            return False
        place = self.rows.find(self.digest(fields))
        if place < 0:
            problem = permanent(
                "cannot_mask",
                f"table {self.table} has a row that was not there when it was counted",
                field=self.table,
                remedy="save again",
            )
            raise CalqueError(problem)
        return bool(self.kept[place])


class KeptFilter:
    """Leaves rows out, and passes what is kept on to ``then``. One for each pass: it keeps the start of an unfinished
    line."""

    def __init__(self, known: KeptRows, columns: Sequence[str], then: RowFilter | None) -> None:
        self._known = known
        self._places = [columns.index(column) for column in known.key] if known.rows is not None else []
        self._split = max(self._places, default=0) + 1
        self._then = then
        self._rest = b""

    def feed(self, block: bytes) -> bytes:
        """The whole lines that ``block`` completes and that are kept. Raises :class:`CalqueError`."""
        lines = (self._rest + bytes(block) if self._rest else bytes(block)).split(b"\n")
        self._rest = lines.pop()
        keeps, places, split = self._known.keeps, self._places, self._split
        if places == [0]:
            kept = [line for line in lines if keeps(line.split(_TAB, 1)[0])]
        else:
            kept = []
            for line in lines:
                fields = line.split(_TAB, split)
                if keeps(_TAB.join([fields[place] for place in places])):
                    kept.append(line)
        if not kept:
            return b""
        kept.append(b"")
        made = b"\n".join(kept)
        return self._then.feed(made) if self._then else made

    def finish(self) -> bytes:
        """Nothing is left: a line that was cut short is an error."""
        if self._rest:
            raise CalqueError(permanent("cut_short", f"the last row of table {self._known.table} was cut short"))
        return self._then.finish() if self._then else b""
