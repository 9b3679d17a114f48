"""The bodies in which parts are written to a copy repository (`brokers.sdk.frames`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from brokers.sdk.copystream_http import CopyStreamError
from brokers.sdk.digests import Buffer, Hasher
from brokers.sdk.frames import (
    MAX_DATA_BYTES,
    DataAt,
    End,
    EntryBegin,
    EntryEnd,
    KeptEntry,
    KeptRange,
    PlacedEntry,
    data_header,
    encode,
    entry_line,
    kept_frame,
    kept_line,
    placed_frame,
)
from brokers.sdk.near import PassedFile
from schemas.problems import temporary

_GATHER_BYTES = 256 << 10
_AT_ONCE_BYTES = 4 << 20
_HELD_BYTES = 512 << 10

Progress = Callable[[int], None]
"""Called with the bytes of plaintext that passed since the last call."""

EntrySource = tuple[str, Mapping[str, str], int, AsyncIterator[bytes] | AsyncIterator[Buffer]]
"""Key, metadata, size in bytes, and the bytes of one entry."""


@dataclass(frozen=True)
class PlacedBatch:
    """Entries whose bytes lie in the file that goes with the part; at most 32 MiB together."""

    entries: Sequence[PlacedEntry]
    size: int


@dataclass(frozen=True)
class BigEntry:
    """An entry whose bytes lie in the file that goes with the part, too many to be taken in at once."""

    entry: PlacedEntry


@dataclass(frozen=True)
class PlacedPieces:
    """An entry whose bytes come to lie in the file that goes with the part one after the other: offset and length of
    each piece, at most 32 MiB."""

    key: str
    size: int
    metadata: Mapping[str, str]
    pieces: AsyncIterator[tuple[int, int]]


Entries = AsyncIterator[EntrySource | KeptEntry | KeptRange | PlacedBatch | PlacedPieces | BigEntry]


class _Gatherer:
    """Joins small pieces into blocks worth sending; big ones pass as they are."""

    def __init__(self) -> None:
        self._small = bytearray()

    def add(self, piece: Buffer) -> list[bytes]:
        """Blocks that are ready now."""
        if len(piece) < _GATHER_BYTES:
            self._small += piece
            return self.flush() if len(self._small) >= _GATHER_BYTES else []
        return [*self.flush(), piece if isinstance(piece, bytes) else bytes(piece)]

    def flush(self) -> list[bytes]:
        if not self._small:
            return []
        ready, self._small = bytes(self._small), bytearray()
        return [ready]


def _data_frames(piece: Buffer) -> list[Buffer]:
    if len(piece) <= MAX_DATA_BYTES:
        return [data_header(len(piece)), piece] if len(piece) else []
    view = memoryview(piece)
    frames: list[Buffer] = []
    for at in range(0, len(view), MAX_DATA_BYTES):
        frames += _data_frames(view[at : at + MAX_DATA_BYTES])
    return frames


async def stream_body(blocks: AsyncIterator[bytes], *, progress: Progress) -> AsyncIterator[bytes]:
    """One opaque stream."""
    hasher, size, gatherer = Hasher(), 0, _Gatherer()
    async for piece in blocks:
        for block in gatherer.add(piece):
            hasher.update(block)
            size += len(block)
            # Told as it goes on its way: so that somebody who waits sees the first block of a slow copy too.
            progress(len(block))
            for frame in _data_frames(block):
                yield frame if isinstance(frame, bytes) else bytes(frame)
    for block in gatherer.flush():
        hasher.update(block)
        size += len(block)
        progress(len(block))
        yield data_header(len(block)) + block
    yield encode(End(size, hasher.hex()))


async def entries_body(part: str, entries: Entries, *, progress: Progress) -> AsyncIterator[bytes]:
    """Entries of which nothing lies in a file."""
    body = _Body(part)
    async for entry in entries:
        if isinstance(entry, KeptEntry):
            for ready in body.keep(entry):
                yield ready
            progress(entry.size)
        elif isinstance(entry, KeptRange):
            for ready in body.keep_range(entry):
                yield ready
            progress(entry.size)
        elif isinstance(entry, PlacedBatch | PlacedPieces | BigEntry):
            raise TypeError("entries can lie in a file only if one was passed")
        else:
            async for ready in body.send(entry, progress):
                yield ready
    for ready in body.end():
        yield ready


async def placed_body(part: str, entries: Entries, file: PassedFile) -> AsyncIterator[bytes]:
    """Entries of which some lie in the file. How far it is, the other side tells."""
    body = _Body(part, digests=False)
    async for entry in entries:
        if isinstance(entry, KeptEntry):
            file.spoke(entry.size)
            for ready in body.keep(entry):
                yield ready
            continue
        if isinstance(entry, KeptRange):
            file.spoke(entry.size)
            for ready in body.keep_range(entry):
                yield ready
            continue
        if isinstance(entry, PlacedBatch):
            if file.full:
                # What the other side has not heard of it will not take in.
                for ready in body.flush():
                    yield ready
            await file.room(entry.size)
            for ready in body.place(entry):
                yield ready
            continue
        for ready in body.flush():
            yield ready
        if isinstance(entry, PlacedPieces):
            body.count(entry.size, 1)
            yield encode(EntryBegin(entry.key, entry.size, dict(entry.metadata)))
            async for at, length in entry.pieces:
                await file.room(length)
                yield encode(DataAt(at, length))
            yield encode(EntryEnd(entry.size, ""))
        elif isinstance(entry, BigEntry):
            big = entry.entry
            body.count(big.size, 1)
            yield encode(EntryBegin(big.key, big.size, big.metadata))
            for at, length in _pieces(big.pieces):
                await file.room(length)
                yield encode(DataAt(at, length))
            yield encode(EntryEnd(big.size, ""))
        else:
            async for ready in body.send(entry, file.spoke):
                yield ready
    for ready in body.end():
        yield ready


class _Body:
    """What is common to both: blocks that are worth sending, and the sums for the end."""

    def __init__(self, part: str, *, digests: bool = True) -> None:
        """Without ``digests`` not all are known, and the end tells none."""
        self._part = part
        self._hasher = Hasher() if digests else None
        self._total = 0
        self._count = 0
        self._gatherer = _Gatherer()
        self._kept = bytearray()
        self._placed = 0

    def count(self, size: int, entries: int) -> None:
        self._total += size
        self._count += entries

    def keep(self, entry: KeptEntry) -> list[bytes]:
        self._whole(entry.key, entry.metadata, entry.size, entry.digest)
        self._kept += kept_line(entry)
        return self._kept_frame() if len(self._kept) >= _GATHER_BYTES else []

    def keep_range(self, kept: KeptRange) -> list[bytes]:
        self.count(kept.size, kept.count)
        self._hasher = None  # the digests of these are not known here
        return [*self._kept_frame(), *self._gatherer.add(encode(kept))]

    def place(self, batch: PlacedBatch) -> list[bytes]:
        """Not more is held back than whoever filled the file can do without."""
        self.count(batch.size, len(batch.entries))
        ready = [*self._kept_frame(), *self._gatherer.add(placed_frame(batch.entries))]
        self._placed += batch.size
        if self._placed >= _HELD_BYTES:
            ready += self._gatherer.flush()
            self._placed = 0
        return ready

    async def send(self, entry: EntrySource, progress: Progress) -> AsyncIterator[bytes]:
        key, metadata, size, blocks = entry
        for ready in [*self._kept_frame(), *self._gatherer.add(encode(EntryBegin(key, size, dict(metadata))))]:
            yield ready
        hasher, sent = Hasher(), 0
        async for piece in blocks:
            hasher.update(piece)
            sent += len(piece)
            for frame in _data_frames(piece):
                for ready in self._gatherer.add(frame):
                    yield ready
            progress(len(piece))
        if sent != size:
            message = f"entry {key!r} was announced with {size} bytes and has {sent}: it changed while it was read"
            raise CopyStreamError(temporary("entry_changed", message, field=self._part))
        digest = hasher.hex()
        self._whole(key, metadata, size, digest)
        for ready in self._gatherer.add(encode(EntryEnd(size, digest))):
            yield ready

    def flush(self) -> list[bytes]:
        return [*self._kept_frame(), *self._gatherer.flush()]

    def end(self) -> list[bytes]:
        digest = self._hasher.hex() if self._hasher is not None else ""
        return [*self._kept_frame(), *self._gatherer.add(encode(End(self._total, digest, self._count))), *self.flush()]

    def _whole(self, key: str, metadata: Mapping[str, str], size: int, digest: str) -> None:
        self.count(size, 1)
        if self._hasher is not None:
            self._hasher.update(entry_line(key=key, size=size, metadata=metadata, digest=digest))

    def _kept_frame(self) -> list[bytes]:
        if not self._kept:
            return []
        ready = self._gatherer.add(kept_frame(self._kept))
        self._kept.clear()
        return ready


def _pieces(pieces: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """As pieces that are taken in at once."""
    for at, length in pieces:
        for offset in range(0, length, _AT_ONCE_BYTES):
            yield at + offset, min(_AT_ONCE_BYTES, length - offset)
