"""Where chunks lie: the durable ones of the repository, and those of a copy that is being written.

A chunk gets its name below `chunks/` only after its bytes were synced. So whatever stands there can be shared,
also after a power failure, and what a crash may have torn lies in `staging/`, where it is checked before use.

An open copy holds a name (a hard link) of its own for every chunk that it needs, new or shared. So the collector may
take any name below `chunks/` from under a writer: the commit puts it back.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path

from brokers.filesystem.format0.files import Files
from brokers.repository.compression import NotCompressed, compress, decompress
from brokers.repository.errors import CorruptChunk
from brokers.repository.manifest import ChunkRef
from brokers.sdk.digests import Buffer, digest_hex, is_digest


def open_chunk(stored: Buffer, *, digest: str, size: int, copy: str | None = None, part: str | None = None) -> bytes:
    """The plaintext of a stored chunk, checked against its digest. Raises CorruptChunk."""
    try:
        plain = decompress(stored, size=size)
    except NotCompressed as error:
        raise CorruptChunk(f"is damaged: {error}", copy=copy, part=part, chunk=digest) from error
    if digest_hex(plain) != digest:
        raise CorruptChunk("is damaged: its bytes are not those of its digest", copy=copy, part=part, chunk=digest)
    return plain


class ChunkStore:
    """The durable chunks: `chunks/ab/<digest>`."""

    def __init__(self, root: Path, files: Files) -> None:
        self._root = root
        self._files = files
        self._lock = threading.Lock()
        self._collection = threading.Lock()
        self._publishing: list[Set[str]] = []
        self._published_late: set[str] | None = None

    def path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest

    @contextlib.contextmanager
    def publishing(self, digests: Set[str]) -> Iterator[None]:
        """From the first link of these chunks until the manifest that names them is there, nobody removes them."""
        with self._lock:
            self._publishing.append(digests)
        try:
            yield
        finally:
            with self._lock:
                self._publishing = [held for held in self._publishing if held is not digests]
                if self._published_late is not None:
                    self._published_late |= digests

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """One collection at a time. Begun before the manifests are read, so that what is committed meanwhile is
        known to `remove_unless_published`."""
        with self._collection:
            with self._lock:
                self._published_late = set()
            try:
                yield
            finally:
                with self._lock:
                    self._published_late = None

    def remove_unless_published(self, path: Path) -> int | None:
        """Removes a chunk that no manifest named when the collection began. Its stored bytes, or None if a commit
        needs it meanwhile."""
        with self._lock:
            held = [*self._publishing, self._published_late or set()]
            if any(path.name in digests for digests in held):
                return None
            size = path.stat().st_size
            self._files.unlink(path)
            return size

    def set_aside(self, digest: str) -> None:
        """Takes a damaged chunk out of the repository, so that the next writer of the same bytes writes them anew
        and with that heals every copy that names them. It is kept in `damaged/` for whoever looks for the cause."""
        with self._lock:
            aside = self._root.parent / "damaged"
            self._files.make_directory(aside)
            with contextlib.suppress(FileNotFoundError):
                self._files.rename(self.path(digest), aside / digest)

    def read_stored(self, digest: str, *, copy: str | None = None, part: str | None = None) -> bytes:
        """The chunk as it lies, unchecked. Raises CorruptChunk if it is missing."""
        try:
            return self.path(digest).read_bytes()
        except FileNotFoundError:
            raise CorruptChunk("is missing", copy=copy, part=part, chunk=digest) from None

    def read(self, digest: str, *, size: int, copy: str | None = None, part: str | None = None) -> bytes:
        """The plaintext, checked. Raises CorruptChunk."""
        stored = self.read_stored(digest, copy=copy, part=part)
        return open_chunk(stored, digest=digest, size=size, copy=copy, part=part)

    def all(self) -> Iterator[Path]:
        """Every chunk's path, in no order."""
        for directory in self._root.iterdir() if self._root.is_dir() else ():
            for path in directory.iterdir():
                if is_digest(path.name):
                    yield path


