"""The prepared moments of copies: an exported snapshot, held by a session and by a ``pg_dump`` that waits.

A snapshot alone is not enough. A table that is truncated after the snapshot looks empty through it, so the session
locks every table (ACCESS SHARE) *before* the snapshot is taken. A TRUNCATE that then waits for the session blocks
whoever asks for the table after it, a ``pg_dump`` that starts later too, and the copy would never end: so
``pg_dump`` is started with the moment and has all its locks when the moment is answered; it stands still, its pipe
full, until the copy is asked for. Sequences are in no snapshot: they are read with it and travel beside the dump.

What was prepared once is noted on disk, so that a moment that a restart of the broker lost is never fixed anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from brokers.postgres.databases import Databases
from brokers.postgres.existing import check_readable
from brokers.postgres.logins import Login
from brokers.postgres.names import application_of, database_of
from brokers.postgres.programs import Program
from brokers.postgres.server import Lost, Server, Session, Vanished
from brokers.postgres.tools import Tools
from brokers.sdk.atomic import write_atomically
from brokers.sdk.errors import moment_lost, temporary_error
from schemas.brokers import Prepared

logger = logging.getLogger(__name__)

LOCK_WAIT_MILLISECONDS = 5000
LISTING_ATTEMPTS = 5
NOTES_KEPT_SECONDS = 8 * 24 * 3600.0
ALIVE_SECONDS = 5.0

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


class Source(NamedTuple):
    """The database that a moment is of: one of ours, or one that was there before (``login``)."""

    server: Server
    database: str
    login: Login | None = None


class Moment:
    """One prepared moment. ``copying`` counts the copies that stream from it now."""

    def __init__(
        self,
        *,
        service_id: str,
        source: Source,
        session: Session,
        snapshot: str,
        answer: Prepared,
        sequences: list[SequenceValue],
        hold_seconds: float,
    ) -> None:
        self.service_id = service_id
        self.source = source
        self.session = session
        self.snapshot = snapshot
        self.answer = answer
        self.sequences = sequences
        self.hold_seconds = hold_seconds
        self.waiting_dump: Program | None = None
        self.streaming: Program | None = None
        self.copying = 0
        self.expiry: asyncio.TimerHandle | None = None

    async def alive(self) -> bool:
        """Whether its session still answers."""
        try:
            async with asyncio.timeout(ALIVE_SECONDS):
                await self.session.value("SELECT 1")
        except (Lost, TimeoutError):
            return False
        return True

    async def release(self) -> None:
        """Let go of the session with its locks, and of the dump."""
        if self.expiry:
            self.expiry.cancel()
        if self.streaming:
            self.streaming.kill()
        dump, self.waiting_dump = self.waiting_dump, None
        try:
            if dump:
                await dump.stop()
        finally:
            await self.session.close()


class Moments:
    """The prepared moments of this process, by copy, and the notes of those that there were."""

    def __init__(self, server: Server, databases: Databases, *, bin_dir: Path, notes: Path) -> None:
        self._server = server
        self._databases = databases
        self._tools = Tools(bin_dir)
        self._notes = notes
        self._held: dict[str, Moment] = {}
        self._discarding: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Get ready, and forget notes that no request can come back to."""
        self._notes.mkdir(parents=True, exist_ok=True, mode=0o700)
        oldest = time.time() - NOTES_KEPT_SECONDS
        for note in self._notes.iterdir():
            if note.stat().st_mtime < oldest:
                note.unlink(missing_ok=True)

    async def close(self) -> None:
        """Let go of all moments."""
        for copy in list(self._held):
            await self._drop(copy)
        await asyncio.gather(*self._discarding, return_exceptions=True)

    async def prepare(
        self, *, service_id: str, copy: str, hold_seconds: float, source: Source | None = None
    ) -> Prepared:
        """Fix the moment of ``copy`` or repeat its answer. Raises ``moment_lost`` for one that was fixed and lost.

        ``source`` is a database that was there before; else it is the one that we made for the service.
        """
        held = self._held.get(copy)
        if held:
            if await held.alive():
                return held.answer
            await self._drop(copy)
        if self._note(copy).exists():
            raise moment_lost(copy, self._note(copy).read_text())
        own = Source(self._server, database_of(service_id))
        moment = await self._fix(source or own, service_id=service_id, copy=copy, hold_seconds=hold_seconds)
        if self._note(copy).exists():  # discarded meanwhile
            await moment.release()
            raise moment_lost(copy, self._note(copy).read_text())
        write_atomically(self._note(copy), b"the session that held it ended")
        self._held[copy] = moment
        self._expire_later(copy, moment)
        return moment.answer

    def get(self, *, copy: str, service_id: str) -> Moment:
        """The moment of ``copy``. Raises ``moment_lost``."""
        moment = self._held.get(copy)
        if moment is None or moment.service_id != service_id:
            note = self._note(copy)
            raise moment_lost(copy, note.read_text() if note.exists() else "it was not prepared here")
        return moment

    async def dump(self, copy: str, moment: Moment) -> Program:
        """A ``pg_dump`` that reads the moment: the one that waits, or, for another try, a new one."""
        dump, moment.waiting_dump = moment.waiting_dump, None
        moment.streaming = dump or await self._start_dump(copy, moment.source, moment.snapshot)
        return moment.streaming

    def begin_copy(self, moment: Moment) -> None:
        """The moment is in use: it does not expire."""
        moment.copying += 1
        if moment.expiry:
            moment.expiry.cancel()

    def end_copy(self, copy: str, moment: Moment) -> None:
        """Not in use any more: it is held for another ``hold_seconds``, for another try."""
        moment.copying -= 1
        moment.streaming = None
        if not moment.copying and self._held.get(copy) is moment:
            self._expire_later(copy, moment)

    async def lost(self, copy: str) -> None:
        """Its session is known to be gone."""
        await self._drop(copy)

    async def discard(self, copy: str) -> None:
        """Let go of the moment for good; one that is being prepared now is not kept."""
        write_atomically(self._note(copy), b"it was discarded")
        await self._drop(copy)

    async def discard_service(self, service_id: str) -> None:
        """Let go of all moments of a data service."""
        for copy in [copy for copy, moment in self._held.items() if moment.service_id == service_id]:
            await self.discard(copy)

    async def _open(self, source: Source, *, service_id: str, copy: str) -> Session:
        """A session in the database, which is whole and can be copied."""
        try:
            session = await source.server.connect(database=source.database, application=application_of(copy))
        except Lost:
            if source.login is None:
                async with self._server.session() as other:  # the server, or only the database, is not there
                    await self._databases.require(other, service_id)
            raise
        try:
            if source.login is None:
                await self._databases.require(session, service_id)
            else:
                await check_readable(session, user=source.login.user)
            await self._tools.check_dump(session)
        except BaseException:
            await session.close()
            raise
        return session

    async def _fix(self, source: Source, *, service_id: str, copy: str, hold_seconds: float) -> Moment:
        session = await self._open(source, service_id=service_id, copy=copy)
        try:
            await session.rows(_WITHOUT_TIMEOUTS, (list(_TIMEOUTS),))
            await session.run(f"SET lock_timeout = {LOCK_WAIT_MILLISECONDS}")
            for _ in range(LISTING_ATTEMPTS):
                if snapshot := await _snapshot_of_all_tables(session):
                    break
            else:
                raise temporary_error("busy", "tables are being made and dropped all the time", field="service_id")
            dumping = asyncio.create_task(self._start_dump(copy, source, snapshot))
            try:
                sequences = [await _sequence(session, name) for (name,) in await session.rows(_SEQUENCES)]
                at = await session.rows(_AT)
                estimate = int(await session.value(_ESTIMATE))
            except BaseException:
                dumping.cancel()
                await asyncio.gather(dumping, return_exceptions=True)
                raise
            moment = Moment(
                service_id=service_id,
                source=source,
                session=session,
                snapshot=snapshot,
                answer=Prepared(
                    moment=f"snapshot {snapshot} at WAL {at[0][0]}, {at[0][1]}",
                    level="application",
                    estimated_bytes=estimate,
                ),
                sequences=sequences,
                hold_seconds=hold_seconds,
            )
            moment.waiting_dump = await dumping
        except BaseException:
            await session.close()
            raise
        return moment

    async def _start_dump(self, copy: str, source: Source, snapshot: str) -> Program:
        """A ``pg_dump`` that has its locks and its view of the schema: it writes nothing before."""
        environment = source.server.program_environment(database=source.database, application=application_of(copy))
        arguments = (
            "--format=custom",
            "--compress=0",
            f"--snapshot={snapshot}",
            f"--lock-wait-timeout={LOCK_WAIT_MILLISECONDS}",
            "--no-password",
        )
        dump = await Program.start(self._tools.pg_dump, arguments, environment=environment)
        try:
            await dump.first_block()
        except BaseException:
            await dump.stop()
            raise
        return dump

    def _expire_later(self, copy: str, moment: Moment) -> None:
        moment.expiry = asyncio.get_running_loop().call_later(moment.hold_seconds, self._expire, copy, moment)

    def _expire(self, copy: str, moment: Moment) -> None:
        if self._held.get(copy) is moment and not moment.copying:
            logger.warning("the moment of copy %s was held for %.0f s and is dropped", copy, moment.hold_seconds)
            write_atomically(self._note(copy), f"it was held for {moment.hold_seconds:.0f} s and dropped".encode())
            task = asyncio.create_task(self._drop(copy), name=f"drop {copy}")
            self._discarding.add(task)
            task.add_done_callback(self._discarding.discard)

    async def _drop(self, copy: str) -> None:
        moment = self._held.pop(copy, None)
        if moment:
            await moment.release()

    def _note(self, copy: str) -> Path:
        return self._notes / hashlib.sha256(copy.encode()).hexdigest()


async def _snapshot_of_all_tables(session: Session) -> str | None:
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
