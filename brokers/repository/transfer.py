"""Fetches a copy from another repository: only the chunks that are missing here, each one checked, then the same
signed manifest. Every chunk is kept as it comes, so that a transfer goes on where it was after a crash of either side.

Where the two repositories are of different trust domains (or formats), chunks have different names there and here:
then the parts that are not whole here yet are fetched as a reader gets them, and cut and named anew.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from brokers.repository.errors import CopyNotFound, CorruptManifest
from brokers.repository.manifest import FORMAT, PLAIN_DOMAIN, ChunkRef, CopyInfo, Manifest, Part, check_layout, parse
from brokers.repository.opened import ChunkLayout, CommittedCopy, CopyRepository, OpenCopy
from brokers.repository.threads import in_thread
from brokers.sdk.copystream_http import CopyStreamError, Session, broken, connection, damaged, request
from brokers.sdk.frames import Failure, FrameDecoder, FrameError, Layout, StoredChunk
from brokers.sdk.pacing import Pace
from schemas.brokers import CopyGrant
from schemas.problems import permanent, temporary
from schemas.unreadable import UNREADABLE

BATCH_CHUNKS = 64
BATCH_BYTES = 16 << 20
CONNECTIONS = 3

TransferProgress = Callable[[int, int], None]
"""Called with bytes of plaintext that are here, and the bytes of all."""


class Transfer:
    """One copy on its way. `run` may be called again after any failure; `CopyStreamError` says if that may help."""

    def __init__(
        self,
        repository: CopyRepository,
        grant: CopyGrant,
        *,
        certificate: Path,
        key: Path,
        progress: TransferProgress | None = None,
        pace: Pace | None = None,
        operation: str = "",
    ) -> None:
        """Its bytes go no faster than the grant says, and no faster than `pace`, which others may share. `operation`
        is the one that commits the copy here."""
        self._paces = (Pace(grant.bytes_per_second), pace or Pace(0))
        self._repository = repository
        self._grant = grant
        self._certificate = certificate
        self._key = key
        self._progress = progress
        self._operation = operation
        self._done = 0
        self._total = 0
        self.fetched_bytes = 0
        """Bytes of stored chunks that came over the wire."""

    async def run(self) -> CommittedCopy:
        """Fetches and commits. Cancelling it stops it cleanly; `abort` of the copy then removes what came.

        Raises CopyStreamError, CorruptManifest, Conflict, IncompleteCopy, StorageFailed, OSError.
        """
        copy = self._grant.copy
        if (known := await in_thread(self.committed_here)) is not None:
            return known
        async with connection(self._grant, certificate=self._certificate, key=self._key) as session:
            async with request(session, "GET", f"{self._grant.url}/manifest", part="manifest") as response:
                raw = await response.read()
            manifest = parse(raw, copy=copy)
            layout = await self._layout(session, manifest)
            shared = layout.domain == self._repository.domain
            fetched = CommittedCopy(
                manifest, raw, layout.parts if shared else tuple(part.portable() for part in manifest.parts)
            )
            opened = await in_thread(self._repository.open_write, copy, _info(manifest), fetched=fetched)
            self._total = manifest.logical_bytes
            self._tell(0)
            for part in fetched.parts:
                if not shared:
                    await self._fetch_part(session, opened, part)
                    continue
                await self._fetch_all(session, opened, iter(part.index or ()), part=part, counts=False)
                refs = await in_thread(_data_refs, opened, part)
                await self._fetch_all(session, opened, refs, part=part, counts=True)
        return await in_thread(self._repository.commit, copy, operation=self._operation)

    def committed_here(self) -> CommittedCopy | None:
        """The copy, if it needs no fetching. Blocking. Raises CorruptManifest."""
        try:
            return self._repository.committed(self._grant.copy)
        except CopyNotFound:
            return None

    async def _layout(self, session: Session, manifest: Manifest) -> ChunkLayout:
        if manifest.format == FORMAT:
            return ChunkLayout(PLAIN_DOMAIN, manifest.parts)
        async with request(session, "GET", f"{self._grant.url}/layout", part="layout") as response:
            body = await response.read()
        try:
            layout = msgspec.json.decode(body, type=ChunkLayout)
        except UNREADABLE as error:
            raise damaged("layout", f"the repository's list of chunks can't be read: {error}") from error
        if tuple(part.portable() for part in layout.parts) != manifest.parts:
            raise damaged("layout", "the repository's list of chunks is not that of the manifest")
        for part in layout.parts:
            check_layout(part, copy=manifest.copy)
        return layout

    async def _fetch_part(self, session: Session, opened: OpenCopy, part: Part) -> None:
        """Fetches a part as a reader gets it."""
        sealed = await in_thread(opened.sealed)
        if part.name in sealed and sealed[part.name].portable() == part.portable():
            self._tell(part.size)
            return
        layout = Layout.ENTRIES if part.is_entries else Layout.STREAM
        writer = opened.begin_part(
            part.name, layout=layout, media_type=part.media_type, framed=True, progress=self._count
        )
        try:
            headers = {"Accept": layout.media_type}
            url = f"{self._grant.url}/parts/{part.name}"
            async with request(session, "GET", url, part=part.name, headers=headers) as response:
                async for block in response.content.iter_any():
                    await self._slowed(len(block))
                    self.fetched_bytes += len(block)
                    await in_thread(writer.feed, block)
                    self._tell(0)
            arrived = await in_thread(writer.seal)
            if arrived.portable() != part.portable():
                raise damaged(part.name, "what arrived is not what the manifest says")
            await in_thread(opened.seal_part, arrived)
        finally:
            opened.end_part(part.name)

    def _count(self, more: int) -> None:
        self._done += more

    async def _fetch_all(
        self, session: Session, opened: OpenCopy, refs: Iterator[ChunkRef], *, part: Part, counts: bool
    ) -> None:
        lock = asyncio.Lock()

        async def worker() -> None:
            while True:
                async with lock:
                    seen, missing = await in_thread(_next_missing, opened, refs)
                if not seen:
                    return
                absent = sum(ref.size for ref in missing)
                here = sum(ref.size for ref in seen)
                if counts:
                    self._tell(here - absent)
                if missing:
                    await self._fetch(session, opened, missing, part=part, counts=counts)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(CONNECTIONS):
                    group.create_task(worker())
        except* Exception as errors:
            raise _first(errors) from None

    async def _fetch(
        self,
        session: Session,
        opened: OpenCopy,
        missing: list[ChunkRef],
        *,
        part: Part,
        counts: bool,
    ) -> None:
        sizes: dict[bytes, int] = {bytes.fromhex(ref.digest): ref.size for ref in missing}
        occurrences: dict[bytes, int] = {}
        for ref in missing:
            occurrences[bytes.fromhex(ref.digest)] = occurrences.get(bytes.fromhex(ref.digest), 0) + 1
        body = msgspec.json.encode([digest.hex() for digest in sizes])
        decoder = FrameDecoder(Layout.CHUNKS)
        async with request(session, "POST", f"{self._grant.url}/chunks", part=part.name, data=body) as response:
            try:
                async for block in response.content.iter_any():
                    await self._slowed(len(block))
                    for event in decoder.feed(block):
                        if isinstance(event, Failure):
                            make = temporary if event.temporary else permanent
                            raise CopyStreamError(make(event.code, event.message, field=part.name))
                        if isinstance(event, StoredChunk):
                            size = sizes.pop(event.digest, None)
                            if size is None:
                                raise damaged(part.name, "the repository sent a chunk that wasn't asked for")
                            await in_thread(_keep, opened, event, size)
                            self.fetched_bytes += len(event.data)
                            if counts:
                                self._tell(size * occurrences[event.digest])
                decoder.finish()
            except FrameError as error:
                raise broken(part.name, error) from error
        if sizes:
            raise damaged(part.name, f"the repository left out {len(sizes)} chunks that were asked for")

    async def _slowed(self, count: int) -> None:
        for pace in self._paces:
            await pace.take(count)

    def _tell(self, more: int) -> None:
        self._done += more
        if self._progress is not None:
            self._progress(self._done, self._total)


def _info(manifest: Manifest) -> CopyInfo:
    return CopyInfo(
        data_service=manifest.data_service,
        data_class=manifest.data_class,
        level=manifest.level,
        source=manifest.source,
        created=manifest.created,
        attributes=manifest.attributes,
    )


def _data_refs(opened: OpenCopy, part: Part) -> Iterator[ChunkRef]:
    # The index chunks come first again; they are here by now.
    return itertools.islice(opened.chunks_of(part), len(part.index or ()), None)


def _next_missing(opened: OpenCopy, refs: Iterator[ChunkRef]) -> tuple[list[ChunkRef], list[ChunkRef]]:
    """The next refs in order, up to a batch of missing ones: all that were looked at, and those that are missing."""
    seen: list[ChunkRef] = []
    missing: list[ChunkRef] = []
    size = 0
    for ref in refs:
        seen.append(ref)
        if not opened.has_chunk(ref.digest, size=ref.size):
            missing.append(ref)
            size += ref.size
        if len(missing) >= BATCH_CHUNKS or size >= BATCH_BYTES or len(seen) >= BATCH_CHUNKS * 16:
            break
    return seen, missing


def _keep(opened: OpenCopy, chunk: StoredChunk, size: int) -> None:
    opened.keep_chunk(chunk.digest.hex(), chunk.data, size=size)


def _first(errors: BaseExceptionGroup[Exception]) -> BaseException:
    for error in errors.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    return CorruptManifest("the transfer failed")
