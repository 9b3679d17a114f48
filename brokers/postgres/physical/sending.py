"""Staged files as entries of a part: read ahead in a thread, many small ones at once; or told where they lie, where the
repository is on the same machine and reads them itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from brokers.sdk.copystream import BigEntry, EntrySource, KeptEntry, PlacedBatch, PlacedEntry

BLOCK_BYTES = 1 << 20
AHEAD_BYTES = 4 << 20
_AHEAD_FILES = 256


class Sent(NamedTuple):
    """A file that is sent whole: its key in the part, in which file it lies and from where on, its size in bytes."""

    key: str
    path: Path
    size: int
    at: int = 0
    metadata: Mapping[str, str] = {}


async def entries_of(
    files: Iterable[Sent | KeptEntry], *, check: Callable[[], None]
) -> AsyncIterator[EntrySource | KeptEntry]:
    """The entries, in the order given. ``check`` is called now and then, and may raise. Raises ``FileNotFoundError``,
    and ``EOFError`` for a file that is shorter than was said."""
    pieces = _ahead(_pieces(files), check=check)
    try:
        async for piece in pieces:
            if isinstance(piece, KeptEntry):
                yield piece
            else:
                assert isinstance(piece, Sent)
                yield piece.key, piece.metadata, piece.size, _body(pieces, piece.size)
    finally:
        await pieces.aclose()


async def placed_entries_of(
    files: Iterable[Sent | KeptEntry], *, check: Callable[[], None]
) -> AsyncIterator[PlacedBatch | BigEntry | KeptEntry]:
    """The same for files that all lie in the one that was passed to the repository: nothing is read here."""
    batch: list[PlacedEntry] = []
    size = 0
    for file in files:
        if batch and (isinstance(file, KeptEntry) or size + file.size > AHEAD_BYTES or len(batch) >= _AHEAD_FILES):
            check()
            yield PlacedBatch(batch, size)
            batch, size = [], 0
        if isinstance(file, KeptEntry):
            yield file
            continue
        entry = PlacedEntry(file.key, file.size, dict(file.metadata), ((file.at, file.size),) if file.size else ())
        if file.size > AHEAD_BYTES:
            check()
            yield BigEntry(entry)
        else:
            batch.append(entry)
            size += file.size
    if batch:
        yield PlacedBatch(batch, size)


async def _body(pieces: AsyncGenerator[Sent | KeptEntry | bytes, None], size: int) -> AsyncIterator[bytes]:
    while size > 0:
        block = await anext(pieces)
        assert isinstance(block, bytes)
        size -= len(block)
        yield block


def _pieces(files: Iterable[Sent | KeptEntry]) -> Iterator[Sent | KeptEntry | bytes]:
    """Files, behind each its blocks. Blocking."""
    for file in files:
        yield file
        if isinstance(file, KeptEntry):
            continue
        left = file.size
        with file.path.open("rb", buffering=0) as opened:
            opened.seek(file.at)
            while left > 0:
                block = opened.read(min(left, BLOCK_BYTES))
                if not block:
                    raise EOFError(f"{file.path.name} is shorter than it was")
                left -= len(block)
                yield block


async def _ahead(
    pieces: Iterator[Sent | KeptEntry | bytes], *, check: Callable[[], None]
) -> AsyncGenerator[Sent | KeptEntry | bytes, None]:
    """The same pieces: while some are used, the next ones are read."""
    reading = asyncio.ensure_future(asyncio.to_thread(_some, pieces))
    try:
        while found := await reading:
            check()
            reading = asyncio.ensure_future(asyncio.to_thread(_some, pieces))
            for piece in found:
                yield piece
    finally:
        await asyncio.wait({reading})
        reading.exception()  # looked at, so that a failure that nobody waits for is not told as forgotten


def _some(pieces: Iterator[Sent | KeptEntry | bytes]) -> list[Sent | KeptEntry | bytes]:
    found: list[Sent | KeptEntry | bytes] = []
    size = 0
    for piece in pieces:
        found.append(piece)
        size += len(piece) if isinstance(piece, bytes) else 0
        if size >= AHEAD_BYTES or len(found) >= _AHEAD_FILES:
            break
    return found
