"""A copy repository of format 0 in a directory (`docs/repository-format-0.md`). Blocking: call it from threads.

One process holds a repository at a time. Every method is idempotent by copy id, and every crash leaves each copy
whole or not there: `copies/<copy>/manifest.json` is the commit point, renamed into place after all that it names.
"""

import contextlib
import fcntl
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from brokers.filesystem.format0 import maintenance
from brokers.filesystem.format0.chunks import ChunkStore
from brokers.filesystem.format0.files import Files
from brokers.filesystem.format0.images import Images
from brokers.filesystem.format0.staging import OpenCopy, OpenRecord
from brokers.repository.errors import (
    AlreadyCommitted,
    Conflict,
    CopyNotFound,
    CorruptManifest,
    IncompleteCopy,
    RepositoryBusy,
    StorageFailed,
    UnknownFormat,
)
from brokers.repository.manifest import (
    FORMAT,
    PLAIN_DOMAIN,
    ChunkRef,
    CopyInfo,
    IndexEntry,
    Manifest,
    Part,
    canonical,
    check_name,
    merkle_root,
    parse,
    seal,
)
from brokers.repository.opened import (
    RESERVED_FREE_BYTES,
    Collected,
    CommittedCopy,
    Depth,
    ListedCopy,
    RecordedImage,
    Repaired,
    Stats,
    Verification,
)
from brokers.repository.partreader import Singly, WholeEntries, index_blocks, index_entries, read_batches, read_events
from brokers.repository.signing import SigningKey
from brokers.sdk.digests import digest_hex
from brokers.sdk.frames import Data, End, EntryBegin, EntryEnd
from schemas.unreadable import UNREADABLE
from schemas.values import ImageContent


class FormatFile(msgspec.Struct, frozen=True):
    """What `<repository>/format` holds."""

    format: int
    id: str


