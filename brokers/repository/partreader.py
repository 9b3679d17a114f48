"""Gives back a part, chunk by chunk, each one checked; and walks over the chunks that a part names."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from brokers.repository.errors import CorruptPart
from brokers.repository.manifest import ChunkRef, IndexEntry, Part
from brokers.sdk.digests import Hasher
from brokers.sdk.frames import Data, End, EntryBegin, EntryEnd, entry_line

SMALL_BYTES = 1 << 20
BATCH_BYTES = 2 << 20
BATCH_LINES_BYTES = 256 << 10
"""Entries up to so many bytes are given together: up to about so many bytes of theirs, or of their lines."""

ReadChunk = Callable[[ChunkRef], bytes]
"""Gives the checked plaintext of a chunk, or raises CorruptChunk."""

Line = TypeVar("Line", ChunkRef, IndexEntry)


class ChunkSource(Protocol):
    """Where the chunks of a part are read from. Raises CorruptChunk."""

    def one(self, ref: ChunkRef) -> bytes:
        """The checked plaintext of a chunk."""

    def all(self, items: Iterator[ChunkRef | IndexEntry | None]) -> Iterator[bytes | IndexEntry | None]:
        """The same items, with the plaintext in place of each chunk: it may be read ahead."""


class Singly:
    """A source that reads a chunk when its turn comes."""

    def __init__(self, read: ReadChunk) -> None:
        self.one = read

    def all(self, items: Iterator[ChunkRef | IndexEntry | None]) -> Iterator[bytes | IndexEntry | None]:
        return (self.one(item) if isinstance(item, ChunkRef) else item for item in items)


_CHUNK = re.compile(rb'\["([0-9a-f]{64})",(\d+)\]')
_BEFORE_DIGEST = re.compile(rb'^\{"chunks":\[[^{}]*?\],(?="digest":")', re.MULTILINE)


def index_blocks(part: Part, read: ReadChunk, *, copy: str) -> Iterator[bytes]:
    """The lines of the index, whole ones, many at a time. Raises CorruptChunk, CorruptPart."""
    rest = b""
    for ref in part.index or ():
        block = rest + read(ref)
        end = block.rfind(b"\n") + 1
        rest = block[end:]
        if end:
            yield block[:end]
    if rest:
        raise CorruptPart("its index can't be read: it doesn't end with a line end", copy=copy, part=part.name)


def chunks_in(lines: bytes) -> list[ChunkRef]:
    """The chunks that lines of an index of entries name. In JSON no text looks like one: its quotes are escaped."""
    return [ChunkRef(name.decode(), int(size)) for name, size in _CHUNK.findall(lines)]


def entry_lines(lines: bytes) -> bytes | None:
    """Lines of an index of entries as they count into the digest of the part; None where they are not as expected."""
    found, count = _BEFORE_DIGEST.subn(b"{", lines)
    return found if count == lines.count(b"\n") else None


def _lines(index: Iterable[ChunkRef], read: ReadChunk) -> Iterator[bytes]:
    rest = b""
    for ref in index:
        pieces = (rest + read(ref)).split(b"\n")
        rest = pieces.pop()
        yield from pieces
    if rest:
        raise ValueError("the index doesn't end with a line end")


def _records(part: Part, read: ReadChunk, kind: type[Line], *, copy: str) -> Iterator[Line]:
    decoder = msgspec.json.Decoder(kind)
    try:
        for line in _lines(part.index or (), read):
            yield decoder.decode(line)
    except ValueError as error:
        raise CorruptPart(f"its index can't be read: {error}", copy=copy, part=part.name) from error


def index_entries(part: Part, read: ReadChunk, *, copy: str) -> Iterator[IndexEntry]:
    """The entries of an entries part, in order. Raises CorruptChunk, CorruptPart."""
    return _records(part, read, IndexEntry, copy=copy)


def stream_chunks(part: Part, read: ReadChunk, *, copy: str) -> Iterator[ChunkRef]:
    """The data chunks of a stream part, in order. Raises CorruptChunk, CorruptPart."""
    if part.chunks is not None:
        return iter(part.chunks)
    return _records(part, read, ChunkRef, copy=copy)


def data_chunks(part: Part, read: ReadChunk, *, copy: str) -> Iterator[ChunkRef]:
    """All data chunks that a part names, in order; a chunk that occurs twice comes twice."""
    if part.is_entries:
        return (ref for lines in index_blocks(part, read, copy=copy) for ref in chunks_in(lines))
    return stream_chunks(part, read, copy=copy)


def all_chunks(part: Part, read: ReadChunk, *, copy: str) -> Iterator[ChunkRef]:
    """The chunks of the index, then the data chunks."""
    yield from part.index or ()
    yield from data_chunks(part, read, copy=copy)


def _items(part: Part, read: ReadChunk, *, copy: str) -> Iterator[ChunkRef | IndexEntry | None]:
    """The data chunks of a part; before those of an entry the entry, behind them `None`."""
    if not part.is_entries:
        yield from stream_chunks(part, read, copy=copy)
        return
    for entry in index_entries(part, read, copy=copy):
        yield entry
        yield from entry.chunks
        yield None


def read_events(part: Part, source: ChunkSource, *, copy: str) -> Iterator[EntryBegin | Data | EntryEnd | End]:
    """The part as events of the frame format, END last. Raises CorruptChunk or CorruptPart, and then END never
    comes: a part that isn't sound has no end."""
    size, count, entries = 0, 0, 0
    hasher, entry_hasher = Hasher(), Hasher()
    entry: IndexEntry | None = None
    entry_size = 0
    for item in source.all(_items(part, source.one, copy=copy)):
        if isinstance(item, IndexEntry):
            entry, entry_hasher, entry_size = item, Hasher(), 0
            yield EntryBegin(item.key, item.size, item.metadata)
        elif item is not None:
            count += 1
            if part.is_entries:
                entry_hasher.update(item)
                entry_size += len(item)
            else:
                hasher.update(item)
                size += len(item)
            yield Data(item)
        elif entry is not None:
            if entry_size != entry.size or entry_hasher.hex() != entry.digest:
                raise CorruptPart(f"entry {entry.key!r} is not what was written", copy=copy, part=part.name)
            hasher.update(entry_line(key=entry.key, size=entry.size, metadata=entry.metadata, digest=entry.digest))
            size += entry.size
            entries += 1
            yield EntryEnd(entry.size, entry.digest)
    expected = (part.size, part.digest, part.chunk_count, part.entries or 0)
    if (size, hasher.hex(), count, entries) != expected:
        raise CorruptPart("its size or digest is not what was written", copy=copy, part=part.name)
    yield End(size, part.digest, part.entries)


