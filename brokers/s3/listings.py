"""The prepared moments of copies: listings of exact versions, kept on disk, so that they outlive the broker.

A bucket with versioning keeps what is overwritten or deleted later, so the list alone is the moment. A moment that
was discarded, or held for longer than asked, leaves a note in place of its list: it is never fixed anew.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from brokers.s3.pages import Version
from brokers.sdk.atomic import write_atomically
from brokers.sdk.errors import moment_lost
from schemas.brokers import Prepared
from schemas.envelope import timestamp

KEPT_SECONDS = 8 * 24 * 3600.0


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One moment. ``lost`` says why there is no list any more. Instants are seconds since the epoch."""

    copy: str
    service_id: str = ""
    moment: str = ""
    level: Literal["application", "crash"] = "crash"
    hold_seconds: float = 0.0
    expires: float = 0.0
    versions: list[Version] = []
    lost: str = ""

    @property
    def size(self) -> int:
        """Of all objects, in bytes."""
        return sum(version.size for version in self.versions)

    def answer(self) -> Prepared:
        """What was answered when it was prepared."""
        return Prepared(moment=self.moment, level=self.level, estimated_bytes=self.size)


class Listings:
    """The moments by copy. Reads and writes block for as long as one file takes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._in_use: dict[str, int] = {}

    def open(self) -> None:
        """Get ready, and forget what no request can come back to."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        oldest = time.time() - KEPT_SECONDS
        for file in self._directory.iterdir():
            if file.stat().st_mtime < oldest:
                file.unlink(missing_ok=True)

    def find(self, copy: str) -> Listing | None:
        """The moment of ``copy``, ``None`` when there never was one. Raises ``moment_lost``."""
        listing = self._load(copy)
        if listing is None:
            return None
        if not listing.lost and listing.expires < time.time() and copy not in self._in_use:
            listing = self._lose(copy, f"it was held for {listing.hold_seconds:.0f} s and dropped")
        if listing.lost:
            raise moment_lost(copy, listing.lost)
        return listing

    def get(self, *, copy: str, service_id: str) -> Listing:
        """The moment of ``copy``. Raises ``moment_lost``."""
        listing = self.find(copy)
        if listing is None or listing.service_id != service_id:
            raise moment_lost(copy, "it was not prepared here")
        return listing

    def keep(
        self, *, copy: str, service_id: str, versions: list[Version], versioned: bool, hold_seconds: float
    ) -> Listing:
        """Fix the moment of ``copy``. Raises ``moment_lost`` when it was discarded meanwhile."""
        if found := self.find(copy):
            return found
        digest = hashlib.sha256(msgspec.json.encode(versions)).hexdigest()
        now = time.time()
        at = timestamp(datetime.fromtimestamp(now, UTC))
        listing = Listing(
            copy=copy,
            service_id=service_id,
            moment=f"{len(versions)} versions, sha256 {digest[:16]}, listed {at}",
            level="application" if versioned and all(version.kept for version in versions) else "crash",
            hold_seconds=hold_seconds,
            expires=now + hold_seconds,
            versions=versions,
        )
        self._save(listing)
        return listing

    def begin_copy(self, copy: str) -> None:
        """The moment is in use: it does not expire."""
        self._in_use[copy] = self._in_use.get(copy, 0) + 1

    def end_copy(self, copy: str) -> None:
        """Not in use any more: it is held for another ``hold_seconds``, for another try."""
        self._in_use[copy] -= 1
        if self._in_use[copy]:
            return
        del self._in_use[copy]
        listing = self._load(copy)
        if listing and not listing.lost:
            self._save(msgspec.structs.replace(listing, expires=time.time() + listing.hold_seconds))

    def discard(self, copy: str) -> None:
        """Let go of the moment for good, also of one that is being prepared."""
        self._lose(copy, "it was discarded")

    def discard_service(self, service_id: str) -> None:
        """Let go of all moments of a data service."""
        for file in self._directory.iterdir():
            listing = self._read(file)
            if listing and listing.service_id == service_id:
                self.discard(listing.copy)

    def _lose(self, copy: str, why: str) -> Listing:
        lost = Listing(copy=copy, lost=why)
        self._save(lost)
        return lost

    def _save(self, listing: Listing) -> None:
        write_atomically(self._path(listing.copy), msgspec.json.encode(listing))

    def _load(self, copy: str) -> Listing | None:
        return self._read(self._path(copy))

    def _read(self, path: Path) -> Listing | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Listing)
        except FileNotFoundError:
            return None

    def _path(self, copy: str) -> Path:
        return self._directory / f"{hashlib.sha256(copy.encode()).hexdigest()}.json"
