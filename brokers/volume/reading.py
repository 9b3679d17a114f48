"""A prepared moment as the entries of a copy. Small files are read many at a time, big ones in blocks; what the copy
before holds is not sent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

from brokers.sdk.copystream import BigEntry, EntrySource, KeptEntry, KeptRange, KnownEntry, PlacedBatch, PlacedEntry
from brokers.sdk.digests import digest_hex
from brokers.volume.attributes import SEEN, segments_in
from brokers.volume.inventory import Entry, Origin, order_of, read_inventory, signature_of
from brokers.volume.linux import BLOCK_BYTES, open_directory
from brokers.volume.paths import parts_of

SMALL_BYTES = 1 << 20
BATCH_BYTES = 4 << 20
BATCH_ENTRIES = 512
RANGE_ENTRIES = 10_000
_EMPTY = digest_hex(b"")

_Batch = list[tuple[Entry, bytes | None]]


class ChangedSince(Exception):
    """A file whose data was not kept was written to since the moment; says which."""


class Deferred:
    """Files of the tree whose data was not kept. Calls block; they raise :class:`ChangedSince`."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree

    def whole(self, entry: Entry) -> bytes:
        """The data of a small file."""
        with _Opened(self._tree, entry) as file:
            data = file.read(0, entry.size)
            file.check()
        return data

    def open(self, entry: Entry) -> _Opened:
        """A big file."""
        return _Opened(self._tree, entry)


class _Opened:
    """A file of the tree that must be what it was."""

    def __init__(self, tree: Path, entry: Entry) -> None:
        self._entry = entry
        parts = parts_of(entry.key)
        try:
            root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                directory = open_directory(root, parts[:-1])
            finally:
                os.close(root)
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                self.descriptor = os.open(parts[-1], flags, dir_fd=directory)
            finally:
                os.close(directory)
        except OSError:
            raise ChangedSince(entry.key) from None

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def read(self, at: int, length: int) -> bytes:
        """Some of its bytes."""
        data = os.pread(self.descriptor, length, at)
        if len(data) != length:
            raise ChangedSince(self._entry.key)
        return data

    def check(self) -> None:
        """Whether it is still what it was at the moment."""
        if signature_of(os.fstat(self.descriptor)) != tuple(self._entry.signature):
            raise ChangedSince(self._entry.key)


class Parent:
    """The entries of the copy before, asked for in the order of an inventory."""

    def __init__(self, entries: AsyncIterator[KnownEntry]) -> None:
        self._entries = entries
        self._next: KnownEntry | None = None
        self._begun = False

    async def find(self, entry: Entry) -> KnownEntry | None:
        """The entry of the same key. Each question must come after the one before."""
        if not self._begun:
            self._begun = True
            self._next = await anext(self._entries, None)
        if self._next is None:
            return None
        if self._next.key != entry.key:
            order = order_of(parts_of(entry.key), is_directory=entry.is_directory)
            while self._next is not None and _order(self._next) < order:
                self._next = await anext(self._entries, None)
            if self._next is None or self._next.key != entry.key:
                return None
        found, self._next = self._next, await anext(self._entries, None)
        return found


def kept(entry: Entry, data: bytes | None, before: KnownEntry | None) -> KeptEntry | None:
    """The entry as one that the copy before holds, if that is certain."""
    if before is None or before.size != entry.size:
        return None
    if data is not None:
        same = before.digest == (digest_hex(data) if data else _EMPTY)
    else:
        ours, theirs = entry.metadata, before.metadata
        same = SEEN in ours and all(
            ours.get(name) == theirs.get(name) for name in (SEEN, "mtime", "type", "size", "segments")
        )
    return KeptEntry(entry.key, entry.metadata, entry.size, before.digest) if same else None


