"""Entries whose bytes lie in a file that the writer passed: read, cut into chunks and named, many at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from brokers.repository.chunking import cut
from brokers.repository.manifest import ChunkRef, IndexEntry
from brokers.sdk.digests import digest_hex
from brokers.sdk.frames import PlacedEntry

MAX_BYTES = 32 << 20
"""The most that the entries of one frame may have together."""
_BUFFERS = 8
_LONGEST_FILE = 1 << 62


class Unreadable(Exception):
    """What was said of the file doesn't fit it; the message says how."""


class PassedBytes:
    """The bytes of the file. Closing waits for a read that is under way, so that no read meets another file."""

    def __init__(self, descriptor: int) -> None:
        """The descriptor is closed with it."""
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def read_into(self, view: memoryview, at: int) -> None:
        """Fills the view. Raises Unreadable, OSError."""
        with self._lock:
            if self._descriptor < 0:
                raise Unreadable("the file is closed")
            done = 0
            while done < len(view):
                count = os.preadv(self._descriptor, [view[done:]], at + done)
                if count == 0:
                    raise Unreadable("the file is shorter than was said")
                done += count

    def close(self) -> None:
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


class Stored(Protocol):
    """Takes chunks, whose bytes don't change until the answer was called: it waits until they are stored."""

    def __call__(self, plains: Sequence[memoryview]) -> Callable[[], Sequence[ChunkRef]]: ...


class Batch:
    """Entries on their way in. ``digests`` are those of their bytes."""

    def __init__(
        self,
        entries: Sequence[PlacedEntry],
        digests: Sequence[str],
        counts: Sequence[int],
        stored: Callable[[], Sequence[ChunkRef]],
    ) -> None:
        """``counts``: how many chunks each one has."""
        self.entries = entries
        self.digests = digests
        self.chunks = sum(counts)
        self._counts = counts
        self._stored = stored

    def index(self) -> Iterator[IndexEntry]:
        """Waits until the chunks are stored; the entries as they stand in the index."""
        refs, at = self._stored(), 0
        for entry, digest, count in zip(self.entries, self.digests, self._counts, strict=True):
            yield IndexEntry(entry.key, entry.size, digest, tuple(refs[at : at + count]), entry.metadata)
            at += count


class PlacedReader:
    """Reads the entries of one part. Memory that was never touched costs more than reading into it, so buffers are
    used again. One caller at a time."""

    def __init__(self, file: PassedBytes) -> None:
        self._file = file
        self._buffers: list[bytearray] = []

    def take(self, entries: Sequence[PlacedEntry], store: Stored) -> Batch:
        """Hands the chunks of the entries on. Raises Unreadable, OSError."""
        size = 0
        for entry in entries:
            if sum(length for _, length in entry.pieces) != entry.size or not all(map(_possible, entry.pieces)):
                raise Unreadable(f"the pieces of entry {entry.key!r} don't fit its size")
            size += entry.size
        if size > MAX_BYTES:
            raise Unreadable(f"{size} bytes are too many for one frame")
        buffer = self._buffer(size)
        view = memoryview(buffer)[:size]
        self._fill(view, entries)
        digests: list[str] = []
        counts: list[int] = []
        plains: list[memoryview] = []
        at = 0
        for entry in entries:
            mine = view[at : at + entry.size]
            at += entry.size
            digests.append(digest_hex(mine))
            before = len(plains)
            plains += cut(mine)
            counts.append(len(plains) - before)
        stored = store(plains)

        def through() -> Sequence[ChunkRef]:
            refs = stored()
            if len(self._buffers) < _BUFFERS:
                self._buffers.append(buffer)
            return refs

        return Batch(entries, digests, counts, through)

    def block(self, at: int, length: int) -> bytearray:
        """Some bytes of the file. Raises Unreadable, OSError."""
        if length > MAX_BYTES or not _possible((at, length)):
            raise Unreadable("its pieces are no pieces of a file")
        block = bytearray(length)
        self._file.read_into(memoryview(block), at)
        return block

    def _buffer(self, size: int) -> bytearray:
        buffer = self._buffers.pop() if self._buffers else bytearray()
        return buffer if len(buffer) >= size else bytearray(size + size // 4)

    def _fill(self, view: memoryview, entries: Sequence[PlacedEntry]) -> None:
        """Entries mostly lie one behind the other: those are read at once."""
        begin = end = first = 0
        for entry in entries:
            for at, length in entry.pieces:
                if at != first + (end - begin):
                    if end > begin:
                        self._file.read_into(view[begin:end], first)
                    begin, first = end, at
                end += length
        if end > begin:
            self._file.read_into(view[begin:end], first)


def _possible(piece: tuple[int, int]) -> bool:
    at, length = piece
    return at >= 0 and length >= 0 and at + length < _LONGEST_FILE
