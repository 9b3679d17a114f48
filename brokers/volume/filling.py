"""Fills a tree from the entries of a copy as they arrive: while some are written to the disk, the next are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from brokers.sdk.digests import Buffer
from brokers.sdk.frames import EntryBegin
from brokers.volume.linux import BLOCK_BYTES
from brokers.volume.reading import BATCH_BYTES, BATCH_ENTRIES, SMALL_BYTES
from brokers.volume.restoring import OpenFile, Restorer
from brokers.volume.threads import in_thread

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
            await _write(file, ready)
    await _write(file, bytes(gathered))
    await in_thread(lambda _: restorer.finish(head, file))


async def _write(file: OpenFile, data: bytes) -> None:
    await in_thread(lambda _: file.write(data))
