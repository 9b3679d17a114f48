"""What the latest copy of each of our data services holds, so that files that did not change are not read again.

``latest/<name>.<boot>``: the inventory of the latest moment that a repository took in; ``latest/<name>.of``: which copy
that is. Only files that were settled when they
were read count (``seen``): on a later moment they are recognized by device, inode, size and times. What was kept in
an earlier run of the machine counts no more: after a crash, bytes on the disk may be newer than the times beside them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from brokers.sdk.atomic import write_atomically
from brokers.volume.attributes import SEEN
from brokers.volume.inventory import Earlier, Entry, Origin, read_inventory

_OF = ".of"


class Latest:
    """The inventories by name. Calls block."""

    def __init__(self, directory: Path, *, boot: str) -> None:
        self._directory = directory
        self._mark = f".{boot[:8]}"

    def open(self) -> None:
        """Forget what is of an earlier run of the machine."""
        for file in self._directory.iterdir():
            if file.suffix not in (self._mark, _OF):
                file.unlink(missing_ok=True)

    def keep(self, name: str, inventory: Path, origin: Origin) -> None:
        """A repository holds all that is in this inventory, which is never written to again."""
        file = self._file(name)
        beside = file.with_suffix(f"{self._mark}.new")
        beside.unlink(missing_ok=True)
        os.link(inventory, beside)
        # In between it is not known of which copy the inventory is, and nothing wrong.
        self._of(name).unlink(missing_ok=True)
        beside.rename(file)
        write_atomically(self._of(name), msgspec.json.encode(origin))

    def forget(self, name: str) -> None:
        """Read all of it the next time."""
        self._of(name).unlink(missing_ok=True)
        self._file(name).unlink(missing_ok=True)

    def entries(self, name: str) -> tuple[Origin | None, Earlier]:
        """What can be recognized: files as entries whose data was not kept; nothing when there was no copy."""
        before = self._origin(name)
        earlier = Earlier(self._entries(name))  # it has opened the file
        # Another copy may have become the latest one meanwhile: then the numbers say nothing.
        return (before if before == self._origin(name) else None), earlier

    def _entries(self, name: str) -> Iterator[Entry]:
        with suppress(FileNotFoundError):
            for number, entry in enumerate(read_inventory(self._file(name))):
                if SEEN in entry.metadata:
                    yield Entry(
                        entry.key, entry.metadata, entry.size, (), entry.signature, deferred=True, origin=number
                    )
                elif entry.metadata["type"] != "file":
                    yield Entry(entry.key, entry.metadata, origin=number)

    def _origin(self, name: str) -> Origin | None:
        try:
            return msgspec.json.decode(self._of(name).read_bytes(), type=Origin)
        except FileNotFoundError:
            return None

    def _of(self, name: str) -> Path:
        return self._directory / f"{name}{_OF}"

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}{self._mark}"
