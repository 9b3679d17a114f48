"""What a tree holds, entry by entry: the lines of an inventory file, and the order that they stand in.

A directory comes first, then all in it that is no directory, by name; then each directory in it, by name, with all
that it holds. So parents come before children, and two inventories can be compared side by side without holding
either in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from brokers.volume.linux import Segment
from brokers.volume.paths import Parts, parts_of

Kind = Literal["file", "directory", "symlink", "hardlink", "fifo"]
Order = tuple[tuple[bool, bytes], ...]
Signature = tuple[int, ...]


class Origin(msgspec.Struct, frozen=True):
    """The copy that an inventory refers to: the digest of its part, and how many entries that has."""

    copy: str
    digest: str
    entries: int


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One entry. ``pieces`` say where its data lies in the content file of the moment, ``size`` is their sum in
    bytes. ``signature`` is what changes when a regular file does. ``deferred``: the data was not put into the content
    file, for it is what the copy before holds; it lies in the tree as long as the file has this signature.
    ``origin``: which entry of the copy before is the very same, in all that is known about it; -1 if none."""

    key: str
    metadata: dict[str, str]
    size: int = 0
    pieces: tuple[Segment, ...] = ()
    signature: Signature = ()
    deferred: bool = False
    origin: int = -1

    @property
    def is_directory(self) -> bool:
        return self.metadata["type"] == "directory"


def order_of(parts: Parts, *, is_directory: bool) -> Order:
    """Where an entry stands in an inventory."""
    return tuple((at < len(parts) - 1 or is_directory, name) for at, name in enumerate(parts))


def signature_of(info: os.stat_result) -> Signature:
    """What changes whenever somebody writes to a file or to what is known about it."""
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


class Written(NamedTuple):
    """An inventory in a file: number of entries, bytes of data; and whether they are those of the copy before, from the
    first on."""

    entries: int
    size: int
    same: bool


def write_inventory(file: Path, entries: Iterable[Entry]) -> Written:
    """Write an inventory, replacing one that was there."""
    encoder = msgspec.json.Encoder()
    count = size = 0
    same = True
    with file.open("wb", buffering=1 << 18) as lines:
        for entry in entries:
            lines.write(encoder.encode(entry) + b"\n")
            same = same and entry.origin == count
            count += 1
            size += entry.size
    return Written(count, size, same)


def read_inventory(file: Path) -> Iterator[Entry]:
    """The entries of an inventory, in order."""
    decoder = msgspec.json.Decoder(Entry)
    with file.open("rb", buffering=1 << 18) as lines:
        for line in lines:
            yield decoder.decode(line)


class Earlier:
    """An earlier inventory, asked in the order in which it stands."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self._next = next(entries, None)

    def find(self, key: str, parts: Parts, *, is_directory: bool = False) -> Entry | None:
        """The entry that stood exactly there. Each question must come after the one before."""
        if self._next is not None and self._next.key != key:
            # Mostly it is the very next one; only where something came or went is the order looked at.
            order = order_of(parts, is_directory=is_directory)
            while self._next is not None and _order(self._next) < order:
                self._next = next(self._entries, None)
        found = self._next
        if found is None or found.key != key or found.is_directory != is_directory:
            return None
        self._next = next(self._entries, None)
        return found


def _order(entry: Entry) -> Order:
    return order_of(parts_of(entry.key), is_directory=entry.is_directory)
