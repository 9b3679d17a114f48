"""A repository of format 1 in an object store (`docs/repository-format.md`). Blocking: call it from threads.

Any number of processes may have it open at once. Every method is idempotent by copy id, and every crash leaves each
copy whole or not there: the commit object is put after all that it needs is durable.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from brokers.repository.errors import (
    AlreadyCommitted,
    Conflict,
    CopyNotFound,
    CorruptChunk,
    CorruptManifest,
    IncompleteCopy,
    StorageFailed,
)
from brokers.repository.format1.catalog import Catalog
from brokers.repository.format1.collection import HOLD_SECONDS, Collector, survey
from brokers.repository.format1.commits import Commit, Commits
from brokers.repository.format1.examining import Examiner
from brokers.repository.format1.holds import HOLDS, Holds
from brokers.repository.format1.images import IMAGES, Images
from brokers.repository.format1.index import reconcile, refresh
from brokers.repository.format1.keyring import FORMAT, RecipientKey, load_or_create_secret, open_keys
from brokers.repository.format1.opencopy import LocalCopies, OpenCopy, OpenRecord
from brokers.repository.format1.packs import pack_name
from brokers.repository.format1.reading import Reader
from brokers.repository.format1.sealing import Keys
from brokers.repository.format1.uploads import Uploads, Workers
from brokers.repository.manifest import (
    PORTABLE_FORMAT,
    CopyInfo,
    Manifest,
    Part,
    merkle_root,
    parse,
    seal,
)
from brokers.repository.objects import ObjectStore
from brokers.repository.opened import (
    RESERVED_FREE_BYTES,
    Collected,
    CommittedCopy,
    ListedCopy,
    RecordedImage,
    Stats,
    Verification,
)
from brokers.repository.partreader import all_chunks, read_events
from brokers.repository.signing import SigningKey
from brokers.sdk.atomic import write_atomically
from brokers.sdk.digests import digest_hex
from brokers.sdk.frames import Data, End, EntryBegin, EntryEnd
from schemas.brokers import SERVICE_VERSION
from schemas.values import ImageContent

COPIES = "copies/"
PACK_BYTES = 32 << 20
_ROUNDS = 4


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a repository is opened.

    `recipient_key` and `domain_key` are files with 32 secret bytes in base64: the key that opens the repository
    (`<state>/recipient.key`, made at first use, if not given), and the secret of the trust domain that a new
    repository gets (a new one if not given). `recipients` are public keys (hex) that shall be able to open it too.
    `listing_delay_seconds`: by how much a listing of the store may lag behind (NFS); 0 where it doesn't.
    """

    recipient_key: Path | None = None
    recipients: tuple[str, ...] = ()
    domain_key: Path | None = None
    pack_bytes: int = PACK_BYTES
    listing_delay_seconds: float = 0.0
    hold_seconds: float = HOLD_SECONDS


