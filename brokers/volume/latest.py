"""What the latest copy of each of our data services holds, so that files that did not change are not read again.

``latest/<name>``: the inventory of the latest moment that a repository took in. Only files that were settled when they
were read count (``seen``): on a later moment they are recognized by device, inode, size and times. What was kept in
an earlier run of the machine counts no more: after a crash, bytes on the disk may be newer than the times beside them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from brokers.volume.attributes import SEEN
from brokers.volume.inventory import Entry, read_inventory


class Latest:
    """The inventories by name. Calls block."""

    def __init__(self, directory: Path, *, boot: str) -> None:
        self._directory = directory
        self._mark = f".{boot[:8]}"

    def open(self) -> None:
        """Forget what is of an earlier run of the machine."""
        for file in self._directory.iterdir():
            if file.suffix != self._mark:
                file.unlink(missing_ok=True)

    def keep(self, name: str, inventory: Path) -> None:
        """A repository holds all that is in this inventory, which is never written to again."""
        file = self._file(name)
        beside = file.with_suffix(f"{self._mark}.new")
        beside.unlink(missing_ok=True)
        os.link(inventory, beside)
        beside.rename(file)

    def forget(self, name: str) -> None:
        """Read all of it the next time."""
        self._file(name).unlink(missing_ok=True)

    def entries(self, name: str) -> Iterator[Entry]:
        """The files that can be recognized, as entries whose data was not kept; nothing when there was no copy."""
        with suppress(FileNotFoundError):
            for entry in read_inventory(self._file(name)):
                if SEEN in entry.metadata:
                    yield Entry(entry.key, entry.metadata, entry.size, (), entry.signature, deferred=True)

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}{self._mark}"
