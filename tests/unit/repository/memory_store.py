"""An object store in memory that tests can make fail, crash and go slow at any call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from brokers.repository.objects import ObjectExists, ObjectMissing, StoredObject

Hook = Callable[[str, str], None]
"""Called before each call with what it does and the object's name or prefix; what it raises, the call raises."""


class MemoryObjects:
    """What lies in the store: shared by all that have it open."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.clock = 1_000_000.0
        self.lock = threading.Lock()


class MemoryStore:
    """One client of the store (`brokers.repository.objects.ObjectStore`)."""

    def __init__(self, there: MemoryObjects | None = None, *, hook: Hook | None = None) -> None:
        self.there = there or MemoryObjects()
        self.hook: Hook = hook or (lambda _call, _name: None)

    def put(self, name: str, content: bytes | memoryview) -> None:
        self.hook("put", name)
        with self.there.lock:
            known = self.there.objects.get(name)
            if known is not None and known[0] != bytes(content):
                raise ObjectExists(name)
            if known is None:
                self.there.objects[name] = (bytes(content), self.there.clock)
        self.hook("put after", name)

    def read(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        self.hook("read", name)
        with self.there.lock:
            found = self.there.objects.get(name)
        if found is None:
            raise ObjectMissing(name)
        return found[0][offset : None if length is None else offset + length]

    def look(self, name: str) -> StoredObject | None:
        self.hook("look", name)
        with self.there.lock:
            found = self.there.objects.get(name)
        return StoredObject(name, len(found[0]), found[1]) if found is not None else None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        self.hook("list", prefix)
        with self.there.lock:
            found = [
                StoredObject(name, len(content), modified)
                for name, (content, modified) in sorted(self.there.objects.items())
                if name.startswith(prefix)
            ]
        return iter(found)

    def delete(self, name: str) -> None:
        self.hook("delete", name)
        with self.there.lock:
            self.there.objects.pop(name, None)
        self.hook("delete after", name)

    def free_bytes(self) -> int | None:
        return None

    def now(self) -> float:
        return self.there.clock

    def close(self) -> None:
        """Nothing is held open."""
