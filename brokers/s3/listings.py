"""The prepared moments of copies: listings of exact versions, kept on disk, so that they outlive the broker.

A bucket with versioning keeps what is overwritten or deleted later, so the list alone is the moment. A moment that
was discarded, or held for longer than asked, leaves a note in place of its list: it is never fixed anew.

Lists lie in files of their own, named by their content: two moments with nothing done between them share one. The last
list of each data service stays, so that the next one needs to ask only for what changed.
"""

from __future__ import annotations

import hashlib
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from brokers.s3.pages import Version
from brokers.sdk.atomic import write_atomically
from brokers.sdk.errors import moment_lost
from schemas.brokers import Prepared
from schemas.envelope import timestamp

KEPT_SECONDS = 8 * 24 * 3600.0
_VERSIONS = msgspec.json.Decoder(list[Version])


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One moment. ``lost`` says why it can't be copied any more. ``listing`` names its list, ``size`` is in bytes.
    Instants are seconds since the epoch."""

    copy: str
    service_id: str = ""
    moment: str = ""
    level: Literal["application", "crash"] = "crash"
    hold_seconds: float = 0.0
    expires: float = 0.0
    listing: str = ""
    size: int = 0
    left_out: tuple[str, ...] = ()
    lost: str = ""

    def answer(self) -> Prepared:
        """What was answered when it was prepared."""
        return Prepared(moment=self.moment, level=self.level, estimated_bytes=self.size, left_out=self.left_out)


class Listed(NamedTuple):
    """A list, and when it was begun, in seconds since the epoch by the server's clock."""

    versions: list[Version]
    at: float


class _Latest(msgspec.Struct, frozen=True):
    """The last list of a data service."""

    service_id: str
    listing: str
    at: float


