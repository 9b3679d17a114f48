"""A copy that is being written: opened, its parts sealed one by one, then committed or aborted.

What was said of it lies in the broker's own state (`open/<copy>/`): `open.json` and `parts/<part>.json`, and
`ahead/<part>.json` of what came ahead of a part. Its bytes lie in the repository already, as packs that it holds.
"""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import NamedTuple

import msgspec

from brokers.repository.errors import Conflict, CorruptChunk, IncompleteCopy, InvalidName, RepositoryBusy
from brokers.repository.format1.catalog import Catalog, Place
from brokers.repository.format1.commits import Commits
from brokers.repository.format1.holds import Holds
from brokers.repository.format1.reading import Reader
from brokers.repository.format1.uploads import Uploads
from brokers.repository.kept import Earlier
from brokers.repository.manifest import ChunkRef, CopyInfo, Part, canonical, check_name, parse
from brokers.repository.partreader import all_chunks, index_blocks
from brokers.repository.partwriter import PartWriter
from brokers.repository.placed import PassedBytes
from brokers.sdk.atomic import write_atomically
from brokers.sdk.digests import Buffer
from brokers.sdk.frames import Layout

_LOOKED_UP = 5000
"""How many chunks are looked up at once."""


class OpenRecord(msgspec.Struct, frozen=True):
    """What `open.json` holds. For a copy that is fetched: its `manifest`, and its `parts` with their chunks when it
    comes from a repository of the same trust domain."""

    copy: str
    info: CopyInfo
    manifest: bytes | None = None
    parts: tuple[Part, ...] = ()


class _Writing:
    """A part on its way in; sealed only when its chunks lie in the store."""

    def __init__(self, writer: PartWriter, uploads: Uploads) -> None:
        self._writer = writer
        self._uploads = uploads
        self._failures = uploads.failures

    def feed(self, block: Buffer) -> None:
        self._writer.feed(block)

    def seal(self) -> Part:
        part = self._writer.seal()
        self._uploads.flush(since=self._failures)
        return part


class LocalCopies:
    """The records of open copies in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, copy: str) -> Path:
        return self._directory / check_name(copy, what="copy id")

    def names(self) -> list[str]:
        """The copies that are open."""
        return sorted(path.parent.name for path in self._directory.glob("*/open.json"))

    def read(self, copy: str) -> OpenRecord | None:
        try:
            return msgspec.json.decode((self.path(copy) / "open.json").read_bytes(), type=OpenRecord)
        except FileNotFoundError:
            return None

    def begin(self, record: OpenRecord) -> None:
        """Writes the record; parts that an earlier attempt left without one are removed first."""
        directory = self.path(record.copy)
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "parts").mkdir(parents=True)
        write_atomically(directory / "open.json", canonical(record))

    def take_on(self, copy: str, parent: str) -> None:
        """Remembers the parent of an open copy."""
        write_atomically(self.path(copy) / "parent", parent.encode())

    def parent(self, copy: str) -> str:
        try:
            return (self.path(copy) / "parent").read_text()
        except FileNotFoundError:
            return ""

    def sealed(self, copy: str) -> dict[str, Part]:
        paths = sorted((self.path(copy) / "parts").glob("*.json"))
        parts = [msgspec.json.decode(path.read_bytes(), type=Part) for path in paths if path.name[0] != "."]
        return {part.name: part for part in parts}

    def seal(self, copy: str, part: Part) -> None:
        write_atomically(self.path(copy) / "parts" / f"{part.name}.json", canonical(part))

    def ahead(self, copy: str, part: str) -> Part | None:
        """None too for what can't be the name of a part: beginning one says so."""
        try:
            return msgspec.json.decode(self._ahead(copy, part).read_bytes(), type=Part)
        except (FileNotFoundError, InvalidName):
            return None

    def seal_ahead(self, copy: str, part: Part) -> None:
        file = self._ahead(copy, part.name)
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, canonical(part))

    def _ahead(self, copy: str, part: str) -> Path:
        return self.path(copy) / "ahead" / f"{check_name(part, what='part name')}.json"

    def unseal(self, copy: str, part: str) -> None:
        (self.path(copy) / "parts" / f"{part}.json").unlink(missing_ok=True)

    def remove(self, copy: str) -> None:
        """The record first, so that a half-removed one is never resumed."""
        directory = self.path(copy)
        (directory / "open.json").unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)

    def tidy(self) -> None:
        """Removes what a crash left of records that were being made or removed. Only while nothing else works here."""
        for directory in self._directory.glob("*/"):
            if not (directory / "open.json").exists():
                shutil.rmtree(directory, ignore_errors=True)


