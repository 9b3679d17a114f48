"""Streams the tables of a moment into the repository, several parts at once, biggest first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

import msgspec

from brokers.postgres.copywire import Payloads, message_of
from brokers.postgres.parallel.framing import framed
from brokers.postgres.parallel.readers import Readers
from brokers.postgres.parallel.tables import Directory, PartPlan, Table, plan_parts
from brokers.postgres.rowfilter import Column, FilterTables, RowFilter
from brokers.sdk.copystream import CopyWriter
from schemas.values import CopyPart

DIRECTORY_PART = "tables"
ROWS_TYPE = "application/vnd.calque.postgres-rows"


async def copy_tables(
    tables: Sequence[Table],
    readers: Readers,
    writer: CopyWriter,
    *,
    piece_bytes: int,
    filters: FilterTables | None = None,
) -> tuple[CopyPart, ...]:
    """The parts that were written: the directory, then the rows, those of tables that have a filter through it. The
    first failure ends all."""
    if filters:
        tables = [msgspec.structs.replace(each, format="text") if _filter(filters, each) else each for each in tables]
    directory = plan_parts(tables, piece_bytes=piece_bytes)
    written = [await writer.write_stream(DIRECTORY_PART, _once(msgspec.json.encode(directory)))]
    waiting = deque(directory.parts)
    found: dict[str, CopyPart] = {}

    async def work() -> None:
        while waiting:
            part = waiting.popleft()
            found[part.name] = await writer.write_stream(part.name, _rows(part, readers, filters), media_type=ROWS_TYPE)

    async with asyncio.TaskGroup() as group:
        for _ in range(readers.count):
            group.create_task(work())
    return (*written, *(found[part.name] for part in directory.parts))


async def _rows(part: PartPlan, readers: Readers, filters: FilterTables | None) -> AsyncIterator[bytes]:
    for piece in part.pieces:
        rows = readers.rows(piece)
        through = _filter(filters, piece.table) if filters else None
        async for block in framed(_filtered(rows, through) if through else rows):
            yield block


def _filter(filters: FilterTables, table: Table) -> RowFilter | None:
    return filters(table.schema, table.name, [Column(name, "") for name in table.columns])


async def _filtered(blocks: AsyncIterator[bytes], through: RowFilter) -> AsyncIterator[bytes]:
    """Rows in the text format, changed on their way; as many in a message as were changed at once."""
    payloads = Payloads()
    async for block in blocks:
        if made := await asyncio.to_thread(lambda rows: through.feed(payloads.feed(rows)), block):
            yield message_of(made) + made
    if made := through.finish():
        yield message_of(made) + made


async def _once(block: bytes) -> AsyncIterator[bytes]:
    yield block


def directory_of(text: bytes) -> Directory:
    """What a copy says of its tables. Raises ``msgspec.ValidationError``."""
    return msgspec.json.decode(text, type=Directory)
