"""Where a repository's bytes lie: an object store, which each copy repository broker brings.

Objects are written once, whole, and never changed; what has to change gets a new name. So no store needs locks, and
one that only knows put, get, list and delete is enough. Calls block: make them from threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

ARCHIVED = "archived"
"""The problem of an object that has to be brought back before it can be read. Reading it asks for that."""


class ObjectMissing(LookupError):
    """There is no object of this name."""


class ObjectExists(Exception):
    """An object of this name is there already."""


class ObjectRetained(Exception):
    """The store refuses to delete the object before its time (`brokers.repository.retention.RetainingStore`)."""


class StoredObject(NamedTuple):
    """One line of a listing. ``size`` in bytes; ``modified`` in seconds since the epoch, by the store's clock."""

    name: str
    size: int
    modified: float


class ObjectStore(Protocol):
    """Names are ``/``-separated segments of ``[A-Za-z0-9._-]`` that don't begin with a dot, at most 200 characters in
    all. No name is another one's folder: with ``a/b`` there is no object ``a``.

    Trouble of the environment (network, full disk, refused credentials) is raised as
    :class:`schemas.problems.CalqueError`: temporary where a repetition may help, permanent where it can't.
    """

    def put(self, name: str, content: bytes | memoryview) -> None:
        """Store the object, durable when this returns. Again with the same content is no change.

        Raises :class:`ObjectExists` when the store holds other content under the name and can tell.
        """

    def read(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """The object, or ``length`` bytes of it from ``offset``. Raises :class:`ObjectMissing`; what lies beyond
        the end is left out."""

    def look(self, name: str) -> StoredObject | None:
        """The object's size and time, ``None`` when it isn't there."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects whose names begin with ``prefix``, by name. One that is put or deleted meanwhile may be there."""

    def delete(self, name: str) -> None:
        """Remove the object. Not there is no error. Raises :class:`ObjectRetained`."""

    def free_bytes(self) -> int | None:
        """How much more fits, ``None`` when the store can't tell."""

    def now(self) -> float:
        """The store's own clock, in seconds since the epoch: what ``modified`` is measured with."""

    def close(self) -> None:
        """Let go of connections."""
