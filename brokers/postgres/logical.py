"""Logical copies: what ``pg_dump`` writes, and of big databases the rows of tables beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec

from brokers.postgres.archive import filtered
from brokers.postgres.masking import MaskedTables, Masker
from brokers.postgres.moments import Moment, Moments
from brokers.postgres.names import application_of, database_of
from brokers.postgres.onedump import restore_dump
from brokers.postgres.parallel.copying import DIRECTORY_PART, copy_tables
from brokers.postgres.parallel.failures import first_failure
from brokers.postgres.parallel.restoring import TablesFirst, Target
from brokers.postgres.programs import ProgramFailed
from brokers.postgres.server import Lost, Server
from brokers.postgres.settings import PostgresSettings
from brokers.postgres.snapshots import SequenceValue
from brokers.postgres.statistics import STATISTICS_PART, STATISTICS_TYPE, make_known, statistics_of
from brokers.sdk.copystream import CopyReader, CopyWriter
from brokers.sdk.errors import moment_lost, permanent_error
from brokers.sdk.progress import Reporter
from schemas.brokers import Copied, CopyData, CopyGrant
from schemas.problems import CalqueError
from schemas.values import CopyPart

COPY_FORMAT = "pg_dump-custom"
PARALLEL_FORMAT = "postgres-logical-2"
"""As before, but the rows of tables lie in parts of their own."""
FORMATS = (COPY_FORMAT, "postgres-logical-1", PARALLEL_FORMAT)
LOGICAL = "logical"
DATABASE_PART = "database"
SEQUENCES_PART = "sequences"
DUMP_TYPE = "application/vnd.postgresql.dump"


class Logical:
    """Copies the moments of databases, and restores copies into empty ones."""

    def __init__(self, settings: PostgresSettings, server: Server, moments: Moments, masker: Masker) -> None:
        self._settings = settings
        self._server = server
        self._moments = moments
        self._masker = masker

    async def copy(self, request: CopyData, reporter: Reporter) -> Copied:
        """Stream dump, rows and sequences of the moment."""
        moment = self._moments.get(copy=request.copy, service_id=request.service_id)
        self._moments.begin_copy(moment)
        try:
            if not await moment.alive():
                raise await self._lost(request.copy)
            return await self._stream(request, moment, reporter)
        finally:
            self._moments.end_copy(request.copy, moment)

    async def _stream(self, request: CopyData, moment: Moment, reporter: Reporter) -> Copied:
        total = moment.answer.estimated_bytes
        done = 0

        def passed(count: int) -> None:
            nonlocal done
            done += count
            reporter.report(done=done, total=max(total, done) if total else None)

        writer = CopyWriter(request.grant, progress=passed)
        version = moment.session.version  # a discard may close the session when the dump has all been read
        try:
            try:
                tables = await self._masker.filters(moment.session, request.masking) if request.masking else None
                # They hold values of columns, and are never masked.
                known = None if request.masking else await statistics_of(moment.session)
            except BaseException:
                await self._moments.stop_waiting(moment)
                raise
            with first_failure():
                async with asyncio.TaskGroup() as group:
                    dumping = group.create_task(self._dump(request.copy, moment, writer, tables))
                    copying = group.create_task(self._copy_tables(request.copy, moment, writer, tables))
            database, rows = dumping.result(), copying.result()
        except (ProgramFailed, Lost) as error:
            if await moment.alive():
                raise
            raise await self._lost(request.copy) from error
        sequences = await writer.write_stream(
            SEQUENCES_PART, _once(msgspec.json.encode(moment.sequences)), media_type="application/json"
        )
        told = (
            ()
            if known is None
            else (await writer.write_stream(STATISTICS_PART, _once(known), media_type=STATISTICS_TYPE),)
        )
        reporter.report(done=done, total=done)  # what it was to be was an estimate
        return Copied(
            copy_format=PARALLEL_FORMAT if rows else COPY_FORMAT,
            parts=(database, sequences, *told, *rows),
            engine="postgresql",
            engine_version=version,
            method=LOGICAL,
            masked=tables.masked if tables else None,
        )

    async def _dump(self, copy: str, moment: Moment, writer: CopyWriter, tables: MaskedTables | None) -> CopyPart:
        """What ``pg_dump`` writes of the moment, besides the rows of the tables that are read apart."""
        dump = await self._moments.dump(copy, moment)
        try:
            blocks = filtered(dump.blocks(), tables) if tables else dump.blocks()
            return await writer.write_stream(DATABASE_PART, blocks, media_type=DUMP_TYPE)
        finally:
            await dump.stop()

    async def _copy_tables(
        self, copy: str, moment: Moment, writer: CopyWriter, filters: MaskedTables | None
    ) -> tuple[CopyPart, ...]:
        """The rows of tables that are read apart, where there are such."""
        if not moment.tables:
            return ()
        try:
            readers = await self._moments.readers(copy, moment)
            piece_bytes = self._settings.parallel.piece_bytes
            return await copy_tables(moment.tables, readers, writer, piece_bytes=piece_bytes, filters=filters)
        finally:
            await self._moments.end_reading(moment)

    async def _restore_tables(self, target: Target, reader: CopyReader) -> None:
        restoring = TablesFirst(
            target,
            pg_restore=self._settings.bin_dir / "pg_restore",
            scratch=self._settings.state_dir,
            connections=self._settings.parallel.connections,
            big_bytes=self._settings.parallel.big_bytes,
        )
        await restoring.restore(reader, database_part=DATABASE_PART)

    async def _lost(self, copy: str) -> CalqueError:
        await self._moments.lost(copy)
        return moment_lost(copy, "PostgreSQL ended the session that held it")

    async def restore(
        self, service_id: str, grant: CopyGrant, reporter: Reporter, *, server: Server | None = None
    ) -> int:
        """Restore into the empty database, on the broker's server or on ``server``; how many bytes went in."""
        server = server or self._server
        done = 0
        reader = CopyReader(grant, progress=lambda count: passed(count))
        head = await reader.describe()
        parts = {part.name: part for part in head.parts}
        if DATABASE_PART not in parts:
            raise permanent_error("wrong_copy", f"the copy has no part {DATABASE_PART!r}", field="restore")
        total = head.logical_bytes

        def passed(count: int) -> None:
            nonlocal done
            done += count
            reporter.report(done=done, total=total)

        target = Target(server, database_of(service_id), application_of(grant.copy))
        with first_failure():
            if DIRECTORY_PART in parts:
                await self._restore_tables(target, reader)
            else:
                async with aclosing(reader.read_stream(DATABASE_PART)) as blocks:
                    await restore_dump(
                        blocks,
                        target,
                        pg_restore=self._settings.bin_dir / "pg_restore",
                        scratch=self._settings.state_dir,
                    )
            if SEQUENCES_PART in parts:
                await self._set_sequences(target, CopyReader(grant))
            told = CopyReader(grant).read_stream(STATISTICS_PART) if STATISTICS_PART in parts else None
            await make_known(target, told, connections=self._settings.parallel.connections)
        return total

    async def _set_sequences(self, target: Target, reader: CopyReader) -> None:
        """Put the sequences where they stood at the moment: the dump read them later."""
        text = b"".join([bytes(block) async for block in reader.read_stream(SEQUENCES_PART)])
        sequences = msgspec.json.decode(text, type=list[SequenceValue])
        async with target.server.session(database=target.database) as session, session.transaction():
            for sequence in sequences:
                await session.run(
                    "SELECT setval(%s::regclass, %s, %s)", (sequence.name, sequence.last_value, sequence.is_called)
                )


async def _once(block: bytes) -> AsyncIterator[bytes]:
    yield block
