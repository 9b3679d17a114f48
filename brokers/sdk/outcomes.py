"""The finished operations of a broker, kept so that a repeated request gets the same answer after a restart.

One file per operation in ``<state_dir>/operations``, named by the SHA-256 of the operation's id, because ids hold
slashes. Outcomes hold no secrets: results of long operations have none by contract.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import msgspec

from brokers.sdk.atomic import write_atomically
from schemas.brokers import Outcome

KEEP_SECONDS = 8 * 24 * 3600.0


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A finished operation: which request it was (``operation``; empty for a cancel that came first) and how
    it ended."""

    operation: str
    outcome: Outcome


class OutcomeStore:
    """Finished operations by id. Reads and writes block for as long as one small file takes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._decoder = msgspec.json.Decoder(Record)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self, id: str) -> Record | None:
        """The finished operation ``id``, or ``None``. Raises ``OSError`` or ``msgspec.DecodeError`` for a file
        that can't be read: guessing that the operation never ran could run it twice."""
        try:
            return self._decoder.decode(self._path(id).read_bytes())
        except FileNotFoundError:
            return None

    def save(self, record: Record) -> None:
        """Keep ``record``, durably."""
        write_atomically(self._path(record.outcome.id), msgspec.json.encode(record))

    def prune(self, *, keep_seconds: float = KEEP_SECONDS) -> int:
        """Forget what finished more than ``keep_seconds`` ago, longer than commands live. How many were forgotten."""
        oldest = time.time() - keep_seconds
        stale = [path for path in self._directory.iterdir() if path.stat().st_mtime < oldest]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def _path(self, id: str) -> Path:
        return self._directory / f"{hashlib.sha256(id.encode()).hexdigest()}.json"
