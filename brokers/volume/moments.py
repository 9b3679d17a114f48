"""The prepared moments of copies: an inventory and a content file each, kept on disk, so that they outlive the
broker.

    moments/<digest>.json       the note: what the moment is, or why there is none any more. Its commit mark
    moments/<digest>/staged     the inventory that was made ahead
    moments/<digest>/entries    the inventory of the moment
    moments/<digest>/content    the data of both

A moment that was discarded, or held for longer than asked, leaves its note: it is never fixed anew. Moments do not
outlive a restart of the machine, since writers would have to wait for a sync.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from brokers.sdk.atomic import write_atomically
from brokers.sdk.copystream import CopyStreamError
from brokers.sdk.errors import moment_lost
from brokers.volume.ahead import Ahead, Numbering
from brokers.volume.aheadsurvey import AheadSurvey
from brokers.volume.inventory import Earlier, Origin, read_inventory, write_inventory
from brokers.volume.latest import Latest
from brokers.volume.linux import boot_id, clones, sync_filesystem
from brokers.volume.removal import Trash
from brokers.volume.ring import Feed, Ring
from brokers.volume.survey import Content, Survey, Tell, untold
from brokers.volume.threads import Stop, in_thread
from schemas.brokers import Prepared
from schemas.envelope import timestamp

logger = logging.getLogger(__name__)

KEPT_SECONDS = 8 * 24 * 3600.0
CLOCK_NS = 100_000_000
"""Two changes within one tick of the kernel's clock can't be told apart by their times; no tick is this long."""
EVER_NS = (1 << 63) - 1
"""Whatever the latest copy remembers is trusted: only what was settled is remembered."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one moment. Instants are seconds since the epoch, sizes bytes. ``origin``: which copy the
    entries refer to; ``same``: all of them are those of that copy; ``ahead``: it is this copy, as it came ahead."""

    copy: str
    state: Literal["staged", "prepared", "lost"]
    service_id: str = ""
    boot: str = ""
    staged_ns: int = 0
    content: int = 0
    origin: Origin | None = None
    same: bool = False
    ahead: bool = False
    moment: str = ""
    level: Literal["application", "crash"] = "crash"
    size: int = 0
    hold_seconds: float = 0.0
    expires: float = 0.0
    lost: str = ""

    def answer(self) -> Prepared:
        """What was answered when it was prepared."""
        return Prepared(moment=self.moment, level=self.level, estimated_bytes=self.size)


class Moments:
    """The moments by copy. Reading and writing a note blocks for as long as one small file takes."""

    def __init__(self, directory: Path, *, trash: Trash, latest: Latest | None = None) -> None:
        """``latest``: what the copy before holds is not read again; without one, all is."""
        self._directory = directory
        self._latest = latest
        self._trash = trash
        self._in_use: dict[str, int] = {}
        self._boot = boot_id()
        self._clones = False

    def open(self) -> None:
        """Get ready, and forget what no request can come back to."""
        self._clones = clones(self._directory)
        notes = {file.stem for file in self._directory.glob("*.json")}
        for place in self._directory.iterdir():
            if place.is_dir() and place.name not in notes:
                self._trash.aside(place)
        oldest = time.time() - KEPT_SECONDS
        for file in self._directory.glob("*.json"):
            if file.stat().st_mtime < oldest:
                self._drop(file.stem)
                file.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Drop the data of moments whose time is over."""
        for file in self._directory.glob("*.json"):
            note = self._read(file)
            if note is not None and not note.lost:
                self._judge(note)

    def find(self, copy: str) -> Note | None:
        """The note of ``copy``, staged or prepared; ``None`` when there never was one. Raises ``moment_lost``."""
        note = self._read(self._note(copy))
        if note is None:
            return None
        note = self._judge(note)
        if note.lost:
            raise moment_lost(copy, note.lost)
        return note

    def get(self, *, copy: str, service_id: str) -> Note:
        """The prepared moment of ``copy``. Raises ``moment_lost``."""
        note = self.find(copy)
        if note is None or note.service_id != service_id or note.state != "prepared":
            raise moment_lost(copy, "it was not prepared here")
        return note

    async def stage(
        self,
        *,
        copy: str,
        service_id: str,
        tree: Path,
        hold_seconds: float,
        name: str = "",
        tell: Tell = untold,
        ahead: Ahead | None = None,
    ) -> None:
        """Copy ahead what may still be the same when the moment is fixed. ``name``: of a tree of our own, whose latest
        copy is remembered. ``ahead``: where it may go, so that nothing is kept here. Raises ``moment_lost``."""
        if self.find(copy) is not None:
            return
        note = Note(copy=copy, state="staged", service_id=service_id, boot=self._boot, hold_seconds=hold_seconds)
        try:
            staged = await self._stage_ahead(note, tree, name, ahead) if ahead is not None else None
            if staged is None:
                staged = await in_thread(lambda stop: self._stage(note, tree, name, stop, tell))
        except Exception:
            self._drop(_digest(copy))
            self.check(copy)  # a moment that was discarded meanwhile is what went wrong
            raise
        self._save_unless_lost(staged)

    async def prepare(self, *, copy: str, service_id: str, tree: Path, hold_seconds: float, name: str = "") -> Note:
        """Fix the moment: what the tree holds while this runs. Raises ``moment_lost`` when it was discarded."""
        found = self.find(copy)
        if found is not None and found.state == "prepared":
            return found
        staged = found if found is not None and found.service_id == service_id else None
        note = Note(copy=copy, state="prepared", service_id=service_id, boot=self._boot, hold_seconds=hold_seconds)
        try:
            prepared = await in_thread(lambda stop: self._prepare(note, staged, tree, name, stop))
        except Exception:
            if staged is None:
                self._drop(_digest(copy))
            self.check(copy)
            raise
        self._save_unless_lost(prepared)
        return prepared

    def files(self, copy: str) -> tuple[Path, Path]:
        """Inventory and content of a prepared moment."""
        place = self._place(copy)
        return place / "entries", place / "content"

    def check(self, copy: str) -> None:
        """Raises ``moment_lost`` when the moment was let go of meanwhile."""
        self.find(copy)

    def begin_copy(self, copy: str) -> None:
        """The moment is in use: it does not expire."""
        self._in_use[copy] = self._in_use.get(copy, 0) + 1

    def end_copy(self, copy: str) -> None:
        """Not in use any more: it is held for another ``hold_seconds``, for another try."""
        if self._in_use[copy] > 1:
            self._in_use[copy] -= 1
            return
        note = self._read(self._note(copy))
        if note is not None and not note.lost:
            self._save(msgspec.structs.replace(note, expires=time.time() + note.hold_seconds))
        del self._in_use[copy]  # only now: until the note says so, it would count as over

    def discard(self, copy: str) -> None:
        """Let go of the moment for good, also of one that is being prepared or copied."""
        self._save(Note(copy=copy, state="lost", lost="it was discarded"))
        self._drop(_digest(copy))

    def discard_service(self, service_id: str) -> None:
        """Let go of all moments of a data service."""
        for file in self._directory.glob("*.json"):
            note = self._read(file)
            if note is not None and note.service_id == service_id:
                self.discard(note.copy)

    def _before(self, name: str) -> tuple[Origin | None, Earlier]:
        if self._latest is None or not name:
            return None, Earlier(iter(()))
        return self._latest.entries(name)

    async def _stage_ahead(self, note: Note, tree: Path, name: str, ahead: Ahead) -> Note | None:
        """The note; None where nothing can be sent ahead, which is never an error."""
        if not await ahead.reached():
            return None
        origin, earlier = self._before(name)
        if origin is not None and ahead.grant.parent and origin.copy != ahead.grant.parent:
            return None  # what is known of files is about another copy, so they have to be compared by entry
        if origin is None or origin.copy != ahead.grant.parent:
            origin, earlier = None, Earlier(iter(()))
        began = time.time_ns()
        place = self._fresh(note.copy)
        numbering: Numbering | None = None

        def walk(ring: Ring, feed: Feed, stop: Stop) -> None:
            nonlocal numbering
            _settle(tree)
            (place / "content").touch(mode=0o600)
            survey = AheadSurvey(
                tree,
                ring=ring,
                earlier=earlier,
                trusted_ns=EVER_NS,
                stop=stop,
                settled_ns=began - CLOCK_NS,
                boot=self._boot,
            )
            numbering = Numbering(feed, stop, origin=origin)
            with closing(survey.taken()) as taken:
                write_inventory(place / "staged", numbering.entries(taken))

        try:
            part = await ahead.send(walk)
        except CopyStreamError as error:
            logger.warning("copy %s is staged on this disk: %s", note.copy, error.problem.message)
            return None
        count = numbering.count if numbering is not None else 0
        sent = Origin(note.copy, part.digest, part.entries or 0) if part is not None else origin
        if sent is None or sent.entries != count:
            logger.warning("copy %s is staged on this disk: what came ahead is not what was sent", note.copy)
            return None
        expires = time.time() + note.hold_seconds
        return msgspec.structs.replace(
            note, staged_ns=began - CLOCK_NS, origin=sent, ahead=part is not None, expires=expires
        )

    def _stage(self, note: Note, tree: Path, name: str, stop: Stop, tell: Tell) -> Note:
        place = self._fresh(note.copy)
        began = time.time_ns()
        _settle(tree)
        settled = began - CLOCK_NS
        origin, earlier = self._before(name)
        with Content(place / "content", begin=0, clones=self._clones, stop=stop, tell=tell) as content:
            survey = Survey(
                tree,
                content=content,
                earlier=earlier,
                trusted_ns=EVER_NS,
                stop=stop,
                settled_ns=settled,
                boot=self._boot,
            )
            with closing(survey.entries()) as entries:  # no thread writes to the content when it is closed
                write_inventory(place / "staged", entries)
        expires = time.time() + note.hold_seconds
        return msgspec.structs.replace(note, staged_ns=settled, content=content.end, origin=origin, expires=expires)

    def _prepare(self, note: Note, staged: Note | None, tree: Path, name: str, stop: Stop) -> Note:
        if staged is None or _size(self._place(note.copy) / "content") < staged.content:
            place, trusted, begin = self._fresh(note.copy), EVER_NS, 0
            origin, earlier = self._before(name)
        else:
            place, trusted, begin = self._place(note.copy), staged.staged_ns, staged.content
            origin, earlier = staged.origin, Earlier(read_inventory(place / "staged"))
        with Content(place / "content", begin=begin, clones=self._clones, stop=stop) as content:
            survey = Survey(tree, content=content, earlier=earlier, trusted_ns=trusted, stop=stop)
            with closing(survey.entries()) as entries:
                written = write_inventory(place / "entries", entries)
        now = time.time()
        words = [f"{written.entries} entries", f"fixed at {timestamp(datetime.fromtimestamp(now, UTC))}"]
        if survey.skipped:
            words.append(f"{survey.skipped} sockets or devices left out")
        if survey.changed:
            words.append("written to meanwhile")
        return msgspec.structs.replace(
            note,
            moment=", ".join(words),
            level="crash" if survey.changed else "application",
            origin=origin,
            ahead=staged is not None and staged.ahead and origin is staged.origin,
            same=origin is not None and written.same and written.entries == origin.entries,
            size=written.size,
            expires=now + note.hold_seconds,
        )

    def _judge(self, note: Note) -> Note:
        """The note as it is now: a moment that is over becomes a lost one, and its data goes."""
        if note.lost:
            return note
        if note.boot != self._boot:
            why = "the machine was started anew"
        elif note.expires < time.time() and note.copy not in self._in_use:
            why = f"it was held for {note.hold_seconds:.0f} s and dropped"
        else:
            return note
        lost = Note(copy=note.copy, state="lost", lost=why)
        self._save(lost)
        self._drop(_digest(note.copy))
        return lost

    def _save_unless_lost(self, note: Note) -> None:
        known = self._read(self._note(note.copy))
        if known is not None and known.lost:
            self._drop(_digest(note.copy))
            raise moment_lost(note.copy, known.lost)
        self._save(note)

    def _fresh(self, copy: str) -> Path:
        self._drop(_digest(copy))
        place = self._place(copy)
        place.mkdir(mode=0o700)
        return place

    def _drop(self, digest: str) -> None:
        # taking it away is quick; the pieces are removed later, beside everything else
        self._trash.aside(self._directory / digest)

    def _save(self, note: Note) -> None:
        write_atomically(self._note(note.copy), msgspec.json.encode(note))

    def _read(self, file: Path) -> Note | None:
        try:
            return msgspec.json.decode(file.read_bytes(), type=Note)
        except FileNotFoundError:
            return None

    def _note(self, copy: str) -> Path:
        return self._directory / f"{_digest(copy)}.json"

    def _place(self, copy: str) -> Path:
        return self._directory / _digest(copy)


def _settle(tree: Path) -> None:
    """From here on a write through a memory map changes the file's times again."""
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_filesystem(root)
    finally:
        os.close(root)


def _digest(copy: str) -> str:
    return hashlib.sha256(copy.encode()).hexdigest()[:32]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return -1
