"""What may stand between a table and its copy: something that changes rows on their way out.

A table that has a filter is read in the text format of COPY and passes through it; all others are never parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Column(NamedTuple):
    """One column of a COPY, in its order. ``type_name`` as the server's ``format_type`` gives it."""

    name: str
    type_name: str


class RowFilter(Protocol):
    """Changes rows on their way out. Fed whole or broken lines of COPY text format, gives back whole lines."""

    def feed(self, block: bytes) -> bytes:
        """The whole lines that ``block`` completes, changed; an unfinished last line is kept for the next call."""
        ...

    def finish(self) -> bytes:
        """What is left when nothing more comes. Raises when a line was cut short."""
        ...


class FilterTables(Protocol):
    """Which tables have a filter. Names are as the catalog holds them, not quoted."""

    def __call__(self, schema: str, table: str, columns: Sequence[Column]) -> RowFilter | None:
        """A new filter for one pass over rows of the table, or ``None``: it is copied as it is. The rows of one
        table may be split over several passes at the same time."""
        ...
