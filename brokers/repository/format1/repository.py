"""A repository of format 1 in an object store (`docs/repository-format.md`). Blocking: call it from threads.

Any number of processes may have it open at once. Every method is idempotent by copy id, and every crash leaves each
copy whole or not there: the commit object is put after all that it needs is durable.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from brokers.repository.errors import (
    CopyNotFound,
    CorruptChunk,
    CorruptManifest,
)
from brokers.repository.format1.catalog import Catalog
from brokers.repository.format1.collection import HOLD_SECONDS, Collector, survey
from brokers.repository.format1.commits import COPIES, Commits, FoundCommit, packs_of
from brokers.repository.format1.examining import Examiner
from brokers.repository.format1.images import IMAGES, Images
from brokers.repository.format1.index import reconcile, refresh
from brokers.repository.format1.keeping import Keeper
from brokers.repository.format1.keyring import FORMAT, RecipientKey, load_or_create_secret, open_keys
from brokers.repository.format1.opencopy import LocalCopies, OpenCopy
from brokers.repository.format1.packs import pack_name
from brokers.repository.format1.reading import Reader
from brokers.repository.format1.sealing import Keys
from brokers.repository.format1.writing import Writing
from brokers.repository.manifest import (
    CopyInfo,
    IndexEntry,
    Part,
    parse,
)
from brokers.repository.objects import ARCHIVED, ObjectMissing, ObjectStore
from brokers.repository.opened import (
    Collected,
    CommittedCopy,
    Depth,
    ListedCopy,
    RecordedImage,
    Repaired,
    Stats,
    Verification,
)
from brokers.repository.partreader import (
    WholeEntries,
    all_chunks,
    index_blocks,
    index_entries,
    read_batches,
    read_events,
)
from brokers.repository.retention import locked
from brokers.repository.signing import SigningKey
from brokers.sdk.atomic import write_atomically
from brokers.sdk.digests import digest_hex
from brokers.sdk.frames import Data, End, EntryBegin, EntryEnd
from schemas.problems import CalqueError
from schemas.values import ImageContent

T = TypeVar("T")
PACK_BYTES = 32 << 20
SAMPLE_SHARE = 0.02
"""How much of a copy a sample reads."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a repository is opened.

    `recipient_key` and `domain_key` are files with 32 secret bytes in base64: the key that opens the repository
    (`<state>/recipient.key`, made at first use, if not given), and the secret of the trust domain that a new
    repository gets (a new one if not given). `recipients` are public keys (hex) that shall be able to open it too.
    `listing_delay_seconds`: by how much a listing of the store may lag behind (NFS); 0 where it doesn't.
    `retention_seconds`: how long copies are locked from their commit on.
    """

    recipient_key: Path | None = None
    recipients: tuple[str, ...] = ()
    domain_key: Path | None = None
    pack_bytes: int = PACK_BYTES
    listing_delay_seconds: float = 0.0
    hold_seconds: float = HOLD_SECONDS
    retention_seconds: float = 0.0


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
        self._images = Images(objects, keys, self.catalog, self.commits, key=key)
        self._options = options
        self._key = key
        self._collector = Collector(
            objects,
            keys,
            self.catalog,
            self.commits,
            wait_seconds=2 * options.listing_delay_seconds,
            hold_seconds=options.hold_seconds,
        )
        self._writing = Writing(
            objects,
            keys,
            self.catalog,
            self.commits,
            self.reader,
            self._collector,
            local=LocalCopies(state / "open"),
            key=key,
            writer=writer,
            pack_bytes=options.pack_bytes,
            refresh=self.refresh,
            retention_seconds=options.retention_seconds,
        )
        self._keeper = Keeper(self._writing, self._collector, self.catalog, self.commits, self.reader, objects)
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
            repository._writing.tidy_holds()
        except BaseException:
            repository.close()
            raise
        return repository

    def close(self) -> None:
        """What came of open copies is stored before, so that it need not come again."""
        self._writing.close()
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
        return self._writing.open_write(copy, info, fetched=fetched)

    def open_copies(self) -> list[str]:
        """The copies that are open, also those that an earlier run of this process opened."""
        return self._writing.open_copies()

    def writing(self, copy: str) -> OpenCopy:
        return self._writing.writing(copy)

    def commit(self, copy: str, *, info: CopyInfo | None = None, operation: str = "") -> CommittedCopy:
        return self._writing.commit(copy, info=info, operation=operation)

    def abort(self, copy: str) -> None:
        self._writing.abort(copy)

    # --- reading

    def committed(self, copy: str) -> CommittedCopy:
        return self.commits.committed(copy)

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

    @property
    def retention_seconds(self) -> float:
        return self._options.retention_seconds

    def delete(self, copy: str, *, operation: str = "") -> bool:
        return self.commits.remove(copy, operation=operation)

    def read_part(self, copy: str, part: Part) -> Iterator[EntryBegin | Data | EntryEnd | End]:
        yield from self._recalling(copy, read_events(part, self.reader.source(copy, part.name), copy=copy))

    def read_batches(self, copy: str, part: Part) -> Iterator[WholeEntries | EntryBegin | Data | EntryEnd | End]:
        source = self.reader.source(copy, part.name, by_name=False)
        yield from self._recalling(copy, read_batches(part, source, copy=copy))

    def _recalling(self, copy: str, events: Iterator[T]) -> Iterator[T]:
        try:
            yield from events
        except CalqueError as error:
            if error.problem.code == ARCHIVED:
                self._recall(copy)
            raise

    def _recall(self, copy: str) -> None:
        """Asks for all packs of the copy, so that what lies in an archive comes back together, not one pack after
        another."""
        for found in self.commits.of(copy):
            for pack in sorted(found.commit.pack_ids) if found.commit is not None else ():
                try:
                    self.objects.read(pack_name(pack), offset=0, length=1)
                except ObjectMissing:
                    continue
                except CalqueError as error:
                    if error.problem.code != ARCHIVED:
                        return  # what is wrong now stands in the way of reading too

    def entries(self, copy: str, part: Part) -> Iterator[IndexEntry]:
        return index_entries(part, self.reader.source(copy, part.name).one, copy=copy)

    def index_blocks(self, copy: str, part: Part) -> Iterator[bytes]:
        return index_blocks(part, self.reader.source(copy, part.name).one, copy=copy)

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
        self,
        copy: str,
        *,
        depth: Depth = "all",
        progress: Callable[[int], None],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Verification:
        if depth == "all":
            return self._examiner.verify(copy, progress=progress, cancelled=cancelled)
        share = SAMPLE_SHARE if depth == "sample" else 0.0
        return self._examiner.sample(copy, choose=lambda _ref: random.random() < share, cancelled=cancelled)  # noqa: S311

    def collect(self, *, compact: bool = False) -> Collected:
        self.refresh()
        return self._keeper.compact() if compact else self._collector.collect()

    def repair(self, *, read_all: bool = False) -> Repaired:
        return self._keeper.repair(self.objects, self.keys, self._examiner, read_all=read_all)

    def stats(self) -> Stats:
        found = survey(self.objects, self.keys, self.commits, hold_seconds=self._options.hold_seconds)
        staged = found.held - found.committed
        staging = sum(size for pack, size in found.packs.items() if pack in staged)
        known = {each.copy: each for each in found.commits}
        kept = self._locked(found.commits)
        logical = 0
        for copy, each in known.items():
            if each.commit is not None:
                with contextlib.suppress(CorruptManifest):
                    logical += parse(each.commit.manifest, copy=copy).logical_bytes
        return Stats(
            copies=len(known),
            open_copies=len(self.open_copies()),
            chunks=self.catalog.chunk_count(),
            logical_bytes=logical,
            stored_bytes=sum(found.packs.values()) - staging,
            staging_bytes=staging,
            images=self._images.count(),
            free_bytes=self.objects.free_bytes(),
            locked_copies=len({each.copy for each in kept}),
            locked_bytes=sum(found.packs.get(pack, 0) for pack in {pack for each in kept for pack in packs_of(each)}),
            locked_until=max((each.commit.keep_until for each in kept if each.commit is not None), default=""),
        )

    def _locked(self, commits: list[FoundCommit]) -> list[FoundCommit]:
        having = [each for each in commits if each.commit is not None and each.commit.keep_until]
        now = self.objects.now() if having else 0.0
        return [each for each in having if each.commit is not None and locked(each.commit.keep_until, now=now)]

    def free_bytes(self) -> int | None:
        return self.objects.free_bytes()

    def record_image(self, content: ImageContent) -> None:
        self._images.record(content)

    def forget_image(self, image: str, *, operation: str = "") -> None:
        self._images.forget(image, operation=operation)

    def images(self) -> Iterator[RecordedImage]:
        return self._images.all()


def _domain_secret(path: Path | None) -> bytes | None:
    return load_or_create_secret(path) if path is not None else None


def _writer_id(path: Path) -> str:
    """The name under which this process holds packs, the same in all its runs."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    made = os.urandom(8).hex()
    write_atomically(path, made.encode())
    return made