async def entries(
    inventory: Path,
    content: Path,
    *,
    check: Callable[[], None],
    known: AsyncGenerator[KnownEntry, None] | None = None,
    tree: Path | None = None,
    placed: bool = False,
    origin: Origin | None = None,
) -> AsyncGenerator[EntrySource | KeptEntry | KeptRange | PlacedBatch | BigEntry, None]:
    """The entries in order. ``check`` is called now and then, and may raise to end it. ``known`` are those of the copy
    before; ``tree`` is where the data lies that was not kept. ``placed``: who takes the entries reads what lies in the
    content file for itself. ``origin``: the copy whose entries may be kept by their numbers. Raises
    :class:`ChangedSince`."""
    descriptor = os.open(content, os.O_RDONLY | os.O_CLOEXEC)
    deferred = Deferred(tree or Path())
    reading: asyncio.Task[_Batch | KeptRange] | None = None
    try:
        async with aclosing(known if known is not None else _nothing()) as before:
            parent = Parent(before)
            batches = _batches(read_inventory(inventory), None if placed else descriptor, origin)
            reading = asyncio.create_task(asyncio.to_thread(next, batches, []))
            while batch := await asyncio.shield(reading):
                check()
                if isinstance(batch, KeptRange):
                    reading = asyncio.create_task(asyncio.to_thread(next, batches, []))
                    yield batch
                    continue
                reading = asyncio.create_task(asyncio.to_thread(next, batches, []))
                found: list[KeptEntry | None] = [None] * len(batch)
                if known is not None:
                    found = [kept(entry, data, await parent.find(entry)) for entry, data in batch]
                if any(each is None and entry.deferred for each, (entry, _) in zip(found, batch, strict=True)):
                    batch = await asyncio.to_thread(_read_deferred, deferred, batch, found)
                together: list[PlacedEntry] = []
                for each, (entry, data) in zip(found, batch, strict=True):
                    if placed and each is None and data is None and not entry.deferred and entry.size <= BATCH_BYTES:
                        together.append(_placed(entry))
                        continue
                    if together:
                        yield _together(together)
                        together = []
                    if each is not None:
                        yield each
                    elif placed and data is None and not entry.deferred:
                        yield BigEntry(_placed(entry))
                    elif data is not None:
                        yield entry.key, entry.metadata, entry.size, _one(data)
                    elif entry.deferred:
                        yield entry.key, entry.metadata, entry.size, _deferred_blocks(deferred, entry, check)
                    else:
                        yield entry.key, entry.metadata, entry.size, _blocks(entry, descriptor, check)
                if together:
                    yield _together(together)
    finally:
        if reading is not None:
            await asyncio.wait({reading})  # it reads from the file that is closed now
            if not reading.cancelled():
                reading.exception()
        os.close(descriptor)


def _placed(entry: Entry) -> PlacedEntry:
    return PlacedEntry(entry.key, entry.size, entry.metadata, entry.pieces)


def _together(entries: list[PlacedEntry]) -> PlacedBatch:
    return PlacedBatch(entries, sum(entry.size for entry in entries))


def _batches(inventory: Iterator[Entry], descriptor: int | None, origin: Origin | None) -> Iterator[_Batch | KeptRange]:
    """Without a descriptor no data is read; with an origin, what is the same there comes as ranges."""
    batch: _Batch = []
    size = 0
    first = count = kept_bytes = 0
    for entry in inventory:
        if origin is not None and entry.origin >= 0:
            if batch:
                yield batch
                batch, size = [], 0
            if count and (entry.origin != first + count or count >= RANGE_ENTRIES):
                yield KeptRange(first, count, kept_bytes, origin.digest)
                count = kept_bytes = 0
            if not count:
                first = entry.origin
            count += 1
            kept_bytes += entry.size
            continue
        if count and origin is not None:
            yield KeptRange(first, count, kept_bytes, origin.digest)
            count = kept_bytes = 0
        read = descriptor is not None and not entry.deferred and entry.size <= SMALL_BYTES
        data = _whole(entry, descriptor) if read and descriptor is not None else None
        batch.append((entry, data))
        # Those that were not kept count too: it may turn out that they must be read.
        size += entry.size
        if size >= BATCH_BYTES or len(batch) >= BATCH_ENTRIES:
            yield batch
            batch, size = [], 0
    if count and origin is not None:
        yield KeptRange(first, count, kept_bytes, origin.digest)
    if batch:
        yield batch


def _read_deferred(deferred: Deferred, batch: _Batch, found: list[KeptEntry | None]) -> _Batch:
    return [
        (entry, deferred.whole(entry))
        if entry.deferred and each is None and entry.size <= SMALL_BYTES and "segments" not in entry.metadata
        else (entry, data)
        for each, (entry, data) in zip(found, batch, strict=True)
    ]


def _whole(entry: Entry, descriptor: int) -> bytes:
    read = [_read(descriptor, at, length) for at, length in entry.pieces]
    return read[0] if len(read) == 1 else b"".join(read)


def _read(descriptor: int, at: int, length: int) -> bytes:
    data = os.pread(descriptor, length, at)
    if len(data) != length:
        raise EOFError("the content of a prepared moment was cut short")
    return data


async def _blocks(entry: Entry, descriptor: int, check: Callable[[], None]) -> AsyncIterator[bytes]:
    for at, length in entry.pieces:
        for offset in range(0, length, BLOCK_BYTES):
            check()
            yield await asyncio.to_thread(_read, descriptor, at + offset, min(BLOCK_BYTES, length - offset))


async def _deferred_blocks(deferred: Deferred, entry: Entry, check: Callable[[], None]) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(deferred.open, entry)
    with file:
        file.check()
        for at, length in segments_in(entry.metadata, size=entry.size)[1]:
            for offset in range(0, length, BLOCK_BYTES):
                check()
                yield await asyncio.to_thread(file.read, at + offset, min(BLOCK_BYTES, length - offset))
        file.check()


async def _one(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


async def _nothing() -> AsyncGenerator[KnownEntry, None]:
    nothing: tuple[KnownEntry, ...] = ()
    for each in nothing:
        yield each


def _order(entry: KnownEntry) -> tuple[tuple[bool, bytes], ...]:
    return order_of(parts_of(entry.key), is_directory=entry.metadata.get("type") == "directory")
