"""Commit objects: `copies/<copy>/<serial>`. The copy is there if and only if one of its commit objects is.

A commit object holds the signed manifest, the chunks of each part, and the packs that the copy needs in this
repository: what a copy is and what it keeps alive appear and vanish in one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from brokers.repository.compression import compress, decompress_any
from brokers.repository.errors import CopyNotFound, CorruptManifest, CorruptObject
from brokers.repository.format1.catalog import Catalog
from brokers.repository.format1.holds import new_serial
from brokers.repository.format1.kinds import Kind
from brokers.repository.format1.sealing import Keys
from brokers.repository.manifest import Part, check_layout, check_name, parse
from brokers.repository.objects import ObjectMissing, ObjectRetained, ObjectStore
from brokers.repository.opened import CommittedCopy
from brokers.repository.retention import CopyLocked, Lock, check_unlocked
from schemas.unreadable import UNREADABLE

COPIES = Kind.COMMIT.value


class Commit(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a commit object holds, as JSON in one zstd frame, sealed. `packs` are pack ids in hex, sorted; `keep_until`
    and `operation` are the copy's lock."""

    manifest: bytes
    parts: tuple[Part, ...]
    packs: tuple[str, ...]
    keep_until: str = ""
    operation: str = ""

    @property
    def lock(self) -> Lock:
        return Lock(self.keep_until, self.operation)

    @property
    def pack_ids(self) -> frozenset[bytes]:
        return frozenset(bytes.fromhex(pack) for pack in self.packs)


class FoundCommit(NamedTuple):
    """A commit object of a copy: read, or what is wrong with it."""

    name: str
    copy: str
    commit: Commit | None
    problem: str | None


class Commits:
    """The commit objects of one repository. Threads may share it."""

    def __init__(self, objects: ObjectStore, keys: Keys, catalog: Catalog) -> None:
        self._objects = objects
        self._keys = keys
        self._catalog = catalog

    def put(self, copy: str, commit: Commit) -> str:
        """Commits; the object's name."""
        name = f"{COPIES}{check_name(copy, what='copy id')}/{new_serial()}"
        self._objects.put(name, self._keys.seal(name, compress(msgspec.json.encode(commit))))
        return name

    def of(self, copy: str, *, fresh: bool = False) -> list[FoundCommit]:
        """The commit objects of a copy, the one that counts first: the earliest sound one. With `fresh` read from
        the store also where this process knows the bytes."""
        found = list(self._found(f"{COPIES}{check_name(copy, what='copy id')}/", fresh=fresh))
        return sorted(found, key=lambda each: (each.commit is None, each.name))

    def there(self, copy: str) -> bool:
        return bool(self.names(copy))

    def names(self, copy: str) -> list[str]:
        """The commit objects of a copy, by name only."""
        prefix = f"{COPIES}{check_name(copy, what='copy id')}/"
        return [found.name for found in self._objects.list(prefix)]

    def committed(self, copy: str) -> CommittedCopy:
        """The copy. Raises CopyNotFound, CorruptManifest."""
        found = self.of(copy)
        if not found:
            raise CopyNotFound("is not in this repository", copy=copy)
        first = found[0]
        if first.commit is None:
            raise CorruptManifest(first.problem or "can't be read", copy=copy)
        checked = self.checked(copy, first.commit)
        until = max((each.commit.keep_until for each in found if each.commit is not None), default="")
        return msgspec.structs.replace(checked, keep_until=until)

    def all(self) -> Iterator[FoundCommit]:
        """Every commit object, by copy."""
        names = set()
        for found in self._found(COPIES, fresh=False):
            names.add(found.name)
            yield found
        self._catalog.drop(self._catalog.kept_names(COPIES) - names)

    def remove(self, copy: str, *, operation: str) -> bool:
        """Deletes the copy's commit objects, until none is listed: one that is given other packs just now has two for
        a moment. Whether there were any. Raises CopyLocked."""
        there = False
        while found := self.of(copy):
            self.check_unlocked(copy, found, operation=operation)
            try:
                self.delete([each.name for each in found])
            except ObjectRetained as error:
                raise CopyLocked("is locked by the store", copy=copy) from error
            there = True
        return there

    def check_unlocked(self, copy: str, found: Iterable[FoundCommit], *, operation: str) -> None:
        """Raises CopyLocked. What can't be read locks nothing: there is nothing left to keep."""
        locks = [each.commit.lock for each in found if each.commit is not None and each.commit.keep_until]
        if locks:
            check_unlocked(copy, locks, now=self._objects.now(), operation=operation)

    def delete(self, names: list[str]) -> None:
        for name in names:
            self._objects.delete(name)
        self._catalog.drop(names)

    def copies(self) -> list[str]:
        """The ids of all committed copies, without reading one."""
        return sorted({_copy_of(found.name) for found in self._objects.list(COPIES)})

    def checked(self, copy: str, commit: Commit) -> CommittedCopy:
        """The commit as a copy, its manifest and its parts checked against each other. Raises CorruptManifest."""
        manifest = parse(commit.manifest, copy=copy)
        if tuple(part.portable() for part in commit.parts) != tuple(part.portable() for part in manifest.parts):
            raise CorruptManifest("its parts are not those of its manifest", copy=copy)
        for part in commit.parts:
            check_layout(part, copy=copy)
        return CommittedCopy(manifest, commit.manifest, commit.parts, commit.keep_until)

    def _found(self, prefix: str, *, fresh: bool) -> Iterator[FoundCommit]:
        for listed in self._objects.list(prefix):
            copy = _copy_of(listed.name)
            try:
                yield FoundCommit(listed.name, copy, self._read(listed.name, fresh=fresh), None)
            except ObjectMissing:
                continue
            except CorruptObject as error:
                yield FoundCommit(listed.name, copy, None, str(error))

    def _read(self, name: str, *, fresh: bool) -> Commit:
        kept = None if fresh else self._catalog.kept(name)
        sealed = self._objects.read(name) if kept is None else kept
        try:
            commit = msgspec.json.decode(decompress_any(self._keys.unseal(name, sealed)), type=Commit)
            commit.pack_ids  # noqa: B018 - a malformed id is found here
        except (*UNREADABLE, ValueError) as error:
            raise CorruptObject(f"{name} can't be read: {error}") from error
        if kept is None:
            self._catalog.keep(name, sealed)
        return commit


def packs_of(found: FoundCommit) -> frozenset[bytes]:
    """The packs that it keeps alive."""
    return found.commit.pack_ids if found.commit is not None else frozenset()


def _copy_of(name: str) -> str:
    return name.removeprefix(COPIES).partition("/")[0]
