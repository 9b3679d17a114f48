"""Streams the tables of a moment into the repository, several parts at once, biggest first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

import msgspec

from brokers.postgres.parallel.framing import framed
from brokers.postgres.parallel.readers import Readers
from brokers.postgres.parallel.tables import Directory, PartPlan, Table, plan_parts
from brokers.sdk.copystream import CopyWriter
from schemas.values import CopyPart

DIRECTORY_PART = "tables"
ROWS_TYPE = "application/vnd.calque.postgres-rows"


async def copy_tables(
    tables: Sequence[Table], readers: Readers, writer: CopyWriter, *, piece_bytes: int
) -> tuple[CopyPart, ...]:
    """The parts that were written: the directory, then the rows. The first failure ends all."""
    directory = plan_parts(tables, piece_bytes=piece_bytes)
    written = [await writer.write_stream(DIRECTORY_PART, _once(msgspec.json.encode(directory)))]
    waiting = deque(directory.parts)
    found: dict[str, CopyPart] = {}

    async def work() -> None:
        while waiting:
            part = waiting.popleft()
            found[part.name] = await writer.write_stream(part.name, _rows(part, readers), media_type=ROWS_TYPE)

    async with asyncio.TaskGroup() as group:
        for _ in range(readers.count):
            group.create_task(work())
    return (*written, *(found[part.name] for part in directory.parts))


async def _rows(part: PartPlan, readers: Readers) -> AsyncIterator[bytes]:
    for piece in part.pieces:
        async for block in framed(readers.rows(piece)):
            yield block


async def _once(block: bytes) -> AsyncIterator[bytes]:
    yield block


def directory_of(text: bytes) -> Directory:
    """What a copy says of its tables. Raises ``msgspec.ValidationError``."""
    return msgspec.json.decode(text, type=Directory)
