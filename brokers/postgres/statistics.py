"""What the planner knows of a database goes with its copy: without it the first queries of a restored one are planned
blindly.

It is read beside the rows, and given to a target of PostgreSQL 18 or later once all is there. Statistics hold values of
columns, so a masked copy or one of part of the rows has none. What is not told by the copy, or not to an older server,
the target finds out itself: it looks at a sample of the rows (``ANALYZE``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from brokers.postgres.names import quoted
from brokers.postgres.parallel.readers import settle
from brokers.postgres.parallel.restoring import Target
from brokers.postgres.server import Lost, ServerError, Session
from brokers.sdk.digests import Buffer

logger = logging.getLogger(__name__)

STATISTICS_PART = "statistics"
STATISTICS_TYPE = "application/vnd.calque.postgres-statistics"
TAKES_THEM = 180000
"""From this version of the server on statistics can be given to it."""
_TELLS_RANGES = 170000
MOST_BYTES = 64 << 20
LET_END_SECONDS = 3.0
_AT_ONCE = 200
"""So many relations are told in one transaction, which locks each of them."""

# Columns of an index are known by their number: their names are the server's choice.
_READ = """
    COPY (
        SELECT dense_rank() OVER (ORDER BY c.oid), n.nspname, c.relname, c.relkind IN ('i', 'I'), a.attname, a.attnum,
               s.inherited, c.reltuples, s.null_frac, s.avg_width, s.n_distinct, s.most_common_vals::text,
               s.most_common_freqs, s.histogram_bounds::text, s.correlation, s.most_common_elems::text,
               s.most_common_elem_freqs, s.elem_count_histogram, {ranges}
        FROM pg_catalog.pg_stats s
        JOIN pg_catalog.pg_namespace n ON n.nspname = s.schemaname
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = s.tablename
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = s.attname AND NOT a.attisdropped
        WHERE c.relkind IN ('r', 'm', 'p', 'i', 'I') AND c.relpersistence <> 't'
          AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
    ) TO STDOUT
"""
_RANGES = "s.range_length_histogram::text, s.range_empty_frac, s.range_bounds_histogram::text"
_NO_RANGES = "NULL, NULL, NULL"
_TOLD = """
    CREATE TEMPORARY TABLE calque_told (
        number int, schema text, relation text, by_number bool, attribute text, place int2, inherited bool, rows real,
        null_frac real, avg_width int, n_distinct real, most_common_vals text, most_common_freqs real[],
        histogram_bounds text, correlation real, most_common_elems text, most_common_elem_freqs real[],
        elem_count_histogram real[], range_length_histogram text, range_empty_frac real, range_bounds_histogram text
    )
"""
_TELL = """
    SELECT pg_catalog.pg_restore_attribute_stats(
        'schemaname', t.schema, 'relname', t.relation, 'inherited', t.inherited,
        'attname', CASE WHEN NOT t.by_number THEN t.attribute END, 'attnum', CASE WHEN t.by_number THEN t.place END,
        'null_frac', t.null_frac, 'avg_width', t.avg_width, 'n_distinct', t.n_distinct,
        'most_common_vals', t.most_common_vals, 'most_common_freqs', t.most_common_freqs,
        'histogram_bounds', t.histogram_bounds, 'correlation', t.correlation,
        'most_common_elems', t.most_common_elems, 'most_common_elem_freqs', t.most_common_elem_freqs,
        'elem_count_histogram', t.elem_count_histogram, 'range_length_histogram', t.range_length_histogram,
        'range_empty_frac', t.range_empty_frac, 'range_bounds_histogram', t.range_bounds_histogram)
    FROM calque_told t
    JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.relation
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
         AND CASE WHEN t.by_number THEN a.attnum = t.place ELSE a.attname = t.attribute END
    WHERE t.number > %(behind)s AND t.number <= %(behind)s + %(count)s
"""
# What made an index has counted the rows. They lie closer here than at the source: pages are counted, not told.
_TELL_ROWS = """
    SELECT pg_catalog.pg_restore_relation_stats('schemaname', t.schema, 'relname', t.relation, 'reltuples', t.rows,
        'relpages', (pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int)::int)
    FROM (SELECT DISTINCT schema, relation, rows FROM calque_told
          WHERE rows >= 0 AND number > %(behind)s AND number <= %(behind)s + %(count)s) t
    JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.relation
    WHERE c.relkind IN ('r', 'm') AND c.reltuples < 0
