"""What a repository is to its endpoint, to a transfer and to the broker, whatever its format and wherever it lies.

All calls block: make them from threads. All are idempotent by copy id, and every crash leaves each copy whole or not
there. Errors are those of :mod:`brokers.repository.errors`, `OSError` from a file system, and whatever the object
store raises (a :class:`schemas.problems.CalqueError`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from brokers.repository.manifest import ChunkRef, CopyInfo, IndexEntry, Manifest, Part
from brokers.repository.partreader import WholeEntries
from brokers.repository.placed import PassedBytes
from brokers.sdk.digests import Buffer, digest_hex
from brokers.sdk.frames import Data, End, EntryBegin, EntryEnd, Layout
from schemas.values import ImageContent

if TYPE_CHECKING:
    from brokers.repository.kept import Earlier

RESERVED_FREE_BYTES = 64 << 20
"""Writing is refused when the store has less left: a full disk also stops the others on it."""


Depth = Literal["all", "sample", "structure"]
"""How much of a copy is read when it is verified: all of it, some chunks, or only what says where they lie."""


class CommittedCopy(msgspec.Struct, frozen=True):
    """A committed copy: its manifest, the manifest's own bytes, its parts with the chunks that hold them here, and
    until when it is locked here (as in `brokers.repository.retention.Lock`)."""

    manifest: Manifest
    raw: bytes
    parts: tuple[Part, ...]
    keep_until: str = ""

    @property
    def manifest_digest(self) -> str:
        return digest_hex(self.raw)

    def part(self, name: str) -> Part | None:
        return next((part for part in self.parts if part.name == name), None)


class ChunkLayout(msgspec.Struct, frozen=True):
    """How the chunks of a copy are named where it lies: the trust domain, and its parts with their chunks."""

    domain: str
    parts: tuple[Part, ...]


class ListedCopy(msgspec.Struct, frozen=True):
    """One line of a listing: the copy, or what is wrong with its manifest."""

    copy: str
    committed: CommittedCopy | None = None
    problem: str | None = None


class RecordedImage(msgspec.Struct, frozen=True):
    """The manifest of an image and the key (hex) whose signature over it holds; or what is wrong with it."""

    image: str
    content: ImageContent | None = None
    signed_by: str = ""
    problem: str | None = None


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong, with its place."""

    message: str
    part: str | None = None
    chunk: str | None = None


class Verification(msgspec.Struct, frozen=True):
    """The outcome of checking a copy: bytes of plaintext that were checked, and what is wrong."""

    copy: str
    checked_bytes: int
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        return not self.findings


class Collected(msgspec.Struct, frozen=True):
    """What a collection freed. `blocked` says why nothing was."""

    chunks: int = 0
    freed_bytes: int = 0
    blocked: str | None = None


class Repaired(msgspec.Struct, frozen=True):
    """What a repair did: index objects removed because they were damaged, copies that were given sound packs for
    damaged ones, and what it could not repair, one line each."""

    indexes: int = 0
    healed: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


class Stats(msgspec.Struct, frozen=True):
    """What a repository holds. `logical_bytes` is the plaintext of all copies, `stored_bytes` what lies in the store
    for their data, `staging_bytes` what open copies hold on top. `locked_bytes` of what is stored belong to copies that
    are locked, the last of them until `locked_until`."""

    copies: int
    open_copies: int
    chunks: int
    logical_bytes: int
    stored_bytes: int
    staging_bytes: int
    images: int = 0
    free_bytes: int | None = None
    locked_copies: int = 0
    locked_bytes: int = 0
    locked_until: str = ""


class PartWriting(Protocol):
    """One body of one part. `feed` takes blocks in order, from any thread but one at a time; `seal` is called once,
    when the body has ended cleanly. Raises InvalidPart."""

    def feed(self, block: Buffer) -> None: ...

    def seal(self) -> Part: ...


class OpenCopy(Protocol):
    """A copy that is being written. Parts may be written at the same time, each by one connection."""

    @property
    def copy(self) -> str: ...

    @property
    def info(self) -> CopyInfo:
        """What was said when it was opened."""

    @property
    def writing(self) -> frozenset[str]:
        """The parts that a connection is writing now."""

    @property
    def parent(self) -> str:
        """The copy that this one is taken on top of, as it was said last; empty if none was."""

    def take_on(self, parent: str) -> None:
        """Records the parent."""

    def sealed(self) -> dict[str, Part]:
        """The parts that arrived whole."""

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
    ) -> PartWriting:
        """Starts a part anew; its earlier body counts until the new one is sealed. It may refer to entries in
        `earlier`, and to bytes of `file`. `end_part` must follow."""

    def seal_part(self, part: Part) -> None:
        """Records that the part is whole."""

    def ahead(self, name: str) -> Part | None:
        """What came ahead of the part: it is none of the copy, until it is sealed as one."""

    def seal_ahead(self, part: Part) -> None:
        """Records what came ahead of the part of that name. Raises Conflict."""

    def index_blocks(self, part: Part) -> Iterator[bytes]:
        """The lines of the index of a sealed part with entries, or of one that came ahead; whole ones. Raises
        CorruptChunk, CorruptPart."""

    def end_part(self, name: str) -> None:
        """The connection that wrote the part is gone, whether it sealed it or not."""

    def lost(self, refs: Sequence[ChunkRef]) -> ChunkRef | None:
        """Takes chunks that lie in the repository already, as if they had come again; the first that can't be."""

    def rely_on(self, copy: str) -> bool:
        """Takes all that a committed copy needs, as `lost` takes chunks, without looking at each of them: whether it is
        all there. If not, `lost` tells what is missing."""

    def has_chunk(self, digest: str, *, size: int) -> bool:
        """Whether the chunk needs no fetching."""

    def keep_chunk(self, digest: str, packed: Buffer, *, size: int) -> None:
        """Adds a chunk that comes from another repository (one zstd frame), checked. Raises CorruptChunk."""

    def chunks_of(self, part: Part) -> Iterator[ChunkRef]:
        """The chunks of the part's index, then its data chunks, the index read from where it lies now."""