class Repository:
    """An opened repository (`brokers.repository.opened.CopyRepository`)."""

    format = FORMAT

    def __init__(
        self,
        objects: ObjectStore,
        *,
        keys: Keys,
        identity: str,
        key: SigningKey,
        writer: str,
        state: Path,
        options: Options,
    ) -> None:
        self.id = identity
        self.objects = objects
        self.keys = keys
        self.catalog = Catalog(state / "catalog.sqlite", repository=identity)
        self.commits = Commits(objects, keys, self.catalog)
        self.reader = Reader(objects, keys, self.catalog, learn=self.learn)
        self._images = Images(objects, keys, self.catalog, key=key)
        self._local = LocalCopies(state / "open")
        self._options = options
        self._key = key
        self._writer = writer
        self._workers = Workers()
        self._open: dict[str, OpenCopy] = {}
        self._lock = threading.Lock()
        self._collector = Collector(
            objects,
            keys,
            self.catalog,
            self.commits,
            wait_seconds=2 * options.listing_delay_seconds,
            hold_seconds=options.hold_seconds,
        )
        self._examiner = Examiner(objects, keys, self.catalog, self.commits, self.reader)

    @classmethod
    def open(cls, objects: ObjectStore, *, state: Path, options: Options | None = None) -> Repository:
        """Opens the repository in the store, making it if the store is empty. `state` is the process's own directory,
        kept between its runs.

        Raises WrongKey, UnknownFormat, CorruptObject, OSError, and what the store raises.
        """
        options = options or Options()
        state.mkdir(parents=True, exist_ok=True)
        own = RecipientKey.load_or_create(options.recipient_key or state / "recipient.key")
        domain = _domain_secret(options.domain_key)
        identity, keys = open_keys(objects, own, domain_secret=domain, recipients=options.recipients)
        repository = cls(
            objects,
            keys=keys,
            identity=identity,
            key=SigningKey.load_or_create(state / "signing.key"),
            writer=_writer_id(state / "writer"),
            state=state,
            options=options,
        )
        try:
            repository.learn()
            repository._tidy_holds()
        except BaseException:
            repository.close()
            raise
        return repository

    def close(self) -> None:
        """What came of open copies is stored before, so that it need not come again."""
        for opened in list(self._open.values()):
            with contextlib.suppress(Exception):
                opened.flush()
        self._workers.close()
        self.reader.close()
        self.catalog.close()
        self.objects.close()

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def domain(self) -> str:
        return self.keys.domain

    @property
    def public_key(self) -> str:
        return self._key.public_hex

    def refresh(self) -> list[str]:
        """Learns what other writers added. What is wrong with index objects, one line each."""
        return refresh(self.objects, self.keys, self.catalog)

    def learn(self) -> list[str]:
        """Makes the catalog say what the store holds. What is wrong with index objects and packs, one line each."""
        return [*self.refresh(), *reconcile(self.objects, self.keys, self.catalog)]

    # --- writing

    def open_write(self, copy: str, info: CopyInfo, *, fetched: CommittedCopy | None = None) -> OpenCopy:
        if fetched is None:
            return self._open_write(OpenRecord(copy, info))
        layout = fetched.parts if any(part.chunk_count is not None for part in fetched.parts) else ()
        return self._open_write(OpenRecord(copy, info, fetched.raw, layout))

    def writing(self, copy: str) -> OpenCopy:
        with self._lock:
            known = self._open.get(copy)
        if known is not None:
            return known
        record = self._local.read(copy)
        if record is None:
            raise CopyNotFound("is not open for writing", copy=copy)
        return self._open_write(record)

    def _open_write(self, record: OpenRecord) -> OpenCopy:
        copy = record.copy
        self._local.path(copy)
        if self._has(copy):
            raise AlreadyCommitted("is committed already", copy=copy)
        free = self.objects.free_bytes()
        if free is not None and free < RESERVED_FREE_BYTES:
            raise StorageFailed("the store of the repository is full", copy=copy)
        with self._lock:
            known = self._open.get(copy)
            if known is not None:
                if known.record != record:
                    raise Conflict("is open with other particulars", copy=copy)
                return known
            before = self._local.read(copy)
            if before is None:
                self._local.begin(record)
            elif before != record:
                raise Conflict("was opened before with other particulars", copy=copy)
            opened = self._open[copy] = self._opened(record)
        self.refresh()
        return opened

    def _opened(self, record: OpenRecord) -> OpenCopy:
        holds = Holds(self.objects, self.keys, self.catalog, writer=self._writer, copy=record.copy)
        uploads = Uploads(
            self.objects, self.keys, self.catalog, holds, self._workers, pack_bytes=self._options.pack_bytes
        )
        return OpenCopy(
            record, local=self._local, uploads=uploads, holds=holds, reader=self.reader, catalog=self.catalog
        )

    def commit(self, copy: str, *, info: CopyInfo | None = None) -> CommittedCopy:
        if self._has(copy):
            self._forget(copy)
            return self.committed(copy)
        opened = self.writing(copy)
        with opened.committing:
            if self._has(copy):
                return self.committed(copy)
            opened.close()
            try:
                self._publish(opened, info or opened.record.info)
            except IncompleteCopy as error:
                if error.part is not None:
                    self._local.unseal(copy, error.part)
                opened.reopen()
                raise
            except BaseException:
                opened.reopen()
                raise
        self._forget(copy)
        return self.committed(copy)

    def _publish(self, opened: OpenCopy, info: CopyInfo) -> None:
        fetched = opened.record.manifest
        parts = self._parts_of(opened)
        if not parts:
            raise IncompleteCopy("has no part yet", copy=opened.copy)
        opened.flush()
        packs, stored = self._secured(opened, parts)
        raw = fetched or seal(_manifest(opened.copy, info, parts, stored), self._key)
        commit = Commit(raw, parts, tuple(sorted(pack.hex() for pack in packs)))
        self.commits.checked(opened.copy, commit)
        name = self.commits.put(opened.copy, commit)
        if not opened.holds.unbroken():
            # We slept so long that a collector took this copy for abandoned. If it took more than the hold, the
            # copy is not whole: it must not be there.
            gone = [pack for pack in packs if self.objects.look(pack_name(pack)) is None]
            if gone:
                self.commits.delete([name])
                raise IncompleteCopy("was taken for abandoned while it was committed", copy=opened.copy)

    def _parts_of(self, opened: OpenCopy) -> tuple[Part, ...]:
        if opened.record.parts:
            return opened.record.parts
        sealed = opened.sealed()
        if opened.record.manifest is None:
            return tuple(sorted(sealed.values(), key=lambda part: part.name))
        parts = []
        for told in parse(opened.record.manifest, copy=opened.copy).parts:
            part = sealed.get(told.name)
            if part is None or part.portable() != told.portable():
                raise IncompleteCopy("has not arrived as its manifest says", copy=opened.copy, part=told.name)
            parts.append(part)
        return tuple(parts)

    def _secured(self, opened: OpenCopy, parts: tuple[Part, ...]) -> tuple[set[bytes], int]:
        """The packs that hold the parts, each one held, and unmarked at a moment after that; and the stored bytes of
        the chunks."""
        avoid: set[bytes] = set()
        fresh = False
        for _ in range(_ROUNDS):
            packs, stored = opened.needed_packs(parts, avoid=avoid)
            bad = opened.holds.secure(packs, fresh=fresh)
            if not bad:
                if opened.holds.unbroken():
                    return packs, stored
                fresh = True
            avoid |= bad
        raise IncompleteCopy("lost packs to a collector again and again", copy=opened.copy)

    def abort(self, copy: str) -> None:
        self._local.path(copy)
        if self._has(copy):
            raise Conflict("is committed: delete it instead", copy=copy)
        with self._lock:
            known = self._open.get(copy)
        made: set[bytes] = set()
        if known is not None:
            known.close(force=True)
            with contextlib.suppress(Exception):
                known.flush()
            made = set(known.uploads.made)
        was_open = known is not None or self._local.read(copy) is not None
        self._forget(copy)
        if was_open:
            # After a restart nobody knows any more which packs it made: then all that nothing needs goes.
            self._collector.collect(only=made if known is not None else None)

    def _forget(self, copy: str) -> None:
        with self._lock:
            known = self._open.pop(copy, None)
        if known is None and self._local.read(copy) is None:
            return
        holds = (known or self._opened(OpenRecord(copy, CopyInfo()))).holds
        self._local.remove(copy)
        holds.release()

    def _tidy_holds(self) -> None:
        """Removes what an earlier run of this process held for copies that are open no longer."""
        mine = f"{HOLDS}{self._writer}/"
        still = set(self._local.names())
        for found in list(self.objects.list(mine)):
            if found.name.removeprefix(mine).partition("/")[0] not in still:
                self.objects.delete(found.name)

    # --- reading

    def _has(self, copy: str) -> bool:
        return any(True for _ in self.objects.list(f"{COPIES}{copy}/"))

    def committed(self, copy: str) -> CommittedCopy:
        found = self.commits.of(copy)
        if not found:
            raise CopyNotFound("is not in this repository", copy=copy)
        first = found[0]
        if first.commit is None:
            raise CorruptManifest(first.problem or "can't be read", copy=copy)
        return self.commits.checked(copy, first.commit)

    def copies(self) -> Iterator[ListedCopy]:
        for copy in self.commits.copies():
            try:
                yield ListedCopy(copy, self.committed(copy))
            except CopyNotFound:
                continue
            except CorruptManifest as error:
                yield ListedCopy(copy, problem=str(error))

    def listing_token(self) -> str:
        names = [found.name for prefix in (COPIES, IMAGES) for found in self.objects.list(prefix)]
        return digest_hex("\n".join(names).encode())[:32]

    def delete(self, copy: str) -> bool:
        self._local.path(copy)
        names = [found.name for found in list(self.objects.list(f"{COPIES}{copy}/"))]
        self.commits.delete(names)
        return bool(names)

    def read_part(self, copy: str, part: Part) -> Iterator[EntryBegin | Data | EntryEnd | End]:
        return read_events(part, self.reader.source(copy, part.name), copy=copy)

    def chunk_names(self, copy: str) -> set[bytes]:
        found: set[bytes] = set()
        for part in self.committed(copy).parts:
            refs = all_chunks(part, self.reader.source(copy, part.name).one, copy=copy)
            found.update(bytes.fromhex(ref.digest) for ref in refs)
        return found

    def packed_chunk(self, digest: str, *, copy: str) -> bytes:
        try:
            return self.reader.packed(bytes.fromhex(digest))
        except CorruptChunk as error:
            raise CorruptChunk(error.cause, copy=copy, chunk=digest) from error

    # --- keeping

    def verify(
        self, copy: str, *, progress: Callable[[int], None], cancelled: Callable[[], bool] = lambda: False
    ) -> Verification:
        return self._examiner.verify(copy, progress=progress, cancelled=cancelled)

    def collect(self) -> Collected:
        self.refresh()
        return self._collector.collect()

    def stats(self) -> Stats:
        found = survey(self.objects, self.keys, self.commits, hold_seconds=self._options.hold_seconds)
        staged = found.held - found.committed
        staging = sum(size for pack, size in found.packs.items() if pack in staged)
        known = {each.copy: each for each in found.commits}
        logical = 0
        for copy, each in known.items():
            if each.commit is not None:
                with contextlib.suppress(CorruptManifest):
                    logical += parse(each.commit.manifest, copy=copy).logical_bytes
        return Stats(
            copies=len(known),
            open_copies=len(self._local.names()),
            chunks=self.catalog.chunk_count(),
            logical_bytes=logical,
            stored_bytes=sum(found.packs.values()) - staging,
            staging_bytes=staging,
            images=self._images.count(),
            free_bytes=self.objects.free_bytes(),
        )

    def free_bytes(self) -> int | None:
        return self.objects.free_bytes()

    def record_image(self, content: ImageContent) -> None:
        self._images.record(content)

    def forget_image(self, image: str) -> None:
        self._images.forget(image)

    def images(self) -> Iterator[RecordedImage]:
        return self._images.all()


def _manifest(copy: str, info: CopyInfo, parts: tuple[Part, ...], stored: int) -> Manifest:
    return Manifest(
        format=PORTABLE_FORMAT,
        copy=copy,
        created=info.created,
        data_service=info.data_service,
        data_class=info.data_class,
        parts=tuple(part.portable() for part in parts),
        logical_bytes=sum(part.size for part in parts),
        stored_bytes=stored,
        merkle_root=merkle_root(parts),
        level=info.level,
        source=info.source,
        attributes=info.attributes,
        software=f"calque {SERVICE_VERSION}",
    )


def _domain_secret(path: Path | None) -> bytes | None:
    return load_or_create_secret(path) if path is not None else None


def _writer_id(path: Path) -> str:
    """The name under which this process holds packs, the same in all its runs."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    made = os.urandom(8).hex()
    write_atomically(path, made.encode())
    return made
