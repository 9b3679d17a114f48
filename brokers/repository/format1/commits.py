"""Commit objects: `copies/<copy>/<serial>`. The copy is there if and only if one of its commit objects is.

A commit object holds the signed manifest, the chunks of each part, and the packs that the copy needs in this
repository: what a copy is and what it keeps alive appear and vanish in one step.

A commit object that took the place of another one (with other packs) names the first of them, its *origin*. Who
deletes a copy first puts `gone/<copy>/<origin>`: from then on no commit object of that origin counts. So one that is
put in just that moment, by a compaction that then crashes, brings nothing back.
"""

from __future__ import annotations

import contextlib
import re
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
from brokers.repository.retention import CopyLocked, Lock, check_unlocked, is_lock_end, retains
from schemas.unreadable import UNREADABLE

COPIES = Kind.COMMIT.value
GONE = Kind.GONE.value
GONE_CONTENT = b"gone\n"
_SERIAL = re.compile(r"([0-9a-f]{20})?")


class Commit(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a commit object holds, as JSON in one zstd frame, sealed. `packs` are pack ids in hex, sorted; `keep_until`
    and `operation` are the copy's lock; `origin` is the serial of the first commit object whose place it took."""

    manifest: bytes
    parts: tuple[Part, ...]
    packs: tuple[str, ...]
    keep_until: str = ""
    operation: str = ""
    origin: str = ""

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

    @property
    def origin(self) -> str:
        """The serial of the first commit object whose place it took; its own, if it took none's."""
        return (self.commit.origin if self.commit is not None else "") or self.name.rpartition("/")[2]


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
        return bool(self.of(copy))

    def gone(self, copy: str, origin: str) -> bool:
        """Whether the commit objects of this origin were deleted."""
        return self._objects.look(_gone_name(copy, origin)) is not None

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

    def tidy(self, *, older_than: float) -> None:
        """Deletes commit objects that count no longer and, when there are none, what says so, if it was put before that
        time: nobody who saw the copy before is still at work."""
        told = list(self._objects.list(GONE))
        if not told:
            return
        left: set[str] = set()
        for found in self._all_found(COPIES, fresh=False):
            # Asked of each one: what is not in an earlier listing may have come since.
            if found.commit is not None and found.commit.origin and self.gone(found.copy, found.origin):
                left.add(_gone_name(found.copy, found.origin))
                with contextlib.suppress(ObjectRetained):
                    self.delete([found.name])
        for each in told:
            if each.modified < older_than and each.name not in left:
                self._objects.delete(each.name)

    def remove(self, copy: str, *, operation: str) -> bool:
        """Deletes the copy's commit objects, until none is listed: one that is given other packs just now has two for
        a moment. Whether there were any. Raises CopyLocked."""
        there = False
        while found := self.of(copy):
            self.check_unlocked(copy, found, operation=operation)
            self._tell_gone(copy, found)
            try:
                self.delete([each.name for each in found])
            except ObjectRetained as error:
                raise CopyLocked("is locked by the store", copy=copy) from error
            there = True
        return there

    def _tell_gone(self, copy: str, found: Iterable[FoundCommit]) -> None:
        if retains(self._objects) is not None and any(each.commit and each.commit.keep_until for each in found):
            return  # the store may still refuse, and then the copy stays
        for origin in sorted({each.origin for each in found}):
            self._objects.put(_gone_name(copy, origin), GONE_CONTENT)

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
        """Those that count."""
        gone: set[str] | None = None
        for found in self._all_found(prefix, fresh=fresh):
            if found.commit is not None and found.commit.origin:
                if gone is None:  # looked for after it was listed: what is deleted since then may count or not
                    gone = {each.name for each in self._objects.list(GONE + prefix.removeprefix(COPIES))}
                if _gone_name(found.copy, found.origin) in gone:
                    continue
            yield found

    def _all_found(self, prefix: str, *, fresh: bool) -> Iterator[FoundCommit]:
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
            if not (is_lock_end(commit.keep_until) and _SERIAL.fullmatch(commit.origin)):
                raise ValueError("its lock or its origin is malformed")
        except (*UNREADABLE, ValueError) as error:
            raise CorruptObject(f"{name} can't be read: {error}") from error
        if kept is None:
            self._catalog.keep(name, sealed)
        return commit


def packs_of(found: FoundCommit) -> frozenset[bytes]:
    """The packs that it keeps alive."""
    return found.commit.pack_ids if found.commit is not None else frozenset()


def _gone_name(copy: str, origin: str) -> str:
    return f"{GONE}{copy}/{origin}"


def _copy_of(name: str) -> str:
    return name.removeprefix(COPIES).partition("/")[0]
