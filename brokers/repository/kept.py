"""Entries of an earlier copy that a new one keeps: finding them in the parent's part, and telling a writer of them."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator

import msgspec

from brokers.repository.errors import (
    CopyNotFound,
    CorruptChunk,
    CorruptManifest,
    CorruptPart,
    KeptGone,
    KeptUnknown,
    RepositoryError,
)
from brokers.repository.manifest import ChunkRef, IndexEntry, Part
from brokers.repository.opened import CopyRepository, OpenCopy
from brokers.sdk.digests import Buffer, Hasher
from brokers.sdk.frames import End, Layout, encode, entry_line, known_frame

LINES_BYTES = 256 << 10
_CACHE_KIB = 4096
_TAKEN_AT_ONCE = 1000


def parent_part(repository: CopyRepository, *, parent: str, name: str) -> Part | None:
    """The part of that name in the parent, if it has one with entries. Raises CorruptManifest."""
    if not parent:
        return None
    try:
        part = repository.committed(parent).part(name)
    except CopyNotFound:
        return None
    return part if part is not None and part.is_entries else None


def known_pieces(repository: CopyRepository, *, parent: str, name: str) -> Iterator[Buffer]:
    """The body of layout `known` for a part of the parent; an empty one if there is none. Raises KeptGone."""
    try:
        yield from _known_pieces(repository, parent=parent, part=parent_part(repository, parent=parent, name=name))
    except RepositoryError as error:
        raise KeptGone(f"the copy before can't be read: {error}", copy=parent, part=name) from error


def _known_pieces(repository: CopyRepository, *, parent: str, part: Part | None) -> Iterator[Buffer]:
    hasher, size, count = Hasher(), 0, 0
    lines = bytearray()
    for entry in repository.entries(parent, part) if part is not None else ():
        lines += entry_line(key=entry.key, size=entry.size, metadata=entry.metadata, digest=entry.digest)
        size += entry.size
        count += 1
        if len(lines) >= LINES_BYTES:
            hasher.update(lines)
            yield known_frame(lines)
            lines.clear()
    if lines:
        hasher.update(lines)
        yield known_frame(lines)
    digest = hasher.hex()
    if part is not None and (size, digest, count) != (part.size, part.digest, part.entries or 0):
        raise CorruptPart("its entries are not what was written", copy=parent, part=part.name)
    yield encode(End(size, digest, count))


def unfit_by(error: KeptGone, *, parent: str) -> set[str]:
    """The parent, if what can't be kept speaks against it."""
    return set() if isinstance(error, KeptUnknown) else {parent}


def keep_whole(repository: CopyRepository, opened: OpenCopy, parent: str, name: str, *, of: str = "") -> Part:
    """Seals what came ahead, or the parent's part, as a part of the open copy: no entry of it changed. `of`: the digest
    that it must have. Raises KeptGone, Conflict, RepositoryBusy."""
    ahead = opened.ahead(name) if of else None
    if ahead is not None and ahead.digest == of:
        # Its chunks came with this very copy: the commit looks at them, as at those of any part.
        opened.begin_part(name, layout=Layout.ENTRIES, media_type=ahead.media_type, framed=True)
        try:
            opened.seal_part(ahead)
        finally:
            opened.end_part(name)
        return ahead
    try:
        part = parent_part(repository, parent=parent, name=name)
        if of and (part is None or part.digest != of):
            raise KeptUnknown("nothing with this digest lies here", copy=opened.copy, part=name)
        if part is None:
            raise CopyNotFound("has no such part any more", copy=parent, part=name)
        chunks = itertools.chain(part.index or (), data_chunks_of(repository, parent, part))
        opened.begin_part(name, layout=Layout.ENTRIES, media_type=part.media_type, framed=True)
        try:
            whole = opened.rely_on(parent)
            while not whole and (refs := list(itertools.islice(chunks, _TAKEN_AT_ONCE))):
                if (lost := opened.lost(refs)) is not None:
                    raise CorruptPart(f"chunk {lost.digest} is gone", copy=parent, part=name)
            opened.seal_part(part)
        finally:
            opened.end_part(name)
    except (CopyNotFound, CorruptPart, CorruptChunk, CorruptManifest) as error:
        raise KeptGone(f"the part can't be kept: {error}", copy=parent, part=name) from error
    return part


def data_chunks_of(repository: CopyRepository, copy: str, part: Part) -> Iterator[ChunkRef]:
    """The chunks that the entries of a part name."""
    return (ref for entry in repository.entries(copy, part) for ref in entry.chunks)


