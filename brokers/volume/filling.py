"""Fills a tree from the entries of a copy as they arrive: while some are written to the disk, the next are read."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from brokers.sdk.copystream_near import Received, check
from brokers.sdk.digests import Buffer
from brokers.sdk.frames import Data, EntryBegin, EntryEnd
from brokers.sdk.near_frames import Whole
from brokers.volume.linux import BLOCK_BYTES
from brokers.volume.reading import BATCH_BYTES, BATCH_ENTRIES, SMALL_BYTES
from brokers.volume.restoring import OpenFile, Restorer
from brokers.volume.threads import in_thread

WRITERS = 2

_Batch = list[tuple[EntryBegin, bytes]]


async def fill(restorer: Restorer, entries: AsyncIterator[tuple[EntryBegin, AsyncIterator[Buffer]]]) -> None:
    """Make every entry, and then what must come last. Small ones many at a time. When cancelled, nothing is written
    any more once this returns."""
    writer = _Writer(restorer)
    try:
        batch: _Batch = []
        size = 0
        async for head, blocks in entries:
            big = head.size > SMALL_BYTES
            if batch and (big or size >= BATCH_BYTES or len(batch) >= BATCH_ENTRIES):
                await writer.begin(batch)
                batch, size = [], 0
            if big:
                await writer.done()
                await _big(restorer, head, blocks)
            else:
                batch.append((head, b"".join([bytes(block) async for block in blocks])))
                size += head.size
        await writer.begin(batch)
        await writer.done()
        await in_thread(lambda _: restorer.complete())
    finally:
        await writer.stop()
        await in_thread(lambda _: restorer.leave())


def fill_here(restorer: Restorer, part: str, events: Iterator[Received]) -> None:
    """The same, in a thread, from what comes without detours: small files are written by several threads."""
    writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="restore")
    writing: deque[Future[None]] = deque()

    def wait(*, most: int) -> None:
        while len(writing) > most:
            writing.popleft().result()

    head: EntryBegin | None = None
    file: OpenFile | None = None
    try:
        for event in events:
            if isinstance(event, Whole):
                wait(most=WRITERS)
                kinds = {entry.metadata.get("type") for entry in event.entries}
                if "hardlink" in kinds:
                    # What they lead to has to be there.
                    wait(most=0)
                    _write_whole(restorer, part, event, directories=True)
                    continue
                if "directory" in kinds:
                    restorer.add((entry, b"") for entry in event.entries if entry.metadata.get("type") == "directory")
                writing.append(writers.submit(_write_whole, restorer, part, event, directories=False))
            elif isinstance(event, EntryBegin):
                head, file = event, restorer.begin(event)
            elif isinstance(event, Data) and file is not None:
                restorer.write(file, event.data)
            elif isinstance(event, EntryEnd) and head is not None and file is not None:
                finishing, file = file, None
                restorer.finish(head, finishing)
        wait(most=0)
        restorer.complete()
    finally:
        writers.shutdown(cancel_futures=True)
        if file is not None:
            os.close(file.descriptor)
        restorer.leave()


def _write_whole(restorer: Restorer, part: str, whole: Whole, *, directories: bool) -> None:
    """Make entries, with the directories among them or without."""
    check(part, whole)
    restorer.add(
        (entry, data)
        for entry, data in zip(whole.entries, whole.data, strict=True)
        if directories or entry.metadata.get("type") != "directory"
    )
    whole.release()


class _Writer:
    """Writes one batch in a thread while the next one is gathered: entries are made in their order."""

    def __init__(self, restorer: Restorer) -> None:
        self._restorer = restorer
        self._writing: asyncio.Task[None] | None = None

    async def begin(self, batch: _Batch) -> None:
        """Write these, once those before are written."""
        await self.done()
        self._writing = asyncio.create_task(in_thread(lambda _: self._restorer.add(batch)))

    async def done(self) -> None:
        """All that was begun is written. Raises what went wrong with it."""
        if self._writing is not None:
            await self._writing
            self._writing = None

    async def stop(self) -> None:
        """Nobody wants the rest any more."""
        if self._writing is None:
            return
        self._writing.cancel()
        await asyncio.wait({self._writing})
        if not self._writing.cancelled():
            self._writing.exception()  # what ended the filling is told already


async def _big(restorer: Restorer, head: EntryBegin, blocks: AsyncIterator[Buffer]) -> None:
    file = await in_thread(lambda _: restorer.begin(head))
    gathered = bytearray()
    async for block in blocks:
        gathered += block
        if len(gathered) >= BLOCK_BYTES:
            ready, gathered = bytes(gathered), bytearray()
            await _write(restorer, file, ready)
    await _write(restorer, file, bytes(gathered))
    await in_thread(lambda _: restorer.finish(head, file))


async def _write(restorer: Restorer, file: OpenFile, data: bytes) -> None:
    await in_thread(lambda _: restorer.write(file, data))
