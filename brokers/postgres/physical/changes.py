"""Which files of a cluster did not change since a copy before: the server says so, which summarizes its log (PostgreSQL
17 and later).

A file that the log did not touch between the beginnings of two backups is, in the older copy, as good as it is now:
what is done to it later is in the log that goes with the newer one. Only main forks are kept this way. Free space maps
are not logged at all, and bits of visibility maps are cleared without being named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from brokers.postgres.physical.files import RELATION
from brokers.postgres.server import Session

SUMMARY_SECONDS = 15.0
"""How long is waited for the summary of what was just written."""
_POLL_SECONDS = 0.1
_FIRST_VERSION = 170000
_SUMMARIZES = "SELECT current_setting('summarize_wal') = 'on'"
_SUMMARIZED = "SELECT summarized_lsn >= %s::pg_lsn FROM pg_get_wal_summarizer_state()"
_SUMMARIES = """
    SELECT start_lsn::text, end_lsn::text FROM pg_available_wal_summaries() s
    WHERE s.tli = %(line)s AND s.end_lsn > %(since)s::pg_lsn AND s.start_lsn < %(until)s::pg_lsn ORDER BY start_lsn
"""
# Those that were found to be without a gap: one that was removed meanwhile is an error.
_TOUCHED = """
    SELECT c.reldatabase::bigint, c.relfilenode::bigint, c.relblocknumber / z.blocks AS segment, c.is_limit_block
    FROM unnest(%(starts)s::pg_lsn[], %(ends)s::pg_lsn[]) s (start_lsn, end_lsn)
    CROSS JOIN LATERAL pg_wal_summary_contents(%(line)s, s.start_lsn, s.end_lsn) c
    CROSS JOIN (SELECT setting::bigint AS blocks FROM pg_settings WHERE name = 'segment_size') z
    WHERE c.relforknumber = 0
    GROUP BY 1, 2, 3, 4
"""


class Beginning(NamedTuple):
    """Where a copy begins: of which server, on which line of time, from where in its log."""

    server: str
    timeline: int
    start: str

    @property
    def metadata(self) -> dict[str, str]:
        """As the entry of the label says it."""
        return {"server": self.server, "timeline": str(self.timeline), "start": self.start}

    def since(self, told: Mapping[str, str]) -> str:
        """Where in the same log a copy before began; empty when it was of another server."""
        same = (told.get("server"), told.get("timeline")) == (self.server, str(self.timeline))
        return told.get("start", "") if same and self.server else ""


class Touched:
    """What the log touched of main forks."""

    def __init__(self, rows: Iterable[tuple[int, int, int, bool]]) -> None:
        """Database, file node, number of the segment, and whether all segments from there on were made anew. Node 0
        stands for a whole database."""
        self._segments: set[tuple[int, int, int]] = set()
        self._from: dict[tuple[int, int], int] = {}
        for database, node, segment, anew in rows:
            if anew:
                self._from[database, node] = min(segment, self._from.get((database, node), segment))
            else:
                self._segments.add((database, node, segment))

    def has(self, path: str) -> bool:
        """Whether a file of a cluster may be another now; of what is no main fork that is not known."""
        file = main_fork_of(path)
        if file is None:
            return True
        database, node, segment = file
        return (
            file in self._segments
            or (database, 0) in self._from
            or segment >= self._from.get((database, node), segment + 1)
        )


def main_fork_of(path: str) -> tuple[int, int, int] | None:
    """Database, file node and number of the segment that a file is; ``None`` for a file of another kind."""
    directory, _, name = path.rpartition("/")
    relation = RELATION.fullmatch(name)
    if relation is None or relation["fork"] is not None:
        return None
    segment = int(relation["segment"] or 0)
    if directory == "global":
        return 0, int(relation["node"]), segment
    base, _, database = directory.partition("/")
    if base != "base" or not database.isdecimal():
        return None
    return int(database), int(relation["node"]), segment


async def touched(session: Session, *, timeline: int, since: str, until: str) -> Touched | None:
    """What the log from ``since`` to ``until`` touched; ``None`` when the server can't tell."""
    if session.server_version < _FIRST_VERSION or not await session.value(_SUMMARIZES):
        return None
    deadline = asyncio.get_running_loop().time() + SUMMARY_SECONDS
    while not await session.value(_SUMMARIZED, (until,)):
        if asyncio.get_running_loop().time() > deadline:
            return None
        await asyncio.sleep(_POLL_SECONDS)
    where = {"line": timeline, "since": since, "until": until}
    reached = _number(since)
    summaries = [(str(start), str(end)) for start, end in await session.rows(_SUMMARIES, where)]
    for start, end in summaries:
        if _number(start) > reached:
            return None  # one between them is gone, or was never made
        reached = max(reached, _number(end))
    if reached < _number(until):
        return None
    found = {"line": timeline, "starts": [start for start, _ in summaries], "ends": [end for _, end in summaries]}
    return Touched((int(d), int(n), int(s), bool(anew)) for d, n, s, anew in await session.rows(_TOUCHED, found))


def _number(position: str) -> int:
    high, _, low = position.partition("/")
    return (int(high, 16) << 32) + int(low, 16)
