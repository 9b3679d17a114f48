"""What fixes the moment of a database: its snapshot, under the locks of all tables, and what no snapshot holds."""

from __future__ import annotations

import logging

import msgspec

from brokers.postgres.server import Session, Vanished

logger = logging.getLogger(__name__)

_TABLES = """
    SELECT c.oid::bigint, format('%I.%I', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
    ORDER BY 1
"""
_SEQUENCES = """
    SELECT format('%I.%I', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
    ORDER BY 1
"""
_TIMEOUTS = ("idle_in_transaction_session_timeout", "statement_timeout", "idle_session_timeout", "transaction_timeout")
_WITHOUT_TIMEOUTS = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = ANY(%s)"
_AT = """
    SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text,
           to_char(now(), 'YYYY-MM-DD HH24:MI:SS.US TZ')
"""
_ESTIMATE = """
    SELECT coalesce(sum(pg_table_size(c.oid)), 0)::bigint
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_t%'
"""


class SequenceValue(msgspec.Struct, frozen=True):
    """Where a sequence stood. ``name`` is qualified and quoted."""

    name: str
    last_value: int
    is_called: bool


async def without_timeouts(session: Session) -> None:
    """A session that waits for its copy is ended by nobody but us."""
    await session.rows(_WITHOUT_TIMEOUTS, (list(_TIMEOUTS),))


async def point_of(session: Session) -> str:
    """Where the server stands, in its own words."""
    ((place, time),) = await session.rows(_AT)
    return f"WAL {place}, {time}"


async def estimate_of(session: Session) -> int:
    """What a copy of all tables may have, in bytes."""
    return int(await session.value(_ESTIMATE))


async def sequences_of(session: Session) -> list[SequenceValue]:
    """Where all sequences stand now."""
    return [await _sequence(session, name) for (name,) in await session.rows(_SEQUENCES)]


async def snapshot_of_all_tables(session: Session) -> str | None:
    """Begin a transaction that holds every table and take its snapshot; ``None``, and no transaction, when the
    tables changed between listing and locking."""
    listed = await session.rows(_TABLES)
    await session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        if listed:
            # LOCK takes no snapshot: the one below is younger than every change that the locks waited for
            await session.run(f"LOCK TABLE ONLY {', ONLY '.join(name for _, name in listed)} IN ACCESS SHARE MODE")
        snapshot = str(await session.value("SELECT pg_export_snapshot()"))
        if await session.rows(_TABLES) == listed:
            return snapshot
    except Vanished:
        logger.info("a table was dropped while it was being locked")
    await session.run("ROLLBACK")
    return None


async def _sequence(session: Session, name: str) -> SequenceValue:
    ((last_value, is_called),) = await session.rows(f"SELECT last_value, is_called FROM {name}")  # noqa: S608 - quoted by the server
    return SequenceValue(name, last_value, is_called)
