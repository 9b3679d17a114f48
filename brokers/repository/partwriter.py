"""Takes the body of one part, in frames or as raw bytes, and turns it into chunks and a sealed `Part`."""

import collections
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from brokers.repository.chunking import Chunker
from brokers.repository.errors import InvalidPart, KeptGone, KeptUnknown, RepositoryError
from brokers.repository.kept import Earlier
from brokers.repository.manifest import ChunkRef, IndexEntry, Part
from brokers.repository.partreader import chunks_in, entry_lines
from brokers.repository.placed import Batch, PassedBytes, PlacedReader, Unreadable
from brokers.sdk.digests import Buffer, Hasher
from brokers.sdk.frames import (
    Data,
    DataAt,
    End,
    EntryBegin,
    EntryEnd,
    Failure,
    FrameDecoder,
    FrameError,
    Kept,
    KeptEntry,
    KeptRange,
    Layout,
    Placed,
    PlacedEntry,
    entry_line,
)

INLINE_CHUNKS = 1024
"""A stream of more chunks than this keeps them in an index instead of in the manifest."""
AHEAD_BYTES = 8 << 20
AHEAD_ITEMS = 2048
"""How far the chunks that were handed to the sink may be ahead of those that it is through with."""
_INDEX_ENCODER = msgspec.json.Encoder(order="sorted")


class ChunkSink(Protocol):
    """Where the chunks of an open copy go."""

    def put(self, plain: memoryview) -> Callable[[], ChunkRef]:
        """Takes a chunk, whose bytes never change. Calling the answer waits until the chunk is stored (or was known),
        gives its name and size, and raises what went wrong with it."""

    def put_all(self, plains: Sequence[memoryview]) -> Callable[[], Sequence[ChunkRef]]:
        """Takes some small chunks at once, whose bytes don't change until the answer was called."""

    def lost(self, refs: Sequence[ChunkRef]) -> ChunkRef | None:
        """Takes chunks that lie in the repository already, as if they had come again: from here on no collection
        frees them. The first of them that isn't there, or can't be relied upon."""