class StagedChunks:
    """The chunks that one open copy adds: `staging/<copy>/chunks`. Those that an earlier process left are in
    `found` and are checked before they count."""

    def __init__(self, directory: Path, store: ChunkStore, files: Files) -> None:
        self._fresh = directory / "chunks"
        self._found = directory / "found"
        self._has_found = False
        self._store = store
        self._files = files

    def take_over(self) -> None:
        """Puts aside what an earlier process wrote. Called once, before anything else."""
        if self._fresh.is_dir():
            self._files.make_directory(self._found)
            for path in list(self._fresh.iterdir()):
                self._files.rename(path, self._found / path.name)
        self._files.make_directory(self._fresh)
        self._has_found = self._found.is_dir()

    def path(self, digest: str) -> Path:
        return self._fresh / digest

    def has(self, digest: str, *, size: int) -> bool:
        """Whether the chunk needs no writing: staged here and whole, or in the repository."""
        if self._fresh.joinpath(digest).exists():
            return True
        if self._has_found and self._adopt(digest, size=size):
            return True
        return self._share(digest)

    def put(self, plain: memoryview) -> Callable[[], ChunkRef]:
        """Adds a chunk (`brokers.repository.partwriter.ChunkSink`); it is there when this returns."""
        ref = ChunkRef(digest_hex(plain), len(plain))
        self.put_plain(ref.digest, plain)
        return lambda: ref

    def put_all(self, plains: Sequence[memoryview]) -> Callable[[], list[ChunkRef]]:
        """Adds chunks; they are there when this returns."""
        refs = [self.put(plain)() for plain in plains]
        return lambda: refs

    def lost(self, refs: Sequence[ChunkRef]) -> ChunkRef | None:
        """Takes chunks that lie in the repository, with a name of their own; the first one that doesn't."""
        return next((ref for ref in refs if not self.has(ref.digest, size=ref.size)), None)

    def put_plain(self, digest: str, plain: Buffer) -> None:
        """Adds a chunk unless it's there."""
        if not self.has(digest, size=len(plain)):
            self._write(digest, compress(plain))

    def put_stored(self, digest: str, stored: Buffer, *, size: int, copy: str) -> None:
        """Adds a chunk that comes compressed from elsewhere, after checking it. Raises CorruptChunk."""
        open_chunk(stored, digest=digest, size=size, copy=copy)
        self._write(digest, stored)

    def read(self, digest: str, *, size: int, copy: str, part: str | None) -> bytes:
        """The plaintext of a chunk that is staged or in the repository, checked."""
        for path in (self._fresh / digest, self._found / digest):
            try:
                stored = path.read_bytes()
            except FileNotFoundError:
                continue
            return open_chunk(stored, digest=digest, size=size, copy=copy, part=part)
        return self._store.read(digest, size=size, copy=copy, part=part)

    def publish(self, digest: str) -> int:
        """Gives a staged, synced chunk its name in the repository, if it has none yet. Returns its stored bytes."""
        target = self._store.path(digest)
        if not target.exists():
            self._files.make_directory(target.parent)
            self._files.link(self._fresh / digest, target)
        return target.stat().st_size

    def _share(self, digest: str) -> bool:
        try:
            self._files.link(self._store.path(digest), self._fresh / digest)
        except FileNotFoundError:
            return False
        return True

    def _adopt(self, digest: str, *, size: int) -> bool:
        found = self._found / digest
        try:
            stored = found.read_bytes()
        except FileNotFoundError:
            return False
        try:
            open_chunk(stored, digest=digest, size=size)
        except CorruptChunk:
            self._files.unlink(found)
            return False
        try:
            self._files.rename(found, self._fresh / digest)
        except FileNotFoundError:
            # Another part of the same copy was quicker.
            return (self._fresh / digest).exists()
        return True

    def _write(self, digest: str, stored: Buffer) -> None:
        # Two parts of one copy may write the same chunk at once: each has its own temporary name.
        temporary = self._fresh / f"{digest}.{threading.get_ident()}.tmp"
        self._files.write_new(temporary, stored)
        self._files.rename(temporary, self._fresh / digest)
