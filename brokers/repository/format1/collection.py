"""Frees packs that nothing needs, beside any number of writers and other collectors, without a lock.

Why no chunk of a committed copy can vanish stands in `docs/repository-format.md`, "Writers and collectors". The order
of the four listings in `survey` is part of that reason.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from brokers.repository.errors import CorruptManifest, CorruptObject
from brokers.repository.format1.catalog import Catalog
from brokers.repository.format1.commits import Commits, FoundCommit
from brokers.repository.format1.holds import MARK_CONTENT, all_holds, mark_name, marked_packs, new_serial
from brokers.repository.format1.index import put_index
from brokers.repository.format1.packs import listed_packs, pack_name
from brokers.repository.format1.sealing import Keys
from brokers.repository.objects import ObjectRetained, ObjectStore
from brokers.repository.opened import Collected

HOLD_SECONDS = 14 * 86400.0
"""A hold as old as this was left by a writer that will not come back."""
FEW_INDEXES = 32
"""With more index objects than this they are joined."""


class Survey(NamedTuple):
    """What was found, in the order in which it was listed."""

    marks: dict[bytes, float]
    packs: dict[bytes, int]
    held: frozenset[bytes]
    commits: list[FoundCommit]

    @property
    def committed(self) -> set[bytes]:
        return {pack for found in self.commits if found.commit for pack in found.commit.pack_ids}

    @property
    def needed(self) -> set[bytes]:
        return self.committed | self.held


def survey(objects: ObjectStore, keys: Keys, commits: Commits, *, hold_seconds: float = HOLD_SECONDS) -> Survey:
    """Lists marks, then packs, then holds, then commits. Raises CorruptObject for a hold that can't be read."""
    marks = marked_packs(objects)
    packs = listed_packs(objects)
    latest = objects.now() - hold_seconds
    held = frozenset(pack for hold in all_holds(objects, keys) if hold.modified >= latest for pack in hold.packs)
    return Survey(marks, packs, held, list(commits.all()))


class Collector:
    """Collects in one repository. Several may run at once, here and elsewhere."""

    def __init__(
        self,
        objects: ObjectStore,
        keys: Keys,
        catalog: Catalog,
        commits: Commits,
        *,
        wait_seconds: float = 0.0,
        hold_seconds: float = HOLD_SECONDS,
    ) -> None:
        """`wait_seconds` lie between mark and deletion: twice the time by which a listing may lag behind; 0 where a
        listing shows all that was done before."""
        self._objects = objects
        self._keys = keys
        self._catalog = catalog
        self._commits = commits
        self._wait = wait_seconds
        self._hold_seconds = hold_seconds

    def collect(self, *, only: Set[bytes] | None = None) -> Collected:
        """Marks what nothing needs, and deletes what was marked long enough ago; `only` these packs, if given.

        A commit object or hold that can't be read might need any pack: then nothing is deleted."""
        before = self._catalog.packs()
        try:
            if only is None:
                self._let_go_of_abandoned()
            found = self._survey()
            for pack in found.packs.keys() - found.needed - found.marks.keys():
                if only is None or pack in only:
                    self._objects.put(mark_name(pack), MARK_CONTENT)
            if not self._wait:
                found = self._survey()
        except (CorruptObject, CorruptManifest) as error:
            return Collected(blocked=str(error))
        freed = self._sweep(found, only=only)
        if only is None:
            self._commits.tidy(older_than=self._objects.now() - self._hold_seconds)
            self._join_indexes(found, before=before.keys())
        return freed

    def _let_go_of_abandoned(self) -> None:
        """Removes holds that are too old. Before the commits are listed: whoever still writes, and commits too late to
        be seen there, finds its hold gone after that. Raises CorruptObject."""
        latest = self._objects.now() - self._hold_seconds
        for hold in list(all_holds(self._objects, self._keys)):
            if hold.modified < latest:
                self._objects.delete(hold.name)

    def _survey(self) -> Survey:
        found = survey(self._objects, self._keys, self._commits, hold_seconds=self._hold_seconds)
        for commit in found.commits:
            if commit.problem is not None:
                raise CorruptManifest(commit.problem, copy=commit.copy)
        return found

    def _sweep(self, found: Survey, *, only: Set[bytes] | None) -> Collected:
        chunks, freed = 0, 0
        latest = self._objects.now() - self._wait
        for pack, marked in found.marks.items():
            if only is not None and pack not in only:
                continue
            if pack in found.packs:
                if pack in found.needed or (self._wait and marked > latest):
                    continue
                # The pack first: while it is there, its mark is.
                try:
                    self._objects.delete(pack_name(pack))
                except ObjectRetained:
                    continue  # a copy that is gone locked it; its time comes
                chunks += len(self._catalog.blobs(pack))
                freed += found.packs[pack]
                self._catalog.forget_pack(pack)
            self._objects.delete(mark_name(pack))
        return Collected(chunks, freed)

    def index_again(self) -> None:
        """Writes index objects for packs that none names. Raises CorruptObject."""
        before = self._catalog.packs()
        found = survey(self._objects, self._keys, self._commits, hold_seconds=self._hold_seconds)
        self._join_indexes(found, before=before.keys())

    def _join_indexes(self, found: Survey, *, before: Set[bytes]) -> None:
        """Writes index objects for packs that none names, joins many into one, removes those of packs long gone."""
        loaded = self._catalog.loaded()
        known = self._catalog.packs()
        living = {pack for pack in known if pack in found.packs or pack not in before}
        named = {pack for packs in loaded.values() for pack in packs}
        stale = [name for name, packs in loaded.items() if not packs & living]
        many = len(loaded) - len(stale) > FEW_INDEXES
        due = sorted(living if many else (living & found.committed) - named)
        if due:
            indexed = ((pack, known[pack], self._catalog.blobs(pack)) for pack in due)
            name = put_index(self._objects, self._keys, indexed, serial=new_serial())
            self._catalog.note_loaded(name, due)
        for name in list(loaded) if many else stale:
            self._objects.delete(name)
        self._catalog.forget_loaded(list(loaded) if many else stale)