"""
# A partitioned table is looked at with its partitions. What several columns have in common is never told.
_UNKNOWN = """
    SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = ANY(%(kinds)s) AND (%(parts)s OR NOT c.relispartition) AND c.relpersistence <> 't'
      AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%'
      AND (c.relkind = 'p' OR pg_catalog.pg_relation_size(c.oid) > 0)
      AND (NOT EXISTS (SELECT FROM pg_catalog.pg_stats s WHERE s.schemaname = n.nspname AND s.tablename = c.relname)
           OR EXISTS (SELECT FROM pg_catalog.pg_statistic_ext e WHERE e.stxrelid = c.oid))
    ORDER BY pg_catalog.pg_table_size(c.oid) DESC
"""


async def statistics_of(session: Session) -> bytes | None:
    """What the planner knows of all that the session sees, in the transaction it is in: rows in COPY's text format, as
    the server sends them. ``None`` when that can't be read, or is more than :data:`MOST_BYTES`: the target finds out
    itself. The session has other settings afterwards; when cancelled it is whole, for another try."""
    reading = asyncio.ensure_future(_read(session))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.wait({reading}, timeout=LET_END_SECONDS)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        raise


async def _read(session: Session) -> bytes | None:
    ranges = _RANGES if session.server_version >= _TELLS_RANGES else _NO_RANGES
    found = bytearray()
    size = 0
    try:
        async with session.transaction():
            await settle(session)
            async for block in session.copy_out(_READ.format(ranges=ranges)):
                size += len(block)  # read to its end in any case: the session is needed
                if size <= MOST_BYTES:
                    found += block
    except Lost:
        raise
    except ServerError as error:
        logger.warning("the planner's statistics can't be read, the target will make its own: %s", error)
        return None
    return bytes(found) if size <= MOST_BYTES else None


async def make_known(target: Target, told: AsyncIterator[Buffer] | None, *, connections: int) -> None:
    """The planner knows what is in the restored database: it is told (:func:`statistics_of`), and looks at all else
    itself, over so many ``connections``. A table that it can't look at fails no restore. Raises :data:`Lost`, and what
    ``told`` raises."""
    session = await _session(target)
    try:
        knows = await _tell(session, told) if told is not None and session.server_version >= TAKES_THEM else False
        kinds, parts = (["r", "m"], True) if knows else (["r", "m", "p"], False)
        unknown = [str(name) for (name,) in await session.rows(_UNKNOWN, {"kinds": kinds, "parts": parts})]
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(_session(target)) for _ in range(min(connections, len(unknown)) - 1)]
        sessions = [session, *(other.result() for other in others)]
        try:
            async with asyncio.TaskGroup() as group:
                for each in sessions:
                    group.create_task(_look(each, unknown))
        finally:
            await asyncio.gather(*(each.close() for each in sessions[1:]))
    finally:
        await session.close()


async def _session(target: Target) -> Session:
    session = await target.server.connect(database=target.database, application=target.application)
    try:
        await settle(session)
        await session.run(f"SET ROLE {quoted(target.database)}")
        await session.run("SET synchronous_commit = off")
    except BaseException:
        await session.close()
        raise
    return session


async def _tell(session: Session, told: AsyncIterator[Buffer]) -> bool:
    """Whether the server took it."""
    try:
        await session.run(_TOLD)
        await session.copy_in("COPY calque_told FROM STDIN", told)
        last = int(await session.value("SELECT coalesce(max(number), 0) FROM calque_told"))
        for behind in range(0, last, _AT_ONCE):
            where = {"behind": behind, "count": _AT_ONCE}
            await session.rows(_TELL, where)
            await session.rows(_TELL_ROWS, where)
        await session.run("DROP TABLE calque_told")
    except Lost:
        raise
    except ServerError as error:
        logger.warning("the planner's statistics can't be carried over, and are made anew: %s", error)
        return False
    return True


async def _look(session: Session, unknown: list[str]) -> None:
    while unknown:
        name = unknown.pop(0)
        try:
            await session.run(f"ANALYZE {name.replace('%', '%%')}")
        except Lost:
            raise
        except ServerError as error:
            logger.warning("what is in %s the planner learns later: %s", name, error)