class Earlier:
    """The entries of the parent's part, by key. Cheap when asked for in the order in which they lie there; what was
    passed over is kept in a temporary file, so that memory stays bounded. One caller at a time."""

    def __init__(self, entries: Callable[[], Iterator[IndexEntry]], lines: Callable[[str], Iterator[bytes]]) -> None:
        """`entries` begins to read the part, from its first entry; called twice at most. `lines` begins to read the
        lines of the index of a part of a digest: the parent's, or what came ahead."""
        self._entries = entries
        self._lines = Ranges(lines)
        self._rest: Iterator[IndexEntry] | None = None
        self._next: IndexEntry | None = None
        self._passed: sqlite3.Connection | None = None
        self._all = False
        self._lock = threading.Lock()
        self._closed = False
        self._decoder = msgspec.msgpack.Decoder(IndexEntry)

    def find(self, key: str) -> IndexEntry | None:
        """The entry, or None. Raises a RepositoryError when the parent is gone or damaged."""
        with self._lock:
            return None if self._closed else self._find(key)

    def range(self, *, first: int, count: int, of: str) -> Iterator[bytes]:
        """The lines of the index of some entries, by their numbers, in a part of this digest. Raises a RepositoryError
        when the parent is gone, damaged or another one."""
        return self._lines.range(first=first, count=count, of=of)

    def _find(self, key: str) -> IndexEntry | None:
        if self._rest is None:
            self._rest = self._entries()
        if self._next is None:
            self._next = next(self._rest, None)
        following = self._next
        if following is not None and following.key == key:
            self._next = None
            return following
        # Not in order: it was passed over, or it lies behind.
        return self._look(key) or self._advance(key) or self._again(key)

    def close(self) -> None:
        """Removes the temporary file; nothing is found any more."""
        with self._lock:
            self._closed = True
            if self._passed is not None:
                self._passed.close()
                self._passed = None

    def _look(self, key: str) -> IndexEntry | None:
        if self._passed is None:
            return None
        row = self._passed.execute("SELECT entry FROM passed WHERE key = ?", (key.encode(),)).fetchone()
        return self._decoder.decode(row[0]) if row is not None else None

    def _advance(self, key: str) -> IndexEntry | None:
        """Reads on to the entry, remembering what lies between."""
        if self._next is None:
            return None
        ahead = itertools.chain((self._next,), self._rest or ())
        self._next = None
        self._remember(itertools.takewhile(lambda entry: not self._stops(entry, key), ahead))
        found, self._next = self._next, None
        return found

    def _stops(self, entry: IndexEntry, key: str) -> bool:
        if entry.key == key:
            self._next = entry
        return entry.key == key

    def _again(self, key: str) -> IndexEntry | None:
        """Once, all of it: the entry may be one that was given already."""
        if self._all:
            return None
        self._all = True
        self._remember(self._entries())
        return self._look(key)

    def _remember(self, entries: Iterator[IndexEntry]) -> None:
        if self._passed is None:
            # Without a name it is a temporary file, which vanishes when it is closed.
            self._passed = sqlite3.connect("", check_same_thread=False, isolation_level=None)
            self._passed.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            self._passed.execute("PRAGMA journal_mode=OFF")
            self._passed.execute("CREATE TABLE passed (key BLOB PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID")
        self._passed.execute("BEGIN")
        try:
            self._passed.executemany(
                "INSERT OR IGNORE INTO passed VALUES (?, ?)",
                ((entry.key.encode(), msgspec.msgpack.encode(entry)) for entry in entries),
            )
        finally:
            self._passed.execute("COMMIT")


class Ranges:
    """Runs of index lines by number. Cheap when they are asked for in order."""

    def __init__(self, lines: Callable[[str], Iterator[bytes]]) -> None:
        self._begin = lines
        self._blocks: Iterator[bytes] = iter(())
        self._digest = ""
        self._block = b""
        self._at = 0
        self._first: int | None = None

    def range(self, *, first: int, count: int, of: str) -> Iterator[bytes]:
        """Lines `first` to `first + count`, many at a time."""
        if self._first is None or first < self._first or self._digest != of:
            self._digest, self._blocks = of, self._begin(of)
            self._block, self._at, self._first = b"", 0, 0
        self._skip(first - self._first)
        while count:
            piece, lines = self._take(count)
            self._first += lines
            count -= lines
            yield piece

    def _skip(self, count: int) -> None:
        while count:
            _, lines = self._take(count)
            count -= lines
            self._first = (self._first or 0) + lines

    def _take(self, most: int) -> tuple[bytes, int]:
        """The next lines, at most so many, and how many they are."""
        if self._at == len(self._block):
            found = next(self._blocks, None)
            if found is None:
                raise CorruptPart("has fewer entries than the writer knows")
            self._block, self._at = found, 0
        left = self._block.count(b"\n", self._at)
        if left <= most:
            piece, self._at = self._block[self._at :], len(self._block)
            return piece, left
        end = self._at
        for _ in range(most):
            end = self._block.index(b"\n", end) + 1
        piece, self._at = self._block[self._at : end], end
        return piece, most


def earlier(repository: CopyRepository, opened: OpenCopy, *, parent: str, name: str) -> Earlier | None:
    """What a writer with this parent may refer to in the part; None where there is neither a parent nor anything that
    came ahead."""
    ahead = opened.ahead(name)
    if not parent and ahead is None:
        return None

    def entries() -> Iterator[IndexEntry]:
        part = parent_part(repository, parent=parent, name=name)
        if part is None:
            raise CopyNotFound("has no such part any more", copy=parent, part=name)
        return repository.entries(parent, part)

    def lines(of: str) -> Iterator[bytes]:
        if ahead is not None and ahead.digest == of:
            return opened.index_blocks(ahead)
        part = parent_part(repository, parent=parent, name=name)
        if part is None and parent:
            raise CopyNotFound("has no such part any more", copy=parent, part=name)
        if part is None or part.digest != of:
            raise KeptUnknown("nothing with this digest lies here", copy=opened.copy, part=name)
        return repository.index_blocks(parent, part)

    return Earlier(entries, lines)
