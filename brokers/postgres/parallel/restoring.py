"""Restores a copy whose tables lie in parts of their own: the schema first, then rows of several tables at once, each
frozen as it arrives, then indexes and constraints, several at once."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

from brokers.postgres.carrying import apply, carrying
from brokers.postgres.contents import Contents, Entry, NotUnderstood, contents_of
from brokers.postgres.copywire import message_of
from brokers.postgres.fitting import require_all
from brokers.postgres.names import quoted
from brokers.postgres.parallel.copying import DIRECTORY_PART, directory_of
from brokers.postgres.parallel.framing import Unframer
from brokers.postgres.parallel.readers import settle
from brokers.postgres.parallel.steps import Steps
from brokers.postgres.parallel.tables import PartPlan, Table
from brokers.postgres.programs import Program, ProgramFailed
from brokers.postgres.server import Server, Session
from brokers.sdk.copystream import CopyReader
from brokers.sdk.digests import Buffer
from brokers.sdk.errors import permanent_error

MEMORY = "256MB"
"""What one connection may use to sort for an index."""
HELPERS = 2
"""What a server has an index made with by itself. While other steps run they would only be in their way."""


class Target(NamedTuple):
    """The empty database that is restored into, and the role that shall own all in it."""

    server: Server
    database: str
    application: str


class TablesFirst:
    """One restore. ``scratch`` is a directory for the schema, which ``pg_restore`` reads several times."""

    def __init__(self, target: Target, *, pg_restore: Path, scratch: Path, connections: int, big_bytes: int) -> None:
        """The indexes of tables of ``big_bytes`` on disk are made as soon as their rows are there, those of others at
        the end: starting a program for one costs more than it takes."""
        self._target = target
        self._pg_restore = pg_restore
        self._scratch = scratch
        self._connections = connections
        self._big_bytes = big_bytes

    async def restore(self, reader: CopyReader, *, database_part: str) -> None:
        """All but the sequences. Raises what the server, a program or the repository fails with."""
        text = b"".join([bytes(block) async for block in reader.read_stream(DIRECTORY_PART)])
        directory = directory_of(text)
        with tempfile.NamedTemporaryFile(dir=self._scratch, prefix="schema-") as dump:
            async for block in reader.read_stream(database_part):
                dump.write(block)
            dump.flush()
            contents = _contents(Path(dump.name))
            async with self._target.server.session(database=self._target.database) as session:
                await require_all(contents, session, role=self._target.database)
            carried = carrying(contents, role=self._target.database)
            kept = carried.kept(contents)
            steps = Steps(_jobs(directory.parts), kept, big_bytes=self._big_bytes)
            await self._section("pre-data", kept, dump.name)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._section("data", kept, dump.name))
                group.create_task(self._take(steps, dump.name, reader, messages=directory.messages))
            if steps.left:
                await self._entries(steps.left, dump.name, f"--jobs={self._connections}")
        async with self._target.server.session(database=self._target.database) as session:
            await apply(carried, session, role=self._target.database)

    async def _section(self, section: str, entries: Sequence[Entry], dump: str) -> None:
        wanted = [entry for entry in entries if entry.section == section]
        if wanted:
            await self._entries(wanted, dump, f"--section={section}")

    async def _take(self, steps: Steps, dump: str, reader: CopyReader, *, messages: bool) -> None:
        """All steps, so many at once as there are connections."""
        ended = asyncio.Event()

        async def work() -> None:
            session = await self._target.server.connect(
                database=self._target.database, application=self._target.application
            )
            try:
                await settle(session)
                await session.run(f"SET ROLE {quoted(self._target.database)}")
                await session.run("SET synchronous_commit = off")
                while not steps.done:
                    step = steps.next()
                    if step is None:
                        ended.clear()
                        await ended.wait()
                        continue
                    if step.entry is None:
                        await _load(session, step.job, reader, messages=messages)
                    else:
                        helpers = 0 if steps.running >= self._connections or not steps.done else HELPERS
                        await self._entries((step.entry,), dump, helpers=helpers)
                    steps.ended(step)
                    ended.set()
            finally:
                await session.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(self._connections):
                group.create_task(work())

    async def _entries(self, entries: Sequence[Entry], dump: str, *options: str, helpers: int = HELPERS) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self._scratch, prefix="entries-") as listed:
            listed.writelines(f"{entry.number};\n" for entry in entries)
            listed.flush()
            await self._pg_restore_of(dump, f"--use-list={listed.name}", *options, helpers=helpers)

    async def _pg_restore_of(self, dump: str, *options: str, helpers: int = HELPERS) -> None:
        """``helpers`` is how many processes of the server may help to make an index."""
        environment = self._target.server.program_environment(
            database=self._target.database,
            application=self._target.application,
            options=f"-c synchronous_commit=off -c maintenance_work_mem={MEMORY}"
            f" -c max_parallel_maintenance_workers={helpers}",
        )
        arguments = (
            *options,
            "--format=custom",
            "--no-owner",
            "--no-acl",
            "--no-tablespaces",
            f"--role={self._target.database}",
            "--exit-on-error",
            "--no-password",
            f"--dbname={self._target.database}",
            dump,
        )
        program = await Program.start(self._pg_restore, arguments, environment=environment)
        try:
            async for _ in program.blocks():
                continue
        except ProgramFailed:
            async with self._target.server.session():  # a server that is gone is the better answer
                raise
        finally:
            await program.stop()


def _contents(dump: Path) -> Contents:
    try:
        return contents_of(dump)
    except NotUnderstood as why:
        raise permanent_error("wrong_copy", f"the dump in the copy can't be read: {why}", field="restore") from None


def _jobs(parts: Sequence[PartPlan]) -> list[list[PartPlan]]:
    """What one connection loads in a row: the parts of one big table, which only the transaction that emptied it may
    freeze, or a part with several small ones."""
    jobs: list[list[PartPlan]] = []
    for part in parts:
        before = jobs[-1][-1].pieces[-1] if jobs else None
        if before is not None and before.end is not None and before.table == part.pieces[0].table:
            jobs[-1].append(part)
        else:
            jobs.append([part])
    return sorted(jobs, key=lambda job: -sum(piece.table.bytes for piece in job[0].pieces))


async def _load(session: Session, job: Sequence[PartPlan], reader: CopyReader, *, messages: bool) -> None:
    if len(job) > 1 or len(job[0].pieces) == 1:
        table = job[0].pieces[0].table
        async with _emptied(session, table):
            for part in job:
                async with _unframer(part, reader) as rows:
                    await session.copy_in(_statement(table), _messages(rows.next_table(), whole=messages))
        return
    async with _unframer(job[0], reader) as rows:
        for piece in job[0].pieces:
            async with _emptied(session, piece.table):
                await session.copy_in(_statement(piece.table), _messages(rows.next_table(), whole=messages))


async def _messages(pieces: AsyncIterator[memoryview], *, whole: bool) -> AsyncIterator[Buffer]:
    """What was stored as the server takes it: it is that already, or lies in no message yet."""
    async for piece in pieces:
        if not whole:
            yield message_of(piece)
        yield piece


@contextlib.asynccontextmanager
async def _unframer(part: PartPlan, reader: CopyReader) -> AsyncIterator[Unframer]:
    async with contextlib.aclosing(reader.read_stream(part.name)) as blocks:
        unframer = Unframer(blocks, part=part.name)
        yield unframer
        await unframer.finish()


@contextlib.asynccontextmanager
async def _emptied(session: Session, table: Table) -> AsyncIterator[None]:
    async with session.transaction():
        await session.run(f"TRUNCATE ONLY {table.quoted}")
        yield


def _statement(table: Table) -> str:
    return f"COPY {table.quoted} ({table.quoted_columns}) FROM STDIN (FORMAT {table.format}, FREEZE)"
