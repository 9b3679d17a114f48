"""A prepared moment as the entries of a copy. Small files are read many at a time, big ones in blocks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path

from brokers.sdk.copystream import EntrySource
from brokers.volume.inventory import Entry, read_inventory
from brokers.volume.linux import BLOCK_BYTES

SMALL_BYTES = 1 << 20
BATCH_BYTES = 4 << 20
BATCH_ENTRIES = 512

_Batch = list[tuple[Entry, bytes | None]]


async def entries(inventory: Path, content: Path, *, check: Callable[[], None]) -> AsyncGenerator[EntrySource, None]:
    """The entries in order. ``check`` is called now and then, and may raise to end it."""
    descriptor = os.open(content, os.O_RDONLY | os.O_CLOEXEC)
    reading: asyncio.Task[_Batch] | None = None
    try:
        batches = _batches(read_inventory(inventory), descriptor)
        reading = asyncio.create_task(asyncio.to_thread(next, batches, []))
        while batch := await asyncio.shield(reading):
            check()
            reading = asyncio.create_task(asyncio.to_thread(next, batches, []))
            for entry, data in batch:
                blocks = _blocks(entry, descriptor, check) if data is None else _one(data)
                yield entry.key, entry.metadata, entry.size, blocks
    finally:
        if reading is not None:
            await asyncio.wait({reading})  # it reads from the file that is closed now
            if not reading.cancelled():
                reading.exception()
        os.close(descriptor)


def _batches(inventory: Iterator[Entry], descriptor: int) -> Iterator[_Batch]:
    batch: _Batch = []
    size = 0
    for entry in inventory:
        data = None if entry.size > SMALL_BYTES else _whole(entry, descriptor)
        batch.append((entry, data))
        size += len(data or b"")
        if size >= BATCH_BYTES or len(batch) >= BATCH_ENTRIES or data is None:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _whole(entry: Entry, descriptor: int) -> bytes:
    read = [_read(descriptor, at, length) for at, length in entry.pieces]
    return read[0] if len(read) == 1 else b"".join(read)


def _read(descriptor: int, at: int, length: int) -> bytes:
    data = os.pread(descriptor, length, at)
    if len(data) != length:
        raise EOFError("the content of a prepared moment was cut short")
    return data


async def _blocks(entry: Entry, descriptor: int, check: Callable[[], None]) -> AsyncIterator[bytes]:
    for at, length in entry.pieces:
        for offset in range(0, length, BLOCK_BYTES):
            check()
            yield await asyncio.to_thread(_read, descriptor, at + offset, min(BLOCK_BYTES, length - offset))


async def _one(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data
