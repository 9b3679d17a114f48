"""The prepared moments of copies. A channel keeps no messages, so a moment is a note of when it was; the notes lie on
disk and outlive the broker. One that was discarded, or held for longer than asked, is never fixed anew."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from brokers.sdk.atomic import write_atomically
from brokers.sdk.errors import moment_lost
from schemas.brokers import Prepared
from schemas.envelope import timestamp

KEPT_SECONDS = 8 * 24 * 3600.0


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One moment. ``lost`` says why it is none any more; ``expires`` is in Unix seconds."""

    copy: str
    service_id: str = ""
    at: str = ""
    hold_seconds: float = 0.0
    expires: float = 0.0
    lost: str = ""

    def answer(self) -> Prepared:
        """What is answered when it is prepared."""
        return Prepared(moment=f"no messages are kept, at {self.at}", estimated_bytes=0)


class Moments:
    """The moments by copy. Reads and writes block for as long as one small file takes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self) -> None:
        """Get ready, and forget what no request can come back to."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        oldest = time.time() - KEPT_SECONDS
        for file in self._directory.iterdir():
            if file.stat().st_mtime < oldest:
                file.unlink(missing_ok=True)

    def prepare(self, *, copy: str, service_id: str, hold_seconds: float) -> Moment:
        """Fix the moment of ``copy``, or the one that was fixed. Raises ``moment_lost``."""
        found = self._find(copy)
        if found is not None:
            return found
        now = time.time()
        moment = Moment(
            copy=copy,
            service_id=service_id,
            at=timestamp(datetime.fromtimestamp(now, UTC)),
            hold_seconds=hold_seconds,
            expires=now + hold_seconds,
        )
        self._save(moment)
        return moment

    def find(self, copy: str) -> Moment | None:
        """The moment of ``copy``, ``None`` when there never was one. Raises ``moment_lost``."""
        return self._find(copy)

    def get(self, *, copy: str, service_id: str) -> Moment:
        """The moment of ``copy``. Raises ``moment_lost``."""
        moment = self._find(copy)
        if moment is None or moment.service_id != service_id:
            raise moment_lost(copy, "it was not prepared here")
        return moment

    def discard(self, copy: str) -> None:
        """Let go of the moment for good, also of one that is still to come."""
        self._save(Moment(copy=copy, lost="it was discarded"))

    def discard_service(self, service_id: str) -> None:
        """Let go of all moments of a data service."""
        for file in self._directory.iterdir():
            moment = self._read(file)
            if moment is not None and moment.service_id == service_id:
                self.discard(moment.copy)

    def _find(self, copy: str) -> Moment | None:
        moment = self._read(self._path(copy))
        if moment is None:
            return None
        if not moment.lost and moment.expires < time.time():
            moment = Moment(copy=copy, lost=f"it was held for {moment.hold_seconds:.0f} s and dropped")
            self._save(moment)
        if moment.lost:
            raise moment_lost(copy, moment.lost)
        return moment

    def _save(self, moment: Moment) -> None:
        write_atomically(self._path(moment.copy), msgspec.json.encode(moment))

    def _read(self, path: Path) -> Moment | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Moment)
        except FileNotFoundError:
            return None

    def _path(self, copy: str) -> Path:
        return self._directory / f"{hashlib.sha256(copy.encode()).hexdigest()}.json"
