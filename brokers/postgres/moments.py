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
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from brokers.postgres.databases import Databases
from brokers.postgres.existing import check_readable
from brokers.postgres.leftout import left_out
from brokers.postgres.logins import Login
from brokers.postgres.names import application_of, database_of
from brokers.postgres.parallel.readers import Readers
from brokers.postgres.parallel.settings import ParallelSection
from brokers.postgres.parallel.tables import Table, readable_tables
from brokers.postgres.programs import Program
from brokers.postgres.server import Lost, Server, Session
from brokers.postgres.snapshots import (
    SequenceValue,
    estimate_of,
    point_of,
    sequences_of,
    snapshot_of_all_tables,
    without_timeouts,
)
from brokers.postgres.tools import Tools
from brokers.sdk.atomic import write_atomically
from brokers.sdk.errors import moment_lost, temporary_error
from schemas.brokers import Prepared

logger = logging.getLogger(__name__)

LOCK_WAIT_MILLISECONDS = 5000
LISTING_ATTEMPTS = 5
NOTES_KEPT_SECONDS = 8 * 24 * 3600.0
ALIVE_SECONDS = 5.0


class Source(NamedTuple):
    """The database that a moment is of: one of ours, or one that was there before (``login``)."""

    server: Server
    database: str
    login: Login | None = None


class Moment:
    """One prepared moment. ``copying`` counts the copies that stream from it now. Of a big database ``tables`` are read
    by ``readers``, and the dump is of all else."""

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
        self.tables: list[Table] = []
        self.readers: Readers | None = None
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
        readers, self.readers = self.readers, None
        try:
            if dump:
                await dump.stop()
        finally:
            if readers:
                await readers.close()
            await self.session.close()


class Moments:
    """The prepared moments of this process, by copy, and the notes of those that there were."""

    def __init__(
        self, server: Server, databases: Databases, *, bin_dir: Path, notes: Path, parallel: ParallelSection
    ) -> None:
        self._server = server
        self._parallel = parallel
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
        """A ``pg_dump`` that reads the moment, besides the rows of its ``tables``: the one that waits, or for another
        try a new one."""
        dump, moment.waiting_dump = moment.waiting_dump, None
        moment.streaming = dump or await self._start_dump(copy, moment.source, moment.snapshot, moment.tables)
        return moment.streaming

    async def readers(self, copy: str, moment: Moment) -> Readers:
        """What reads the tables of the moment: opened with it, or, for another try, now."""
        if moment.readers is None:
            moment.readers = await self._open_readers(copy, moment.source, moment.snapshot, moment.tables)
        return moment.readers

    async def stop_waiting(self, moment: Moment) -> None:
        """Let go of the dump that waits: another try starts one of its own."""
        dump, moment.waiting_dump = moment.waiting_dump, None
        if dump:
            await dump.stop()

    async def end_reading(self, moment: Moment) -> None:
        """Readers serve one try."""
        readers, moment.readers = moment.readers, None
        if readers:
            await readers.close()

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
            await without_timeouts(session)
            await session.run(f"SET lock_timeout = {LOCK_WAIT_MILLISECONDS}")
            for _ in range(LISTING_ATTEMPTS):
                if snapshot := await snapshot_of_all_tables(session):
                    break
            else:
                raise temporary_error("busy", "tables are being made and dropped all the time", field="service_id")
            estimate = await estimate_of(session)
            tables: list[Table] = []
            if estimate >= self._parallel.from_bytes and await self._tools.leaves_out_rows():
                tables = await readable_tables(session)
            dumping = asyncio.create_task(self._start_dump(copy, source, snapshot, tables))
            opening = asyncio.create_task(self._open_readers(copy, source, snapshot, tables))
            try:
                sequences = await sequences_of(session)
                at = await point_of(session)
                missing = await left_out(session)
                readers = await opening
            except BaseException:
                await _give_up(dumping, opening)
                raise
            moment = Moment(
                service_id=service_id,
                source=source,
                session=session,
                snapshot=snapshot,
                answer=Prepared(
                    moment=f"snapshot {snapshot} at {at}",
                    level="application",
                    estimated_bytes=estimate,
                    left_out=missing,
                ),
                sequences=sequences,
                hold_seconds=hold_seconds,
            )
            moment.tables = tables
            moment.readers = readers
            try:
                moment.waiting_dump = await dumping
            except BaseException:
                await readers.close()
                raise
        except BaseException:
            await session.close()
            raise
        return moment

    async def _open_readers(self, copy: str, source: Source, snapshot: str, tables: list[Table]) -> Readers:
        return await Readers.open(
            source.server,
            database=source.database,
            application=application_of(copy),
            snapshot=snapshot,
            tables=tables,
            count=self._parallel.connections if tables else 0,
            lock_wait_milliseconds=LOCK_WAIT_MILLISECONDS,
        )

    async def _start_dump(self, copy: str, source: Source, snapshot: str, besides: Sequence[Table] = ()) -> Program:
        """A ``pg_dump`` that has its locks and its view of the schema: it writes nothing before. It reads no rows of
        the tables ``besides``."""
        environment = source.server.program_environment(database=source.database, application=application_of(copy))
        arguments: tuple[str, ...] = (
            "--format=custom",
            "--compress=0",
            f"--snapshot={snapshot}",
            f"--lock-wait-timeout={LOCK_WAIT_MILLISECONDS}",
            "--no-password",
        )
        with tempfile.NamedTemporaryFile("w", dir=self._notes.parent, prefix="besides-", encoding="utf-8") as listed:
            if besides:
                listed.writelines(f"exclude table_data {table.quoted}\n" for table in besides)
                listed.flush()
                arguments = (*arguments, f"--filter={listed.name}")
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


async def _give_up(dumping: asyncio.Task[Program], opening: asyncio.Task[Readers]) -> None:
    """End what was begun for a moment that is not to be."""
    dumping.cancel()
    opening.cancel()
    await asyncio.gather(dumping, opening, return_exceptions=True)
    if not dumping.cancelled() and dumping.exception() is None:
        await dumping.result().stop()
    if not opening.cancelled() and opening.exception() is None:
        await opening.result().close()