class _Alike(NamedTuple):
    """The parts of a committed copy, the packs that it needs, and the stored bytes of its chunks."""

    parts: tuple[Part, ...]
    packs: frozenset[bytes]
    stored: int


class OpenCopy:
    """One open copy in this process (`brokers.repository.opened.OpenCopy`)."""

    def __init__(
        self,
        record: OpenRecord,
        *,
        local: LocalCopies,
        uploads: Uploads,
        holds: Holds,
        reader: Reader,
        catalog: Catalog,
        commits: Commits,
        before: Set[bytes] = frozenset(),
    ) -> None:
        """`before`: the packs of a copy that is committed already and is given others."""
        self.record = record
        self.uploads = uploads
        self.holds = holds
        self._local = local
        self._reader = reader
        self._catalog = catalog
        self._commits = commits
        self._before = before
        self._alike: _Alike | None = None
        self._writing: set[str] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._failures = 0
        self.committing = threading.Lock()

    @property
    def copy(self) -> str:
        return self.record.copy

    @property
    def info(self) -> CopyInfo:
        return self.record.info

    @property
    def parent(self) -> str:
        return self._local.parent(self.copy)

    def take_on(self, parent: str) -> None:
        if parent != self.parent:
            self._local.take_on(self.copy, parent)

    @property
    def writing(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._writing)

    def sealed(self) -> dict[str, Part]:
        return self._local.sealed(self.copy)

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
    ) -> _Writing:
        """Raises RepositoryBusy while another connection writes the part, Conflict."""
        check_name(name, what="part name")
        with self._lock:
            if self._closed:
                raise Conflict("is closed: it was committed or aborted", copy=self.copy, part=name)
            if name in self._writing:
                raise RepositoryBusy("is being written by another connection", copy=self.copy, part=name)
            self._writing.add(name)
        writer = PartWriter(
            copy=self.copy,
            name=name,
            layout=layout,
            media_type=media_type,
            framed=framed,
            sink=self.uploads,
            progress=progress,
            earlier=earlier,
            file=file,
        )
        return _Writing(writer, self.uploads)

    def seal_part(self, part: Part) -> None:
        with self._lock:
            if self._closed:
                raise Conflict("is closed: it was committed or aborted", copy=self.copy, part=part.name)
            self._local.seal(self.copy, part)

    def ahead(self, name: str) -> Part | None:
        return self._local.ahead(self.copy, name)

    def seal_ahead(self, part: Part) -> None:
        with self._lock:
            if self._closed:
                raise Conflict("is closed: it was committed or aborted", copy=self.copy, part=part.name)
            self._local.seal_ahead(self.copy, part)

    def index_blocks(self, part: Part) -> Iterator[bytes]:
        return index_blocks(part, self._reader.source(self.copy, part.name).one, copy=self.copy)

    def end_part(self, name: str) -> None:
        with self._lock:
            self._writing.discard(name)

    def close(self, *, force: bool = False) -> None:
        """No more writing. Raises RepositoryBusy while a part is being written, unless forced."""
        with self._lock:
            if self._writing and not force:
                busy = ", ".join(sorted(self._writing))
                raise RepositoryBusy("is still being written", copy=self.copy, part=busy)
            self._closed = True

    def reopen(self) -> None:
        """A commit failed; the copy can be written on."""
        with self._lock:
            self._closed = False

    def lost(self, refs: Sequence[ChunkRef]) -> ChunkRef | None:
        return self.uploads.lost(refs)

    def rely_on(self, copy: str) -> bool:
        found = self._commits.of(copy)
        commit = found[0].commit if found else None
        if commit is None or not all(self.holds.rely(pack) for pack in commit.pack_ids):
            return False
        stored = parse(commit.manifest, copy=copy).stored_bytes
        self._alike = _Alike(commit.parts, commit.pack_ids, stored)
        return True

    def has_chunk(self, digest: str, *, size: int) -> bool:
        return self.uploads.knows(bytes.fromhex(digest), size=size)

    def keep_chunk(self, digest: str, packed: Buffer, *, size: int) -> None:
        try:
            self.uploads.keep(bytes.fromhex(digest), packed, size=size)
        except CorruptChunk as error:
            raise CorruptChunk(error.cause, copy=self.copy, chunk=digest) from error

    def chunks_of(self, part: Part) -> Iterator[ChunkRef]:
        if part.index is not None:
            # The index is read from its packs, and some of them may still be on their way.
            self.flush()
        return all_chunks(part, self._reader.source(self.copy, part.name).one, copy=self.copy)

    def flush(self) -> None:
        """All that was added lies in the store. Raises what went wrong since the last time."""
        try:
            self.uploads.flush(since=self._failures)
        finally:
            self._failures = self.uploads.failures

    def needed_packs(self, parts: tuple[Part, ...], *, avoid: Set[bytes]) -> tuple[set[bytes], int]:
        """The packs that hold the chunks of these parts, and the stored bytes of the distinct chunks. What lies in
        packs to `avoid` only (they are being deleted) is written anew while it can still be read. Raises
        IncompleteCopy naming the part of which a chunk is nowhere."""
        alike = self._alike
        if alike is not None and alike.parts == parts and not avoid:
            return set(alike.packs), alike.stored
        needed: set[bytes] = set()
        seen: set[bytes] = set()
        anew: list[ChunkRef] = []
        stored = 0
        for part in parts:
            try:
                for ref, places in self._placed(self._once(part, seen)):
                    place = self._choose(ref, places, needed, avoid=avoid)
                    if place is None:
                        self.uploads.keep(
                            bytes.fromhex(ref.digest), self._reader.packed(bytes.fromhex(ref.digest)), size=ref.size
                        )
                        anew.append(ref)
                        continue
                    needed.add(place.pack)
                    stored += place.blob.stored
            except CorruptChunk as error:
                raise IncompleteCopy("was lost", copy=self.copy, part=part.name, chunk=error.chunk) from error
        if anew:
            self.flush()
        for ref, places in self._placed(iter(anew)):
            place = self._choose(ref, places, needed, avoid=avoid)
            if place is None:
                raise IncompleteCopy("was lost", copy=self.copy, chunk=ref.digest)
            needed.add(place.pack)
            stored += place.blob.stored
        return needed, stored

    def _once(self, part: Part, seen: set[bytes]) -> Iterator[ChunkRef]:
        """The chunks of the part that were not seen before."""
        for ref in self.chunks_of(part):
            short = bytes.fromhex(ref.digest[:20])
            if short not in seen:
                seen.add(short)
                yield ref

    def _placed(self, refs: Iterator[ChunkRef]) -> Iterator[tuple[ChunkRef, list[Place]]]:
        """The chunks with their places."""
        while batch := list(itertools.islice(refs, _LOOKED_UP)):
            names = [bytes.fromhex(ref.digest) for ref in batch]
            places = self._catalog.places_of(set(names))
            yield from ((ref, places.get(name, [])) for ref, name in zip(batch, names, strict=True))

    def _choose(self, ref: ChunkRef, places: list[Place], needed: Set[bytes], *, avoid: Set[bytes]) -> Place | None:
        """Where the copy takes a chunk from: a pack that it had or needs anyway, or one of its own, or one that it may
        rely on already, or the oldest."""
        if len(places) == 1:
            (place,) = places
            return place if place.blob.size == ref.size and place.pack not in avoid else None
        fitting = [place for place in places if place.blob.size == ref.size and place.pack not in avoid]
        wanted = (place for place in fitting if place.pack in self._before or place.pack in needed)
        own = (place for place in fitting if place.pack in self.uploads.made)
        relied = (place for place in fitting if self.holds.relied_on(place.pack))
        return next(wanted, None) or next(own, None) or next(relied, None) or next(iter(fitting), None)