class Repository:
    """An opened repository (`brokers.repository.opened.CopyRepository`). Close it, or use it as a context manager,
    to give it to another process."""

    format = FORMAT
    domain = PLAIN_DOMAIN

    def __init__(self, directory: Path, *, key: SigningKey, identity: str, files: Files, lock: int) -> None:
        self.directory = directory
        self.id = identity
        self.files = files
        self.chunks = ChunkStore(directory / "chunks", files)
        self._key = key
        self._images = Images(directory / "images", key=key, files=files)
        self._lock_descriptor = lock
        self._open: dict[str, OpenCopy] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, directory: Path, *, key_path: Path, files: Files | None = None) -> "Repository":
        """Opens the repository, making it if the directory is empty or not there.

        Raises RepositoryBusy if another process holds it, UnknownFormat, OSError.
        """
        files = files or Files()
        for folder in ("chunks", "copies", "staging"):
            files.make_directory(directory / folder)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RepositoryBusy(f"another process holds the repository {directory}") from None
            identity = _read_format(directory, files)
            key = SigningKey.load_or_create(key_path)
            return cls(directory, key=key, identity=identity, files=files, lock=lock)
        except BaseException:
            os.close(lock)
            raise

    def close(self) -> None:
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    def __enter__(self) -> "Repository":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def public_key(self) -> str:
        """The key that signs manifests here, as hex digits."""
        return self._key.public_hex

    def copy_directory(self, copy: str) -> Path:
        return self.directory / "copies" / check_name(copy, what="copy id")

    def staging_directory(self, copy: str) -> Path:
        return self.directory / "staging" / check_name(copy, what="copy id")

    def open_write(self, copy: str, info: CopyInfo, *, fetched: CommittedCopy | None = None) -> OpenCopy:
        """Opens a copy for writing, or joins or resumes it. With `fetched`, a copy that comes from elsewhere.

        Raises AlreadyCommitted, Conflict (opened with other particulars), StorageFailed (no space).
        """
        # A manifest of format 1 names no chunks, and one of format 0 has to: such a copy gets a manifest of its own.
        same = fetched is not None and fetched.manifest.format == FORMAT
        return self._open_write(copy, info, manifest=fetched.raw if fetched is not None and same else None)

    def _open_write(self, copy: str, info: CopyInfo, *, manifest: bytes | None) -> OpenCopy:
        directory = self.staging_directory(copy)
        record = OpenRecord(copy, info, manifest)
        with self._lock:
            if self._manifest_path(copy).exists():
                raise AlreadyCommitted("is committed already", copy=copy)
            known = self._open.get(copy)
            if known is not None:
                if known.record != record:
                    raise Conflict("is open with other particulars", copy=copy)
                return known
            if shutil.disk_usage(self.directory).free < RESERVED_FREE_BYTES:
                raise StorageFailed(f"the file system of {self.directory} is full", copy=copy)
            opened = OpenCopy.open(record, directory, self.chunks, self.files)
            self._open[copy] = opened
            return opened

    def writing(self, copy: str) -> OpenCopy:
        """The open copy; after a restart of the process it is resumed here. Raises CopyNotFound."""
        marker = self.staging_directory(copy) / "open.json"
        with self._lock:
            known = self._open.get(copy)
        if known is not None:
            return known
        try:
            record = msgspec.json.decode(marker.read_bytes(), type=OpenRecord)
        except FileNotFoundError:
            raise CopyNotFound("is not open for writing", copy=copy) from None
        return self._open_write(copy, record.info, manifest=record.manifest)

    def commit(self, copy: str, *, info: CopyInfo | None = None, operation: str = "") -> CommittedCopy:  # noqa: ARG002
        """Makes the copy appear, whole and durable; again, it gives the same answer. `info` replaces what was said
        when the copy was opened (the level reached is known only now).

        Raises CopyNotFound, RepositoryBusy (a part is being written), IncompleteCopy, OSError.
        """
        if self._manifest_path(copy).exists():
            self._forget(copy)
            return self.committed(copy)
        opened = self.writing(copy)
        with opened.committing:
            if self._manifest_path(copy).exists():
                return self.committed(copy)
            opened.close()
            try:
                self._publish(opened, info or opened.record.info)
            except IncompleteCopy as error:
                if error.part is not None:
                    opened.unseal_part(error.part)
                opened.reopen()
                raise
            except BaseException:
                opened.reopen()
                raise
        self._forget(copy)
        return self.committed(copy)

    def abort(self, copy: str) -> None:
        """Removes what was written of a copy that isn't committed. Nothing there is no error.

        Raises Conflict if the copy is committed: `delete` it.
        """
        if self._manifest_path(copy).exists():
            raise Conflict("is committed: delete it instead", copy=copy)
        with self._lock:
            known = self._open.get(copy)
        if known is not None:
            known.close(force=True)
        self._forget(copy)

    def committed(self, copy: str) -> CommittedCopy:
        """The copy's manifest, checked. Raises CopyNotFound, CorruptManifest."""
        try:
            raw = self._manifest_path(copy).read_bytes()
        except FileNotFoundError:
            raise CopyNotFound("is not in this repository", copy=copy) from None
        manifest = parse(raw, copy=copy)
        return CommittedCopy(manifest, raw, manifest.parts)

    def part(self, copy: str, name: str) -> Part:
        """One part of a committed copy. Raises CopyNotFound, CorruptManifest."""
        part = self.committed(copy).part(name)
        if part is None:
            raise CopyNotFound("has no such part", copy=copy, part=name)
        return part

    def read_part(self, copy: str, part: Part) -> Iterator[EntryBegin | Data | EntryEnd | End]:
        """The part, every chunk checked as it is read. Raises CorruptChunk, CorruptPart in place of its END."""
        source = Singly(lambda ref: self.read_chunk(ref, copy=copy, part=part.name))
        return read_events(part, source, copy=copy)

    def read_batches(self, copy: str, part: Part) -> Iterator[WholeEntries | EntryBegin | Data | EntryEnd | End]:
        """The same of a part with entries, small ones together."""
        source = Singly(lambda ref: self.read_chunk(ref, copy=copy, part=part.name))
        return read_batches(part, source, copy=copy)

    def read_chunk(self, ref: ChunkRef, *, copy: str, part: str) -> bytes:
        return self.chunks.read(ref.digest, size=ref.size, copy=copy, part=part)

    def copies(self) -> Iterator[ListedCopy]:
        """Every committed copy, by id. One with a damaged manifest is listed with its problem."""
        for directory in sorted((self.directory / "copies").iterdir()):
            try:
                yield ListedCopy(directory.name, self.committed(directory.name))
            except CopyNotFound:
                continue
            except CorruptManifest as error:
                yield ListedCopy(directory.name, problem=str(error))

    @property
    def retention_seconds(self) -> float:
        """Format 0 knows no locks."""
        return 0.0

    def delete(self, copy: str, *, operation: str = "") -> bool:  # noqa: ARG002 - nothing is locked
        """Takes the copy out of the listing at once (a tombstone stays); `collect` frees its bytes. Whether it was
        there."""
        path = self._manifest_path(copy)
        with self._lock:
            if not path.exists():
                return False
            self.files.rename(path, path.with_name("tombstone.json"))
        with contextlib.suppress(FileNotFoundError):  # a collector may have taken all of it already
            self.files.sync_path(path.parent)
        return True

    def listing_token(self) -> str:
        """Names and times of what is listed, as one digest."""
        found = []
        for path in [*(self.directory / "copies").glob("*/manifest.json"), *(self.directory / "images").glob("*.json")]:
            with contextlib.suppress(FileNotFoundError):
                found.append(f"{path.parent.name}/{path.name} {path.stat().st_mtime_ns}")
        return digest_hex("\n".join(sorted(found)).encode())[:32]

    def entries(self, copy: str, part: Part) -> Iterator[IndexEntry]:
        return index_entries(part, lambda ref: self.read_chunk(ref, copy=copy, part=part.name), copy=copy)

    def index_blocks(self, copy: str, part: Part) -> Iterator[bytes]:
        return index_blocks(part, lambda ref: self.read_chunk(ref, copy=copy, part=part.name), copy=copy)

    def chunk_names(self, copy: str) -> dict[bytes, int]:
        return maintenance.copy_digests(self.chunks, self.committed(copy).manifest)

    def packed_chunk(self, digest: str, *, copy: str) -> bytes:
        return self.chunks.read_stored(digest, copy=copy)

    def verify(
        self,
        copy: str,
        *,
        depth: Depth = "all",  # noqa: ARG002 - of this format all is read, always
        progress: Callable[[int], None],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Verification:
        return maintenance.verify(self, copy, progress=progress, cancelled=cancelled)

    def collect(self, *, compact: bool = False) -> Collected:  # noqa: ARG002 - there are no packs
        return maintenance.collect(self)

    def repair(self, *, read_all: bool = False) -> Repaired:
        """Sets damaged chunks aside (with `read_all`), and names the copies that need them."""
        damaged: list[str] = []
        for listed in self.copies():
            if listed.committed is None:
                damaged.append(listed.problem or f"copy {listed.copy} can't be read")
            elif read_all:
                damaged.extend(finding.message for finding in maintenance.verify(self, listed.copy).findings)
        return Repaired(damaged=tuple(damaged))

    def stats(self) -> Stats:
        return maintenance.stats(self)

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.directory).free

    def record_image(self, content: ImageContent) -> None:
        self._images.record(content)

    def forget_image(self, image: str, *, operation: str = "") -> None:  # noqa: ARG002 - nothing is locked
        self._images.forget(image)

    def images(self) -> Iterator[RecordedImage]:
        return self._images.all()

    def _manifest_path(self, copy: str) -> Path:
        return self.copy_directory(copy) / "manifest.json"

    def _publish(self, opened: OpenCopy, info: CopyInfo) -> None:
        fetched = opened.record.manifest
        parts = tuple(sorted(opened.sealed().values(), key=lambda part: part.name))
        if fetched is not None:
            parts = parse(fetched, copy=opened.copy).parts
        if not parts:
            raise IncompleteCopy("has no part yet", copy=opened.copy)
        needed = opened.needed_chunks(parts)
        with self.chunks.publishing(needed.keys()):
            stored = opened.publish_chunks(needed)
            raw = fetched or seal(self._manifest(opened.copy, info, parts, stored), self._key)
            draft = opened.directory / "manifest.json"
            self.files.replace(draft, raw)
            target = self._manifest_path(opened.copy)
            self.files.make_directory(target.parent)
            self.files.sync_path(target.parent.parent)
            self.files.rename(draft, target)
            self.files.sync_path(target.parent)

    def _manifest(self, copy: str, info: CopyInfo, parts: tuple[Part, ...], stored: int) -> Manifest:
        return Manifest(
            format=FORMAT,
            copy=copy,
            created=info.created,
            data_service=info.data_service,
            data_class=info.data_class,
            parts=parts,
            logical_bytes=sum(part.size for part in parts),
            stored_bytes=stored,
            merkle_root=merkle_root(parts),
            level=info.level,
            source=info.source,
            attributes=info.attributes,
            parent=info.parent,
        )

    def _forget(self, copy: str) -> None:
        with self._lock:
            self._open.pop(copy, None)
            directory = self.staging_directory(copy)
            if directory.exists():
                self.files.unlink(directory / "open.json")
                self.files.remove_tree(directory)


def _read_format(directory: Path, files: Files) -> str:
    path = directory / "format"
    with contextlib.suppress(FileNotFoundError):
        try:
            known = msgspec.json.decode(path.read_bytes(), type=FormatFile)
        except UNREADABLE as error:
            raise UnknownFormat(f"{path} can't be read: {error}") from error
        if known.format != FORMAT:
            raise UnknownFormat(f"{directory} is a repository of format {known.format}, this version knows 0")
        return known.id
    identity = str(uuid.uuid4())
    files.replace(path, canonical(FormatFile(FORMAT, identity)))
    return identity