class CopyRepository(Protocol):
    """An opened repository."""

    @property
    def format(self) -> int: ...

    @property
    def domain(self) -> str:
        """Names the way in which chunks are named here: two repositories of one domain give equal bytes one name."""

    @property
    def public_key(self) -> str:
        """The key that signs manifests here, as hex digits."""

    def open_write(self, copy: str, info: CopyInfo, *, fetched: CommittedCopy | None = None) -> OpenCopy:
        """Opens a copy for writing, or joins or resumes it. With `fetched`, one that comes from another repository.
        Raises AlreadyCommitted, Conflict (opened with other particulars), StorageFailed."""

    def writing(self, copy: str) -> OpenCopy:
        """The open copy; after a restart of the process it is resumed here. Raises CopyNotFound."""

    def commit(self, copy: str, *, info: CopyInfo | None = None, operation: str = "") -> CommittedCopy:
        """Makes the copy appear, whole and durable; again, it gives the same answer. `operation` may take it back also
        while it is locked. Raises CopyNotFound, RepositoryBusy (a part is being written), IncompleteCopy."""

    def abort(self, copy: str) -> None:
        """Removes what was written of a copy that isn't committed; nothing there is no error. Raises Conflict."""

    def committed(self, copy: str) -> CommittedCopy:
        """The copy, its manifest checked. Raises CopyNotFound, CorruptManifest."""

    def copies(self) -> Iterator[ListedCopy]:
        """Every committed copy, by id. One with a damaged manifest is listed with its problem."""

    def listing_token(self) -> str:
        """A word that is another one as soon as copies or images appeared or vanished. Cheap."""

    @property
    def retention_seconds(self) -> float:
        """How long copies that are committed now are kept at least."""

    def delete(self, copy: str, *, operation: str = "") -> bool:
        """Takes the copy out of the listing at once; `collect` frees its bytes. Whether it was there. Raises
        CopyLocked."""

    def read_part(self, copy: str, part: Part) -> Iterator[EntryBegin | Data | EntryEnd | End]:
        """The part, every chunk checked as it is read. Raises CorruptChunk, CorruptPart in place of its END."""

    def read_batches(self, copy: str, part: Part) -> Iterator[WholeEntries | EntryBegin | Data | EntryEnd | End]:
        """The same of a part with entries, small ones together, their digests left to whoever gets them."""

    def entries(self, copy: str, part: Part) -> Iterator[IndexEntry]:
        """The entries of an entries part, in order, without their bytes. Raises CorruptChunk, CorruptPart."""

    def index_blocks(self, copy: str, part: Part) -> Iterator[bytes]:
        """The lines of the index of an entries part, whole ones. Raises CorruptChunk, CorruptPart."""

    def chunk_names(self, copy: str) -> Container[bytes]:
        """The names of all chunks of a committed copy."""

    def packed_chunk(self, digest: str, *, copy: str) -> bytes:
        """A chunk as one zstd frame of its plaintext, as it travels. Raises CorruptChunk if it is missing."""

    def verify(
        self,
        copy: str,
        *,
        depth: Depth = "all",
        progress: Callable[[int], None],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Verification:
        """Reads every part of the copy with all its checks, or less of it. Raises CopyNotFound, CorruptManifest."""

    def collect(self, *, compact: bool = False) -> Collected:
        """Frees what nothing refers to; with `compact` also inside packs that are needed. Safe beside writers."""

    def repair(self, *, read_all: bool = False) -> Repaired:
        """Repairs what can be repaired, and names the rest."""

    def stats(self) -> Stats: ...

    def free_bytes(self) -> int | None:
        """How much more fits, `None` when the store can't tell."""

    def record_image(self, content: ImageContent) -> None:
        """Keeps the signed manifest of an image, durably; again replaces it. Raises CopyLocked when the one before
        names locked copies that this one doesn't."""

    def forget_image(self, image: str, *, operation: str = "") -> None:
        """Removes it; nothing there is no error. Raises CopyLocked while a copy of it is locked here."""

    def images(self) -> Iterator[RecordedImage]:
        """All image manifests, by image id."""

    def close(self) -> None: ...
