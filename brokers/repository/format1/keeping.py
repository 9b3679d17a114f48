"""Keeps a repository in order: frees what is dead inside packs, and repairs what can be repaired."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from brokers.repository.errors import CorruptChunk, CorruptManifest, CorruptObject, CorruptPart, IncompleteCopy
from brokers.repository.format1.catalog import Catalog
from brokers.repository.format1.collection import Collector
from brokers.repository.format1.commits import Commits, FoundCommit, packs_of
from brokers.repository.format1.examining import Examiner
from brokers.repository.format1.index import INDEX, read_index, reconcile, refresh
from brokers.repository.format1.packs import listed_packs, read_trailer
from brokers.repository.format1.reading import Reader
from brokers.repository.format1.sealing import Keys
from brokers.repository.format1.writing import Writing
from brokers.repository.objects import ObjectMissing, ObjectStore
from brokers.repository.opened import Collected, Repaired
from brokers.repository.partreader import all_chunks
from brokers.repository.retention import locked, retains

WORTH_KEEPING = 0.5
"""A pack of which less than this part is needed is written anew without the rest."""


class Keeper:
    """The long works on one repository, one at a time in this process; others may go on beside them."""

    def __init__(
        self,
        writing: Writing,
        collector: Collector,
        catalog: Catalog,
        commits: Commits,
        reader: Reader,
        objects: ObjectStore,
    ) -> None:
        self._writing = writing
        self._collector = collector
        self._catalog = catalog
        self._commits = commits
        self._reader = reader
        self._objects = objects
        self._lock = threading.Lock()

    def compact(self) -> Collected:
        """Frees packs that nothing needs, moves what is needed out of packs that are mostly dead, and frees those."""
        first = self._collector.collect()
        if first.blocked is not None:
            return first
        with self._lock:
            try:
                found = [each for each in self._commits.all() if each.commit is not None]
                dead = self._mostly_dead(found) - self._unmovable(found)
                moved = [self._writing.recommit(each, avoid=dead) for each in found if packs_of(each) & dead]
            except (CorruptChunk, CorruptPart, CorruptManifest, IncompleteCopy) as error:
                return Collected(first.chunks, first.freed_bytes, f"packs can't be written anew: {error}")
        if not any(moved):
            return first
        then = self._collector.collect()
        return Collected(first.chunks + then.chunks, first.freed_bytes + then.freed_bytes, then.blocked)

    def _mostly_dead(self, found: list[FoundCommit]) -> set[bytes]:
        used = self._catalog.used_bytes(self._chunks_of_all(found))
        sizes = self._catalog.packs()
        needed = {pack for each in found for pack in packs_of(each)}
        return {pack for pack in needed if pack in sizes and used.get(pack, 0) < WORTH_KEEPING * sizes[pack]}

    def _unmovable(self, found: list[FoundCommit]) -> set[bytes]:
        """Packs that the store itself would not delete: to move what is in them would free nothing."""
        if retains(self._objects) is None:
            return set()
        now = self._objects.now()
        kept = (each for each in found if each.commit is not None and locked(each.commit.keep_until, now=now))
        return {pack for each in kept for pack in packs_of(each)}

    def _chunks_of_all(self, found: list[FoundCommit]) -> Iterator[bytes]:
        for each in found:
            for part in each.commit.parts if each.commit else ():
                for ref in all_chunks(part, self._reader.source(each.copy, part.name).one, copy=each.copy):
                    yield bytes.fromhex(ref.digest)

    def repair(self, objects: ObjectStore, keys: Keys, examiner: Examiner, *, read_all: bool) -> Repaired:
        """Makes lost and damaged index objects anew, gives copies sound packs for damaged ones where their chunks can
        still be read somewhere, and names what it can't repair. With `read_all` every byte is read before; else what
        earlier checks found counts."""
        with self._lock:
            indexes = self._mend_indexes(objects, keys)
            bad = self._bad_packs(objects, keys)
            healed: list[str] = []
            damaged: list[str] = []
            for each in list(self._commits.all()):
                if each.commit is None:
                    damaged.extend(self._without_commit(each))
                    continue
                try:
                    if read_all:
                        examiner.verify(each.copy, progress=lambda _done: None, cancelled=lambda: False)
                    self._commits.checked(each.copy, each.commit)
                    if self._writing.recommit(each, avoid=bad):
                        healed.append(each.copy)
                except (CorruptChunk, CorruptPart, CorruptManifest, IncompleteCopy) as error:
                    damaged.append(str(error))
        return Repaired(indexes, tuple(healed), tuple(damaged))

    def _mend_indexes(self, objects: ObjectStore, keys: Keys) -> int:
        """Removes index objects that can't be read; what they said is in the trailers."""
        removed = 0
        for found in list(objects.list(INDEX)):
            try:
                read_index(objects, keys, found.name)
            except ObjectMissing:
                continue
            except CorruptObject:
                objects.delete(found.name)
                self._catalog.forget_loaded([found.name])
                removed += 1
        refresh(objects, keys, self._catalog)
        reconcile(objects, keys, self._catalog)
        self._collector.index_again()
        return removed

    def _bad_packs(self, objects: ObjectStore, keys: Keys) -> set[bytes]:
        """Packs that are gone, or whose frame is damaged: nothing should rely on them."""
        there = listed_packs(objects)
        bad = {pack for each in self._commits.all() for pack in packs_of(each) if pack not in there}
        for pack, size in there.items():
            try:
                read_trailer(objects, keys, pack, size=size)
            except CorruptObject:
                bad.add(pack)
        return bad

    def _without_commit(self, found: FoundCommit) -> Iterator[str]:
        """A commit object that can't be read: no harm where the copy has another one."""
        others = [each for each in self._commits.of(found.copy, fresh=True) if each.commit is not None]
        if others:
            self._commits.delete([found.name])
        else:
            yield f"copy {found.copy}: {found.problem}"
