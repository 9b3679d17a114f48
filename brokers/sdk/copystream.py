"""What a data service broker uses to write a copy into a repository, and to read one back, over HTTPS.

Both ends take the digest while the bytes pass; a part that doesn't arrive as it was sent is an error on the
writing side, and a stream that isn't what was stored never ends cleanly on the reading side. Memory is bounded by
a few buffers whatever the size. Nothing is retried here: on `CopyStreamError` with `problem.temporary`, begin the
part anew.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from brokers.sdk.copystream_bodies import (
    BigEntry,
    Entries,
    EntrySource,
    PlacedBatch,
    PlacedPieces,
    Progress,
    entries_body,
    placed_body,
    stream_body,
)
from brokers.sdk.copystream_events import read_events
from brokers.sdk.copystream_http import CopyStreamError, broken, connection, damaged, request, send_guarded
from brokers.sdk.copystream_near import Take, take_in_thread
from brokers.sdk.digests import Buffer, Hasher
from brokers.sdk.frames import (
    ENTRIES_TYPE,
    RAW_TYPE,
    Data,
    End,
    EntryBegin,
    EntryEnd,
    Event,
    KeptEntry,
    KeptRange,
    Known,
    KnownEntry,
    Layout,
    PlacedEntry,
    entry_line,
)
from brokers.sdk.near import FILE_HEADER, PassedFile, available, passed_file
from brokers.sdk.pacing import Pace
from schemas.brokers import CopyGrant
from schemas.values import CopyPart

__all__ = [
    "BigEntry",
    "CopyHead",
    "CopyReader",
    "CopyStreamError",
    "CopyWriter",
    "EntrySource",
    "KeptEntry",
    "KeptRange",
    "KnownEntry",
    "PartHead",
    "PlacedBatch",
    "PlacedEntry",
    "PlacedPieces",
]

logger = logging.getLogger(__name__)

MEDIA_TYPE_HEADER = "Calque-Media-Type"


class PartHead(msgspec.Struct, frozen=True):
    """One part of a committed copy. Size in bytes, digest BLAKE3; `entries` is None for a stream."""

    name: str
    layout: str
    media_type: str
    size: int
    digest: str
    entries: int | None = None


class CopyHead(msgspec.Struct, frozen=True):
    """What the manifest of a committed copy says, as far as a reader needs it."""

    copy: str
    parts: tuple[PartHead, ...]
    merkle_root: str
    logical_bytes: int
    attributes: dict[str, object] = {}


class CopyWriter:
    """Writes the parts of one copy. Parts may be written at the same time; each is whole when its call returns."""

    def __init__(self, grant: CopyGrant, *, progress: Progress | None = None) -> None:
        self._grant = grant
        self._progress = progress
        self._pace = Pace(grant.bytes_per_second)
        self._file: PassedFile | None = None

    async def write_stream(self, part: str, blocks: AsyncIterator[bytes], *, media_type: str = RAW_TYPE) -> CopyPart:
        """Writes one opaque stream. What the iterator raises comes out as it is, and nothing of the part stays.

        Raises CopyStreamError.
        """
        return await self._put(
            part, stream_body(blocks, progress=self._passed), layout=Layout.STREAM, media_type=media_type
        )

    async def known(self, part: str) -> AsyncGenerator[KnownEntry, None]:
        """The entries that this part had in the copy before (the grant's `parent`), in the order in which they were
        written; nothing when there is none, or it lacks the part. What didn't change since can be written as a
        `KeptEntry`.

        Raises CopyStreamError.
        """
        if not self._grant.parent:
            return
        hasher, size, count = Hasher(), 0, 0
        async for event in read_events(self._grant, part, Layout.KNOWN, path=f"parts/{part}/known"):
            if isinstance(event, Known):
                hasher.update(event.lines)
                for entry in event.entries():
                    size += entry.size
                    count += 1
                    yield entry
            elif isinstance(event, End) and (event.size, event.digest, event.entries) != (size, hasher.hex(), count):
                raise damaged(part, "the list of the known entries did not arrive as it was stored")

    @asynccontextmanager
    async def passing(self, descriptor: int) -> AsyncIterator[bool]:
        """Passes an open file to the repository, if that is on this machine; whether it is. The bytes of entries of the
        next part may then be said to lie in that file (`PlacedBatch`, `BigEntry`): they are not sent."""
        async with AsyncExitStack() as stack:
            if self._grant.near and available() and not self._grant.bytes_per_second:
                try:
                    self._file = await stack.enter_async_context(
                        passed_file(self._grant.near, descriptor, progress=self._passed)
                    )
                except OSError as error:
                    logger.info("%s: the bytes are sent: %s", self._grant.copy, error)
            try:
                yield self._file is not None
            finally:
                self._file = None

    async def write_entries(self, part: str, entries: Entries, *, media_type: str = ENTRIES_TYPE) -> CopyPart:
        """Writes a list of entries in the order given. Each must have exactly the size it was announced with. Those
        that are kept must be entries of this part that `known` told, or whose numbers there are known; those that are
        placed come only where a file was passed.

        Raises CopyStreamError; with the temporary problem `kept_gone` when an entry can't be kept, since the copy
        before was deleted or is damaged: another grant knows better.
        """
        file = self._file
        body = (
            placed_body(part, entries, file) if file is not None else entries_body(part, entries, progress=self._passed)
        )
        return await self._put(part, body, layout=Layout.ENTRIES, media_type=media_type, file=file)

    async def write_ahead(self, part: str, entries: Entries, *, media_type: str = ENTRIES_TYPE) -> CopyPart:
        """Writes entries ahead of a part, as `write_entries` does: they are none of the copy. The part itself may then
        keep some of them by their numbers, or all of them (`keep_part`). Again, it replaces what came ahead before.

        Raises CopyStreamError, also where the repository takes nothing ahead.
        """
        file = self._file
        body = (
            placed_body(part, entries, file) if file is not None else entries_body(part, entries, progress=self._passed)
        )
        return await self._put(part, body, layout=Layout.ENTRIES, media_type=media_type, file=file, ahead=True)

    async def keep_part(self, part: str, *, of: str = "") -> CopyPart:
        """Keeps a part with entries as it was in the copy before (the grant's `parent`), or as it came ahead, without
        naming its entries. `of`: the digest that it has.

        Raises CopyStreamError as `write_entries`.
        """
        url = f"{self._grant.url}/parts/{part}/keep{f'?of={of}' if of else ''}"
        async with connection(self._grant) as session, request(session, "POST", url, part=part) as response:
            kept = msgspec.json.decode(await response.read(), type=CopyPart)
        self._passed(kept.size)
        return kept

    def _passed(self, length: int) -> None:
        if self._progress is not None:
            self._progress(length)

    async def _paced(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for block in body:
            for piece in self._pace.pieces(block):
                await self._pace.take(len(piece))
                yield piece

    async def _put(
        self,
        part: str,
        body: AsyncIterator[bytes],
        *,
        layout: Layout,
        media_type: str,
        file: PassedFile | None = None,
        ahead: bool = False,
    ) -> CopyPart:
        headers = {"Content-Type": layout.media_type, MEDIA_TYPE_HEADER: media_type}
        if file is not None:
            headers[FILE_HEADER] = file.handle
        url = f"{self._grant.url}/parts/{part}{'/ahead' if ahead else ''}"

        async def send(guarded: AsyncIterator[bytes]) -> CopyPart:
            # The repository looks at the token before the first byte of the body is sent.
            async with request(
                session, "PUT", url, part=part, data=guarded, headers=headers, expect100=True
            ) as response:
                return msgspec.json.decode(await response.read(), type=CopyPart)

        async with connection(self._grant) as session:
            try:
                written: CopyPart = await send_guarded(self._paced(body), send)
            except TimeoutError as error:
                raise broken(part, error) from error
            return written


class CopyReader:
    """Reads the parts of one committed copy, checking size and digest."""

    def __init__(self, grant: CopyGrant, *, progress: Progress | None = None) -> None:
        self._grant = grant
        self._progress = progress
        self._pace = Pace(grant.bytes_per_second)

    async def describe(self) -> CopyHead:
        """The parts of the copy. Raises CopyStreamError."""
        async with (
            connection(self._grant) as session,
            request(session, "GET", f"{self._grant.url}/manifest", part="manifest") as response,
        ):
            return msgspec.json.decode(await response.read(), type=CopyHead)

    async def read_stream(self, part: str) -> AsyncGenerator[Buffer, None]:
        """The bytes of a stream part, in blocks. If the iterator ends without an error, all of it was sound.

        Raises CopyStreamError; its problem is temporary if the connection broke, permanent if the copy is damaged.
        """
        hasher, size = Hasher(), 0
        async for event in self._events(part, Layout.STREAM):
            if isinstance(event, Data):
                hasher.update(event.data)
                size += len(event.data)
                yield event.data
                self._passed(len(event.data))
            elif isinstance(event, End) and (event.size != size or event.digest != hasher.hex()):
                raise damaged(part, "the part did not arrive as it was stored: its size or digest differs")

    async def read_entries(self, part: str) -> AsyncGenerator[tuple[EntryBegin, AsyncIterator[Buffer]], None]:
        """The entries of a part: head and bytes of each, in order. What of an entry isn't read is skipped (and
        checked) when the next one is asked for. Raises CopyStreamError as `read_stream`, from either iterator."""
        events = self._events(part, Layout.ENTRIES)
        part_hasher, count, total = Hasher(), 0, 0
        async for event in events:
            if isinstance(event, EntryBegin):
                digest: list[str] = []
                blocks = self._entry(part, event, events, digest)
                yield event, blocks
                async for _ in blocks:
                    pass
                if not digest:
                    raise damaged(part, f"entry {event.key!r} was not read to its end")
                part_hasher.update(
                    entry_line(key=event.key, size=event.size, metadata=event.metadata, digest=digest[0])
                )
                count += 1
                total += event.size
            elif isinstance(event, End) and (event.size, event.digest, event.entries) != (
                total,
                part_hasher.hex(),
                count,
            ):
                raise damaged(part, "the part did not arrive as it was stored: its size or digest differs")

    async def take_entries(self, part: str, take: Take) -> bool:
        """Where the repository is on this machine: calls ``take`` in a thread with all of the part, small entries
        together (`brokers.sdk.copystream_near`). Whether it is; if not, nothing was done."""
        return await take_in_thread(self._grant, part, take, progress=self._passed)

    def _passed(self, length: int) -> None:
        if self._progress is not None:
            self._progress(length)

    async def _entry(
        self, part: str, head: EntryBegin, events: AsyncIterator[Event], digest: list[str]
    ) -> AsyncIterator[Buffer]:
        hasher, size = Hasher(), 0
        async for event in events:
            if isinstance(event, Data):
                hasher.update(event.data)
                size += len(event.data)
                yield event.data
                self._passed(len(event.data))
            elif isinstance(event, EntryEnd):
                if size != head.size or event.digest != hasher.hex():
                    raise damaged(part, f"entry {head.key!r} did not arrive as it was stored")
                digest.append(event.digest)
                return

    def _events(self, part: str, layout: Layout) -> AsyncIterator[Event]:
        return read_events(self._grant, part, layout, path=f"parts/{part}", pace=self._pace)