class PartWriter:
    """One body of one part. `feed` is called with blocks in order, from any thread but one at a time, and blocks
    on the disk. Memory stays bounded by the chunker's buffers, except for the chunk list of one single entry.

    `seal` is called once, when the body has ended cleanly; until then nothing of the part exists for anybody.
    """

    def __init__(
        self,
        *,
        copy: str,
        name: str,
        layout: Layout,
        media_type: str,
        framed: bool,
        sink: ChunkSink,
        progress: Callable[[int], None] | None = None,
        earlier: Earlier | None = None,
        file: PassedBytes | None = None,
    ) -> None:
        """`earlier` and `file`: what the part may refer to. With a file, its writer need not know digests."""
        self._placed = PlacedReader(file) if file is not None else None
        self._copy = copy
        self._name = name
        self._layout = layout
        self._media_type = media_type
        self._decoder = FrameDecoder(layout) if framed else None
        self._sink = sink
        self._progress = progress
        self._earlier = earlier
        self._chunker = Chunker(self._store_chunk)
        self._index_chunker = Chunker(self._store_index_chunk)
        self._index: list[Callable[[], ChunkRef]] = []
        self._ahead: collections.deque[tuple[int, Callable[[], ChunkRef] | IndexEntry | Batch | bytes]] = (
            collections.deque()
        )
        self._ahead_bytes = 0
        self._indexed = layout is Layout.ENTRIES
        self._chunks: list[ChunkRef] = []
        self._chunk_count = 0
        self._entries = 0
        self._ranges = False
        self._size = 0
        self._part_hasher = Hasher()
        self._entry: EntryBegin | None = None
        self._entry_hasher = Hasher()
        self._entry_size = 0

    def feed(self, block: Buffer) -> None:
        """Raises InvalidPart for a body that contradicts itself, OSError from the disk."""
        if self._decoder is None:
            self._data(block)
            return
        try:
            for event in self._decoder.feed(block):
                # In the order of how often they come.
                if isinstance(event, Data):
                    self._data(event.data)
                elif isinstance(event, EntryBegin):
                    self._entry = event
                    self._entry_hasher = Hasher()
                    self._entry_size = 0
                elif isinstance(event, EntryEnd):
                    self._end_entry(event)
                elif isinstance(event, Placed):
                    self._take(event.entries)
                elif isinstance(event, DataAt):
                    self._data(self._passed().block(event.at, event.length))
                elif isinstance(event, Kept):
                    self._keep(event.entries)
                elif isinstance(event, KeptRange):
                    self._keep_range(event)
                elif isinstance(event, End):
                    self._check_end(event)
                elif isinstance(event, Failure):
                    raise self._invalid(f"the writer gave up: {event.message}")
                else:
                    raise self._invalid("holds frames of another layout")
        except (FrameError, Unreadable) as error:
            raise self._invalid(str(error)) from error

    def seal(self) -> Part:
        """The finished part; its chunks are all staged. Raises InvalidPart if the body was cut short."""
        if self._decoder is not None:
            try:
                self._decoder.finish()
            except FrameError as error:
                raise self._invalid(str(error)) from error
        self._chunker.finish()
        self._catch_up(0, 0)
        if self._indexed:
            if self._layout is Layout.STREAM:
                self._flush_chunk_lines()
            self._index_chunker.finish()
        return Part(
            name=self._name,
            layout=self._layout.value,
            media_type=self._media_type,
            size=self._size,
            digest=self._part_hasher.hex(),
            chunk_count=self._chunk_count,
            entries=self._entries if self._layout is Layout.ENTRIES else None,
            chunks=None if self._indexed else tuple(self._chunks),
            index=tuple(stored() for stored in self._index) if self._indexed else None,
        )

    def _invalid(self, message: str) -> InvalidPart:
        return InvalidPart(message, copy=self._copy, part=self._name)

    def _data(self, data: Buffer) -> None:
        self._size += len(data)
        if self._layout is Layout.STREAM:
            self._part_hasher.update(data)
        else:
            self._entry_size += len(data)
            self._entry_hasher.update(data)
        self._chunker.feed(data)
        if self._progress is not None:
            self._progress(len(data))

    def _store_chunk(self, view: memoryview) -> None:
        self._chunk_count += 1
        self._queue(self._sink.put(view), len(view))

    def _passed(self) -> PlacedReader:
        if self._placed is None:
            raise Unreadable("speaks of a file that was not passed")
        return self._placed

    def _take(self, entries: list[PlacedEntry]) -> None:
        """Entries whose bytes lie in the file."""
        batch = self._passed().take(entries, self._sink.put_all)
        for entry, digest in zip(entries, batch.digests, strict=True):
            self._part_hasher.update(entry_line(key=entry.key, size=entry.size, metadata=entry.metadata, digest=digest))
        size = sum(entry.size for entry in entries)
        self._size += size
        self._chunk_count += batch.chunks
        self._entries += len(entries)
        self._queue(batch, size)
        if self._progress is not None:
            self._progress(size)

    def _queue(self, item: Callable[[], ChunkRef] | IndexEntry | Batch | bytes, size: int) -> None:
        self._ahead.append((size, item))
        self._ahead_bytes += size
        if self._ahead_bytes > AHEAD_BYTES or len(self._ahead) > AHEAD_ITEMS:
            self._catch_up(AHEAD_BYTES, AHEAD_ITEMS)

    def _catch_up(self, ahead_bytes: int, ahead_chunks: int) -> None:
        """Takes finished chunks in order, until no more than this is ahead."""
        while self._ahead and (self._ahead_bytes > ahead_bytes or len(self._ahead) > ahead_chunks):
            size, item = self._ahead.popleft()
            self._ahead_bytes -= size
            if isinstance(item, IndexEntry):
                self._index_entry(item)
                continue
            if isinstance(item, bytes):
                self._index_chunker.feed(item)
                continue
            if isinstance(item, Batch):
                self._index_chunker.feed(_INDEX_ENCODER.encode_lines(list(item.index())))
                continue
            self._chunks.append(item())
            if self._layout is Layout.STREAM and len(self._chunks) > INLINE_CHUNKS:
                self._indexed = True
                self._flush_chunk_lines()

    def _store_index_chunk(self, view: memoryview) -> None:
        self._index.append(self._sink.put(view))

    def _flush_chunk_lines(self) -> None:
        lines = b"".join(msgspec.json.encode(ref) + b"\n" for ref in self._chunks)
        self._chunks.clear()
        self._index_chunker.feed(lines)

    def _end_entry(self, end: EntryEnd) -> None:
        entry = self._entry
        digest = self._entry_hasher.hex()
        if entry is None:
            raise self._invalid("an entry ends that never began")
        if self._entry_size != entry.size or end.size != entry.size:
            raise self._invalid(
                f"entry {entry.key!r} was announced with {entry.size} bytes and holds {self._entry_size}"
            )
        if end.digest != digest and (end.digest or self._placed is None):
            raise self._invalid(f"entry {entry.key!r} did not arrive as it was sent: its digest differs")
        self._chunker.finish()
        self._queue(IndexEntry(entry.key, entry.size, digest, (), entry.metadata), 0)
        self._part_hasher.update(entry_line(key=entry.key, size=entry.size, metadata=entry.metadata, digest=digest))
        self._entries += 1
        self._entry = None

    def _keep(self, entries: list[KeptEntry]) -> None:
        """Entries whose chunks are those of entries of the parent."""
        found = [self._kept(entry) for entry in entries]
        refs = [ref for entry in found for ref in entry.chunks]
        lost = self._sink.lost(refs)
        if lost is not None:
            key = next(entry.key for entry in found if lost in entry.chunks)
            raise KeptGone(f"entry {key!r} can't be kept: a chunk of it is gone", copy=self._copy, part=self._name)
        for entry in found:
            self._queue(entry, 0)
            self._part_hasher.update(
                entry_line(key=entry.key, size=entry.size, metadata=entry.metadata, digest=entry.digest)
            )
            self._size += entry.size
            self._chunk_count += len(entry.chunks)
        self._entries += len(found)
        if self._progress is not None:
            self._progress(sum(entry.size for entry in found))

    def _keep_range(self, kept: KeptRange) -> None:
        """Entries that are as they were in the parent: so are their lines in the index."""
        if self._earlier is None:
            raise KeptUnknown("nothing that could be kept lies here", copy=self._copy, part=self._name)
        if kept.first < 0 or kept.count <= 0:
            raise self._invalid("a range of no entries is kept")
        self._ranges = True
        size = 0
        try:
            for lines in self._earlier.range(first=kept.first, count=kept.count, of=kept.of):
                refs, counted = chunks_in(lines), entry_lines(lines)
                if counted is None or self._sink.lost(refs) is not None:
                    raise KeptGone("a range can't be kept: a chunk of it is gone", copy=self._copy, part=self._name)
                self._part_hasher.update(counted)
                self._chunk_count += len(refs)
                size += sum(ref.size for ref in refs)
                self._queue(lines, 0)
        except KeptGone:
            raise
        except RepositoryError as error:
            raise KeptGone(f"a range can't be kept: {error}", copy=self._copy, part=self._name) from error
        if size != kept.size:
            raise self._invalid(f"the kept entries from {kept.first} have {size} bytes, not {kept.size}")
        self._size += size
        self._entries += kept.count
        if self._progress is not None:
            self._progress(size)

    def _kept(self, entry: KeptEntry) -> IndexEntry:
        if self._earlier is None:
            raise self._invalid(f"entry {entry.key!r} is one of a parent, and the grant names none")
        before = entry.of if entry.of is not None else entry.key
        try:
            found = self._earlier.find(before)
        except RepositoryError as error:
            raise KeptGone(f"entry {entry.key!r} can't be kept: {error}", copy=self._copy, part=self._name) from error
        if found is None or (found.size, found.digest) != (entry.size, entry.digest):
            told = "has no such entry" if found is None else "has other bytes"
            raise self._invalid(f"entry {entry.key!r} can't be kept: {before!r} of the parent {told}")
        return IndexEntry(entry.key, entry.size, entry.digest, found.chunks, entry.metadata)

    def _index_entry(self, entry: IndexEntry) -> None:
        # A kept one brings its chunks along.
        record = entry
        if self._chunks:
            record = IndexEntry(entry.key, entry.size, entry.digest, tuple(self._chunks), entry.metadata)
            self._chunks.clear()
        self._index_chunker.feed(msgspec.json.encode(record, order="sorted") + b"\n")

    def _check_end(self, end: End) -> None:
        told = end.digest or (self._placed is None and not self._ranges)
        if end.size != self._size or (told and end.digest != self._part_hasher.hex()):
            raise self._invalid("did not arrive as it was sent: its size or digest differs")
        if self._layout is Layout.ENTRIES and end.entries != self._entries:
            raise self._invalid(f"{end.entries} entries were announced, {self._entries} arrived")
