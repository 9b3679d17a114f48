"""How writers and collectors keep out of each other's way without locks (`docs/repository-format.md`, "Writers and
collectors").

A writer announces the packs that it needs (a *hold*) and looks for marks afterwards; a collector marks a pack and
looks for holds afterwards. Whoever comes second sees the other.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from brokers.repository.errors import CorruptObject
from brokers.repository.format1.catalog import Catalog
from brokers.repository.format1.kinds import Kind
from brokers.repository.format1.packs import PACK_ID_BYTES, pack_name, pack_of
from brokers.repository.format1.sealing import Keys
from brokers.repository.objects import ObjectMissing, ObjectStore

HOLDS = Kind.HOLD.value
MARKS = Kind.MARK.value
MARK_CONTENT = b"doomed\n"
_AHEAD = 16
_NEIGHBOURS = 256


def new_serial() -> str:
    """A name that no other object has; later ones sort behind earlier ones of the same clock."""
    return f"{int(time.time() * 1000):012x}{os.urandom(4).hex()}"


def mark_name(pack: bytes) -> str:
    return MARKS + pack.hex()


def marked_packs(objects: ObjectStore) -> dict[bytes, float]:
    """Packs that a collector means to delete, and when each was marked, by the store's clock."""
    found = ((pack_of(each.name), each.modified) for each in objects.list(MARKS))
    return {pack: modified for pack, modified in found if pack is not None}


class Held(NamedTuple):
    """One hold that was found: its packs, and when it was put."""

    name: str
    packs: frozenset[bytes]
    modified: float


def all_holds(objects: ObjectStore, keys: Keys) -> Iterator[Held]:
    """The holds of all writers. One that vanishes meanwhile is left out. Raises CorruptObject."""
    for found in objects.list(HOLDS):
        try:
            sealed = objects.read(found.name)
        except ObjectMissing:
            continue
        yield Held(found.name, _packs_of(keys, found.name, sealed), found.modified)


def _packs_of(keys: Keys, name: str, sealed: bytes) -> frozenset[bytes]:
    plain = keys.unseal(name, sealed)
    if len(plain) % PACK_ID_BYTES:
        raise CorruptObject(f"{name} is no list of packs")
    return frozenset(plain[at : at + PACK_ID_BYTES] for at in range(0, len(plain), PACK_ID_BYTES))


class Holds:
    """The packs that one open copy needs. Threads may share it."""

    def __init__(self, objects: ObjectStore, keys: Keys, catalog: Catalog, *, writer: str, copy: str) -> None:
        self._objects = objects
        self._keys = keys
        self._catalog = catalog
        self._prefix = f"{HOLDS}{writer}/{copy}/"
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._announced: set[bytes] = set()
        self._present: set[bytes] = set()
        self._refused: set[bytes] = set()
        self._unborn: list[bytes] = []

    def new_pack(self) -> bytes:
        """The id of a pack that is to be written. `announce` it before its object is put."""
        with self._lock:
            if not self._unborn:
                self._unborn = [os.urandom(PACK_ID_BYTES) for _ in range(_AHEAD)]
            return self._unborn.pop()

    def announce(self, pack: bytes) -> None:
        """Holds a new pack before it is there, and some that come after it."""
        with self._lock:
            if pack not in self._announced:
                self._put({pack, *self._unborn})
                self._announced |= {pack, *self._unborn}
            self._present.add(pack)

    def rely(self, pack: bytes) -> bool:
        """Whether the copy may need this pack that is there already: held, not marked, and there."""
        if pack in self._present:
            return True
        with self._lock:
            if pack in self._refused:
                return False
            if pack not in self._announced:
                self._hold_existing([pack, *self._catalog.neighbours(pack, limit=_NEIGHBOURS)])
            if pack in self._refused:
                return False
            if self._objects.look(pack_name(pack)) is None:
                self._refused.add(pack)
                return False
            self._present.add(pack)
            return True

    def relied_on(self, pack: bytes) -> bool:
        """Whether `rely` or `announce` said that the copy may need this pack."""
        return pack in self._present

    def secure(self, packs: Iterable[bytes], *, fresh: bool) -> set[bytes]:
        """Before the commit: all packs held, unmarked at a moment after that, and there. Those that aren't. With
        `fresh` nothing that was found out earlier counts."""
        with self._lock:
            if fresh:
                # Those that are gone were a collector's to remove: what is put now is what counts.
                self._names &= {found.name for found in self._objects.list(self._prefix)}
                self._announced.clear()
                self._present.clear()
                self._refused.clear()
            needed = set(packs)
            missing = needed - self._announced
            if missing:
                self._hold_existing(missing)
            bad = needed & self._refused
            for pack in needed - self._present - bad:
                if self._objects.look(pack_name(pack)) is None:
                    self._refused.add(pack)
                    bad.add(pack)
                else:
                    self._present.add(pack)
            return bad

    def unbroken(self) -> bool:
        """Whether every hold that was put is still there: nobody took this copy for abandoned."""
        with self._lock:
            return self._names <= {found.name for found in self._objects.list(self._prefix)}

    def release(self) -> None:
        """Lets go of everything, also of what an earlier process of this writer held for the copy."""
        with self._lock:
            for found in list(self._objects.list(self._prefix)):
                self._objects.delete(found.name)
            self._names.clear()
            self._announced.clear()
            self._present.clear()

    def release_own(self) -> None:
        """Lets go of what was held through this object alone: the copy may be open besides."""
        with self._lock:
            for name in self._names:
                self._objects.delete(name)
            self._names.clear()
            self._announced.clear()
            self._present.clear()

    def _hold_existing(self, packs: Iterable[bytes]) -> None:
        asked = set(packs)
        self._put(asked)
        # Only now, with the hold there for every collector to see.
        marked = asked & marked_packs(self._objects).keys()
        self._refused |= marked
        self._announced |= asked - marked

    def _put(self, packs: Iterable[bytes]) -> None:
        name = self._prefix + new_serial()
        self._objects.put(name, self._keys.seal(name, b"".join(sorted(packs))))
        self._names.add(name)