class Listings:
    """The moments by copy. Calls block for as long as a file takes, with a list in it where one is named."""

    def __init__(self, directory: Path) -> None:
        self._moments = directory
        self._lists = directory / "lists"
        self._latest = directory / "latest"
        self._in_use: dict[str, int] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        """Get ready, and forget what no request can come back to."""
        for directory in (self._moments, self._lists, self._latest):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        oldest = time.time() - KEPT_SECONDS
        for file in self._moments.glob("*.json"):
            if file.stat().st_mtime < oldest:
                file.unlink(missing_ok=True)
        self._sweep()

    def find(self, copy: str) -> Moment | None:
        """The moment of ``copy``, ``None`` when there never was one. Raises ``moment_lost``."""
        moment = self._load(copy)
        if moment is None:
            return None
        if not moment.lost and moment.expires < time.time() and copy not in self._in_use:
            moment = self._lose(moment, f"it was held for {moment.hold_seconds:.0f} s and dropped")
        if moment.lost:
            raise moment_lost(copy, moment.lost)
        return moment

    def get(self, *, copy: str, service_id: str) -> Moment:
        """The moment of ``copy``. Raises ``moment_lost``."""
        moment = self.find(copy)
        if moment is None or moment.service_id != service_id:
            raise moment_lost(copy, "it was not prepared here")
        return moment

    def versions(self, moment: Moment) -> list[Version]:
        """The list of a moment, ordered by key. Raises ``moment_lost``."""
        try:
            return _VERSIONS.decode(self._list(moment.listing).read_bytes())
        except FileNotFoundError:
            raise moment_lost(moment.copy, "its list is gone") from None

    def latest(self, service_id: str, bucket: str) -> Listed | None:
        """The last list of the bucket of a data service, if there is one."""
        try:
            latest = msgspec.json.decode(self._latest_file(service_id, bucket).read_bytes(), type=_Latest)
            return Listed(_VERSIONS.decode(self._list(latest.listing).read_bytes()), latest.at)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def same(self, copy: str, other: str) -> bool:
        """Whether two moments have one list, as far as that is still known."""
        one, two = self._load(copy), self._load(other)
        return one is not None and two is not None and one.listing == two.listing != ""

    def keep(
        self,
        *,
        copy: str,
        service_id: str,
        bucket: str,
        versions: list[Version],
        versioned: bool,
        at: float,
        hold_seconds: float,
        left_out: tuple[str, ...] = (),
    ) -> Moment:
        """Fix the moment of ``copy``, whose list was begun ``at`` by the server's clock. ``bucket`` is its address: an
        attached data service may get another one. Raises ``moment_lost`` when the moment was discarded meanwhile."""
        with self._lock:
            if found := self.find(copy):
                return found
            content = msgspec.json.encode(versions)
            digest = hashlib.sha256(content).hexdigest()
            if not self._list(digest).exists():
                write_atomically(self._list(digest), content)
            now = time.time()
            moment = Moment(
                copy=copy,
                service_id=service_id,
                moment=(
                    f"{len(versions)} versions, sha256 {digest[:16]}, "
                    f"listed {timestamp(datetime.fromtimestamp(now, UTC))}"
                ),
                level="application" if versioned and all(version.kept for version in versions) else "crash",
                hold_seconds=hold_seconds,
                expires=now + hold_seconds,
                listing=digest,
                size=sum(version.size for version in versions),
                left_out=left_out,
            )
            self._save(moment)
            latest = _Latest(service_id, digest, at)
            write_atomically(self._latest_file(service_id, bucket), msgspec.json.encode(latest))
        self._sweep()
        return moment

    def begin_copy(self, copy: str) -> None:
        """The moment is in use: it does not expire."""
        self._in_use[copy] = self._in_use.get(copy, 0) + 1

    def end_copy(self, copy: str) -> None:
        """Not in use any more: it is held for another ``hold_seconds``, for another try."""
        self._in_use[copy] -= 1
        if self._in_use[copy]:
            return
        del self._in_use[copy]
        moment = self._load(copy)
        if moment and not moment.lost:
            self._save(msgspec.structs.replace(moment, expires=time.time() + moment.hold_seconds))

    def discard(self, copy: str) -> None:
        """Let go of the moment for good, also of one that is being prepared."""
        self._lose(self._load(copy) or Moment(copy=copy), "it was discarded")

    def discard_service(self, service_id: str) -> None:
        """Let go of all moments of a data service, and of its last list."""
        for file in self._moments.glob("*.json"):
            moment = self._read(file)
            if moment and moment.service_id == service_id:
                self.discard(moment.copy)
        for file in self._latest.glob("*.json"):
            if msgspec.json.decode(file.read_bytes(), type=_Latest).service_id == service_id:
                file.unlink(missing_ok=True)
        self._sweep()

    def _lose(self, moment: Moment, why: str) -> Moment:
        # What the list was stays known: a later copy may have the same.
        lost = Moment(copy=moment.copy, service_id=moment.service_id, listing=moment.listing, lost=why)
        self._save(lost)
        return lost

    def _sweep(self) -> None:
        """Removes lists that no moment and no data service needs any more."""
        with self._lock:
            moments = (self._read(file) for file in self._moments.glob("*.json"))
            needed = {moment.listing for moment in moments if moment and not moment.lost}
            for file in self._latest.glob("*.json"):
                try:
                    needed.add(msgspec.json.decode(file.read_bytes(), type=_Latest).listing)
                except (FileNotFoundError, msgspec.MsgspecError):
                    file.unlink(missing_ok=True)
            for file in self._lists.glob("*.json"):
                if file.stem not in needed:
                    file.unlink(missing_ok=True)

    def _save(self, moment: Moment) -> None:
        write_atomically(self._path(moment.copy), msgspec.json.encode(moment))

    def _load(self, copy: str) -> Moment | None:
        return self._read(self._path(copy))

    def _read(self, path: Path) -> Moment | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Moment)
        except FileNotFoundError:
            return None

    def _path(self, copy: str) -> Path:
        return self._moments / f"{hashlib.sha256(copy.encode()).hexdigest()}.json"

    def _latest_file(self, service_id: str, bucket: str) -> Path:
        name = hashlib.sha256("\n".join((service_id, bucket)).encode()).hexdigest()
        return self._latest / f"{name}.json"

    def _list(self, digest: str) -> Path:
        return self._lists / f"{digest}.json"
