"""The writer's side of a repository of format 1: copies are opened, committed and aborted, and given other packs.

What a copy needs is held before it is relied upon (`brokers.repository.format1.holds`); the commit object is put last.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Set

import msgspec

from brokers.repository.errors import AlreadyCommitted, Conflict, CopyNotFound, IncompleteCopy, StorageFailed
from brokers.repository.format1.catalog import Catalog
from brokers.repository.format1.collection import Collector
from brokers.repository.format1.commits import Commit, Commits, FoundCommit
from brokers.repository.format1.holds import HOLDS, Holds
from brokers.repository.format1.opencopy import LocalCopies, OpenCopy, OpenRecord
from brokers.repository.format1.reading import Reader
from brokers.repository.format1.sealing import Keys
from brokers.repository.format1.uploads import Uploads, Workers
from brokers.repository.manifest import PORTABLE_FORMAT, CopyInfo, Manifest, Part, merkle_root, parse, seal
from brokers.repository.objects import ObjectRetained, ObjectStore
from brokers.repository.opened import RESERVED_FREE_BYTES, CommittedCopy
from brokers.repository.retention import UNLOCKED, new_lock
from brokers.repository.signing import SigningKey
from schemas.brokers import SERVICE_VERSION

_ROUNDS = 4
"""How often a commit begins anew when what it held was taken for abandoned."""


class Writing:
    """Open copies of one process. Threads may share it."""

    def __init__(
        self,
        objects: ObjectStore,
        keys: Keys,
        catalog: Catalog,
        commits: Commits,
        reader: Reader,
        collector: Collector,
        *,
        local: LocalCopies,
        key: SigningKey,
        writer: str,
        pack_bytes: int,
        refresh: Callable[[], object],
        retention_seconds: float = 0.0,
    ) -> None:
        """`writer` is the name under which this process holds packs; `refresh` learns what others added;
        `retention_seconds` is how long a copy is locked from its commit on."""
        self._objects = objects
        self._keys = keys
        self._catalog = catalog
        self._commits = commits
        self._reader = reader
        self._collector = collector
        self._local = local
        self._key = key
        self._writer = writer
        self._pack_bytes = pack_bytes
        self._refresh = refresh
        self._retention_seconds = retention_seconds
        self._workers = Workers()
        self._open: dict[str, OpenCopy] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """What came of open copies is stored before, so that it need not come again."""
        for opened in list(self._open.values()):
            with contextlib.suppress(Exception):
                opened.flush()
        self._workers.close()

    def open_copies(self) -> list[str]:
        """The copies that are open, also those that an earlier run of this process opened."""
        return self._local.names()

    def open_write(self, copy: str, info: CopyInfo, *, fetched: CommittedCopy | None = None) -> OpenCopy:
        if fetched is None:
            return self._open_write(OpenRecord(copy, info))
        layout = fetched.parts if any(part.chunk_count is not None for part in fetched.parts) else ()
        return self._open_write(OpenRecord(copy, info, fetched.raw, layout))

    def writing(self, copy: str) -> OpenCopy:
        with self._lock:
            known = self._open.get(copy)
        if known is not None:
            return known
        record = self._local.read(copy)
        if record is None:
            raise CopyNotFound("is not open for writing", copy=copy)
        return self._open_write(record)

    def _open_write(self, record: OpenRecord) -> OpenCopy:
        copy = record.copy
        self._local.path(copy)
        if self._commits.there(copy):
            raise AlreadyCommitted("is committed already", copy=copy)
        free = self._objects.free_bytes()
        if free is not None and free < RESERVED_FREE_BYTES:
            raise StorageFailed("the store of the repository is full", copy=copy)
        with self._lock:
            known = self._open.get(copy)
            if known is not None:
                if known.record != record:
                    raise Conflict("is open with other particulars", copy=copy)
                return known
            before = self._local.read(copy)
            if before is None:
                self._local.begin(record)
            elif before != record:
                raise Conflict("was opened before with other particulars", copy=copy)
            opened = self._open[copy] = self._opened(record)
        self._refresh()
        return opened

    def _opened(self, record: OpenRecord, *, before: Set[bytes] = frozenset()) -> OpenCopy:
        holds = Holds(self._objects, self._keys, self._catalog, writer=self._writer, copy=record.copy)
        uploads = Uploads(
            self._objects,
            self._keys,
            self._catalog,
            holds,
            self._workers,
            pack_bytes=self._pack_bytes,
            stored=self._reader.packed,
        )
        return OpenCopy(
            record,
            local=self._local,
            uploads=uploads,
            holds=holds,
            reader=self._reader,
            catalog=self._catalog,
            commits=self._commits,
            before=before,
        )

    def commit(self, copy: str, *, info: CopyInfo | None, operation: str) -> CommittedCopy:
        if self._commits.there(copy):
            self._forget(copy)
            return self._commits.committed(copy)
        opened = self.writing(copy)
        with opened.committing:
            if self._commits.there(copy):
                return self._commits.committed(copy)
            opened.close()
            try:
                self._publish(opened, info or opened.record.info, operation=operation)
            except IncompleteCopy as error:
                if error.part is not None:
                    self._local.unseal(copy, error.part)
                opened.reopen()
                raise
            except BaseException:
                opened.reopen()
                raise
        self._forget(copy)
        return self._commits.committed(copy)

    def _publish(self, opened: OpenCopy, info: CopyInfo, *, operation: str) -> None:
        fetched = opened.record.manifest
        parts = self._parts_of(opened)
        if not parts:
            raise IncompleteCopy("has no part yet", copy=opened.copy)
        opened.flush()
        packs, stored = self._secured(opened, parts)
        raw = fetched or seal(_manifest(opened.copy, info, parts, stored), self._key)
        lock = UNLOCKED
        if self._retention_seconds:
            lock = new_lock(now=self._objects.now(), seconds=self._retention_seconds, operation=operation)
        commit = Commit(raw, parts, tuple(sorted(pack.hex() for pack in packs)), *lock)
        self._commits.checked(opened.copy, commit)
        self._put(opened, commit)

    def _put(self, opened: OpenCopy, commit: Commit) -> str:
        name = self._commits.put(opened.copy, commit)
        # Unless a hold is gone: then we slept so long that a collector took this copy for abandoned, perhaps before it
        # could see the commit. A pack that it marked may go at any moment: a copy that is not whole must not be there.
        if not opened.holds.unbroken() and opened.holds.secure(commit.pack_ids, fresh=True):
            self._commits.delete([name])
            raise IncompleteCopy("was taken for abandoned while it was committed", copy=opened.copy)
        return name

    def recommit(self, found: FoundCommit, *, avoid: Set[bytes]) -> bool:
        """Gives a committed copy packs other than those to `avoid`; whether that changed anything. A copy that is
        deleted meanwhile stays deleted. Raises IncompleteCopy when a chunk can be read nowhere."""
        if found.commit is None or self._commits.gone(found.copy, found.origin):
            return False
        opened = self._opened(OpenRecord(found.copy, CopyInfo()), before=found.commit.pack_ids)
        try:
            packs, _ = self._secured(opened, found.commit.parts, avoid=avoid)
            if packs == found.commit.pack_ids:
                return False
            named = tuple(sorted(pack.hex() for pack in packs))
            changed = msgspec.structs.replace(found.commit, packs=named, origin=found.origin)
            name = self._put(opened, changed)
            # It was deleted meanwhile, or somebody began to delete it: then the new one counts for nobody.
            there = self._objects.look(found.name) is not None and not self._commits.gone(found.copy, found.origin)
            with contextlib.suppress(ObjectRetained):  # then both stay, and what both need
                self._commits.delete([found.name if there else name])
            return there
        finally:
            opened.holds.release_own()

    def _parts_of(self, opened: OpenCopy) -> tuple[Part, ...]:
        if opened.record.parts:
            return opened.record.parts
        sealed = opened.sealed()
        if opened.record.manifest is None:
            return tuple(sorted(sealed.values(), key=lambda part: part.name))
        parts = []
        for told in parse(opened.record.manifest, copy=opened.copy).parts:
            part = sealed.get(told.name)
            if part is None or part.portable() != told.portable():
                raise IncompleteCopy("has not arrived as its manifest says", copy=opened.copy, part=told.name)
            parts.append(part)
        return tuple(parts)

    def _secured(
        self, opened: OpenCopy, parts: tuple[Part, ...], *, avoid: Set[bytes] = frozenset()
    ) -> tuple[set[bytes], int]:
        """The packs that hold the parts, each one held, and unmarked at a moment after that; and the stored bytes of
        the chunks."""
        fresh = False
        for _ in range(_ROUNDS):
            packs, stored = opened.needed_packs(parts, avoid=avoid)
            # Ends: each round avoids more, and what is avoided everywhere is written anew, held from the start.
            while bad := opened.holds.secure(packs, fresh=fresh):
                fresh = False
                avoid = avoid | bad
                packs, stored = opened.needed_packs(parts, avoid=avoid)
            if opened.holds.unbroken():
                return packs, stored
            fresh = True
        raise IncompleteCopy("lost its holds to a collector again and again", copy=opened.copy)

    def abort(self, copy: str) -> None:
        self._local.path(copy)
        if self._commits.there(copy):
            raise Conflict("is committed: delete it instead", copy=copy)
        with self._lock:
            known = self._open.get(copy)
        made: set[bytes] = set()
        if known is not None:
            known.close(force=True)
            known.uploads.stop()
            with contextlib.suppress(Exception):
                known.flush()
            made = set(known.uploads.made)
        was_open = known is not None or self._local.read(copy) is not None
        self._forget(copy)
        if was_open:
            # After a restart nobody knows any more which packs it made: then all that nothing needs goes.
            self._collector.collect(only=made if known is not None else None)

    def _forget(self, copy: str) -> None:
        with self._lock:
            known = self._open.pop(copy, None)
        if known is None and self._local.read(copy) is None:
            return
        holds = (known or self._opened(OpenRecord(copy, CopyInfo()))).holds
        self._local.remove(copy)
        holds.release()

    def tidy_holds(self) -> None:
        """Removes what an earlier run of this process left of copies that are open no longer, or committed. Before
        any copy is opened."""
        for copy in self._local.names():
            if self._commits.there(copy):
                self._local.remove(copy)
        self._local.tidy()
        mine = f"{HOLDS}{self._writer}/"
        still = set(self._local.names())
        for found in list(self._objects.list(mine)):
            if found.name.removeprefix(mine).partition("/")[0] not in still:
                self._objects.delete(found.name)


def _manifest(copy: str, info: CopyInfo, parts: tuple[Part, ...], stored: int) -> Manifest:
    return Manifest(
        format=PORTABLE_FORMAT,
        copy=copy,
        created=info.created,
        data_service=info.data_service,
        data_class=info.data_class,
        parts=tuple(part.portable() for part in parts),
        logical_bytes=sum(part.size for part in parts),
        stored_bytes=stored,
        merkle_root=merkle_root(parts),
        level=info.level,
        source=info.source,
        attributes=info.attributes,
        parent=info.parent,
        software=f"calque {SERVICE_VERSION}",
    )