class WholeEntries(NamedTuple):
    """Some small entries: their entry lines, and their chunks in order."""

    lines: bytes
    data: list[bytes]


def read_batches(
    part: Part, source: ChunkSource, *, copy: str
) -> Iterator[WholeEntries | EntryBegin | Data | EntryEnd | End]:
    """A part with entries as `read_events` gives it, small entries together. The digests of entries are left to whoever
    gets them: their lines, and the ends of big ones, say them. Raises CorruptChunk or CorruptPart."""
    size, count, entries = 0, 0, 0
    hasher = Hasher()
    entry: IndexEntry | None = None
    entry_size = 0
    lines, data, gathered = bytearray(), list[bytes](), 0
    for item in source.all(_items(part, source.one, copy=copy)):
        if isinstance(item, IndexEntry):
            entry, entry_size = item, 0
            if item.size > SMALL_BYTES:
                if lines:
                    yield WholeEntries(bytes(lines), data)
                    lines, data, gathered = bytearray(), [], 0
                yield EntryBegin(item.key, item.size, item.metadata)
        elif item is not None:
            count += 1
            entry_size += len(item)
            if entry is not None and entry.size > SMALL_BYTES:
                yield Data(item)
            else:
                data.append(item)
        elif entry is not None:
            if entry_size != entry.size:
                raise CorruptPart(f"entry {entry.key!r} is not what was written", copy=copy, part=part.name)
            line = entry_line(key=entry.key, size=entry.size, metadata=entry.metadata, digest=entry.digest)
            hasher.update(line)
            size += entry.size
            entries += 1
            if entry.size > SMALL_BYTES:
                yield EntryEnd(entry.size, entry.digest)
                continue
            lines += line
            gathered += entry.size
            if gathered >= BATCH_BYTES or len(lines) >= BATCH_LINES_BYTES:
                yield WholeEntries(bytes(lines), data)
                lines, data, gathered = bytearray(), [], 0
    if lines:
        yield WholeEntries(bytes(lines), data)
    expected = (part.size, part.digest, part.chunk_count, part.entries or 0)
    if (size, hasher.hex(), count, entries) != expected:
        raise CorruptPart("its size or digest is not what was written", copy=copy, part=part.name)
    yield End(size, part.digest, part.entries)
