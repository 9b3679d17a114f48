"""A copy that is being written: opened, its parts sealed one by one, then committed or aborted.

On disk (`staging/<copy>/`): `open.json` says what was opened, `chunks/` holds new chunks, `parts/<part>.json` the
parts that are whole. A crash at any point leaves all of it usable: opening again resumes.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from brokers.filesystem.format0.chunks import ChunkStore, StagedChunks
from brokers.filesystem.format0.files import Files
from brokers.repository.errors import Conflict, CorruptChunk, IncompleteCopy, RepositoryBusy
from brokers.repository.kept import Earlier
from brokers.repository.manifest import ChunkRef, CopyInfo, Part, canonical, check_name
from brokers.repository.partreader import ReadChunk, all_chunks, index_blocks
from brokers.repository.partwriter import PartWriter
from brokers.repository.placed import PassedBytes
from brokers.sdk.digests import Buffer
from brokers.sdk.frames import Layout


class OpenRecord(msgspec.Struct, frozen=True):
    """What `open.json` holds: what was said when the copy was opened; `manifest` for a copy that is fetched."""

    copy: str
    info: CopyInfo
    manifest: bytes | None = None


def read_sealed(directory: Path) -> dict[str, Part]:
    """The sealed parts that lie in a staging directory, also without opening it."""
    folder = directory / "parts"
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    parts = [msgspec.json.decode(path.read_bytes(), type=Part) for path in paths if path.name[0] != "."]
    return {part.name: part for part in parts}


class OpenCopy:
    """One open copy in this process. Parts may be written at the same time, each by one connection."""

    def __init__(self, record: OpenRecord, directory: Path, store: ChunkStore, files: Files) -> None:
        self.record = record
        self.directory = directory
        self.staged = StagedChunks(directory, store, files)
        self._store = store
        self._files = files
        self._writing: set[str] = set()
        self._lock = threading.Lock()
        self._closed = False
        self.committing = threading.Lock()

    @property
    def copy(self) -> str:
        return self.record.copy

    @property
    def info(self) -> CopyInfo:
        return self.record.info

    @property
    def writing(self) -> frozenset[str]:
        """The parts that a connection is writing now."""
        with self._lock:
            return frozenset(self._writing)

    @classmethod
    def open(cls, record: OpenRecord, directory: Path, store: ChunkStore, files: Files) -> "OpenCopy":
        """Begins the copy, or resumes it if `directory` is there. Raises Conflict if it was opened otherwise."""
        marker = directory / "open.json"
        if marker.exists():
            known = msgspec.json.decode(marker.read_bytes(), type=OpenRecord)
            if known != record:
                raise Conflict("was opened before with other particulars", copy=record.copy)
        else:
            # Without its marker the directory is what an abort or a commit left half removed.
            files.remove_tree(directory)
            files.make_directory(directory / "parts")
            files.replace(marker, canonical(record))
        opened = cls(record, directory, store, files)
        opened.staged.take_over()
        return opened

    @property
    def parent(self) -> str:
        """The copy that this one is taken on top of; empty if none was said."""
        try:
            return (self.directory / "parent").read_text()
        except FileNotFoundError:
            return ""

    def take_on(self, parent: str) -> None:
        """Records the parent."""
        if parent != self.parent:
            self._files.replace(self.directory / "parent", parent.encode())

    def ahead(self, _name: str) -> Part | None:
        """This format takes nothing ahead."""
        return None

    def seal_ahead(self, part: Part) -> None:
        raise Conflict("this format takes nothing ahead", copy=self.copy, part=part.name)

    def index_blocks(self, part: Part) -> Iterator[bytes]:
        return index_blocks(part, self._reading(part), copy=self.copy)

    def rely_on(self, _copy: str) -> bool:
        """Here each chunk is looked at."""
        return False

    def sealed(self) -> dict[str, Part]:
        return read_sealed(self.directory)

    def begin_part(
        self,
        name: str,
        *,
        layout: Layout,
        media_type: str,
        framed: bool,
        progress: Callable[[int], None] | None = None,
        earlier: Earlier | None = None,
        file: PassedBytes | None = None,
    ) -> PartWriter:
        """Starts a part anew; its earlier body counts until the new one is sealed. Raises RepositoryBusy while
        another connection writes it. `end_part` must follow."""
        check_name(name, what="part name")
        with self._lock:
            if self._closed:
                raise Conflict("is closed: it was committed or aborted", copy=self.copy, part=name)
            if name in self._writing:
                raise RepositoryBusy("is being written by another connection", copy=self.copy, part=name)
            self._writing.add(name)
        return PartWriter(
            copy=self.copy,
            name=name,
            layout=layout,
            media_type=media_type,
            framed=framed,
            sink=self.staged,
            progress=progress,
            earlier=earlier,
            file=file,
        )

    def seal_part(self, part: Part) -> None:
        """Records that the part is whole."""
        with self._lock:
            if self._closed:
                raise Conflict("is closed: it was committed or aborted", copy=self.copy, part=part.name)
            self._files.replace(self.directory / "parts" / f"{part.name}.json", canonical(part))

    def end_part(self, name: str) -> None:
        """The connection that wrote the part is gone, whether it sealed it or not."""
        with self._lock:
            self._writing.discard(name)

    def close(self, *, force: bool = False) -> None:
        """No more writing. Raises RepositoryBusy while a part is being written, unless forced."""
        with self._lock:
            if self._writing and not force:
                busy = ", ".join(sorted(self._writing))
                raise RepositoryBusy("is still being written", copy=self.copy, part=busy)
            self._closed = True

    def unseal_part(self, name: str) -> None:
        """The part lost a chunk: it has to be written again."""
        self._files.unlink(self.directory / "parts" / f"{name}.json")

    def reopen(self) -> None:
        """A commit failed; the copy can be written on."""
        with self._lock:
            self._closed = False

    def lost(self, refs: Sequence[ChunkRef]) -> ChunkRef | None:
        """Takes chunks that lie in the repository; the first one that doesn't."""
        return self.staged.lost(refs)

    def has_chunk(self, digest: str, *, size: int) -> bool:
        """Whether the chunk needs no fetching."""
        return self.staged.has(digest, size=size)

    def keep_chunk(self, digest: str, packed: Buffer, *, size: int) -> None:
        """Adds a chunk that was fetched, checked. Raises CorruptChunk."""
        self.staged.put_stored(digest, packed, size=size, copy=self.copy)

    def chunks_of(self, part: Part) -> Iterator[ChunkRef]:
        """Every chunk that a part of this copy names, its index read from where it lies now."""
        return all_chunks(part, self._reading(part), copy=self.copy)

    def _reading(self, part: Part) -> ReadChunk:
        def read(ref: ChunkRef) -> bytes:
            return self.staged.read(ref.digest, size=ref.size, copy=self.copy, part=part.name)

        return read

    def needed_chunks(self, parts: tuple[Part, ...]) -> dict[str, int]:
        """Digest and plaintext size of all chunks of the parts. Raises IncompleteCopy naming the part of which a
        chunk is neither staged, whole, nor in the repository."""
        needed: dict[str, int] = {}
        for part in parts:
            try:
                for ref in self.chunks_of(part):
                    if ref.digest in needed:
                        continue
                    if not self.staged.has(ref.digest, size=ref.size):
                        raise IncompleteCopy("was lost", copy=self.copy, part=part.name, chunk=ref.digest)
                    needed[ref.digest] = ref.size
            except CorruptChunk as error:
                raise IncompleteCopy("was lost", copy=self.copy, part=part.name, chunk=error.chunk) from error
        return needed

    def publish_chunks(self, needed: Mapping[str, int]) -> int:
        """Makes every chunk durable, then gives it its name in the repository, durably. Returns stored bytes."""
        self._files.sync_files((self.staged.path(digest) for digest in needed), root=self.directory)
        stored = sum(self.staged.publish(digest) for digest in needed)
        folders = {self._store.path(digest).parent for digest in needed}
        for folder in sorted(folders):
            self._files.sync_path(folder)
        for root in {folder.parent for folder in folders}:
            self._files.sync_path(root)
        return stored

    def remove(self) -> None:
        """Removes the staging directory, the marker first, so that a half-removed one is never resumed."""
        self._files.unlink(self.directory / "open.json")
        self._files.remove_tree(self.directory)
