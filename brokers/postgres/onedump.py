"""Restores a copy that is one dump: it streams from the repository through ``pg_restore``."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from brokers.postgres.carrying import Carrying, apply, carrying
from brokers.postgres.contents import ArchiveReader, NotUnderstood, Short, read_contents
from brokers.postgres.fitting import require_all
from brokers.postgres.parallel.restoring import Target
from brokers.postgres.programs import Program, ProgramFailed
from brokers.sdk.digests import Buffer

_HEAD_BYTES = 256 << 20
"""A table of contents is never that long."""


async def restore_dump(blocks: AsyncIterator[Buffer], target: Target, *, pg_restore: Path, scratch: Path) -> None:
    """All that is in the dump, owned by the role that is called like the database. Raises what the server, the program
    or ``blocks`` fails with."""
    head = bytearray()
    kept: list[int] | None = None
    carried = Carrying(frozenset(), (), ())
    async for block in blocks:
        head += block
        try:
            contents = read_contents(ArchiveReader(head))
        except Short:
            if len(head) < _HEAD_BYTES:
                continue
        except NotUnderstood:  # pg_restore may know better, and says what is wrong with it if it doesn't
            pass
        else:
            async with target.server.session(database=target.database) as session:
                await require_all(contents, session, role=target.database)
            carried = carrying(contents, role=target.database)
            kept = [entry.number for entry in carried.kept(contents)] if carried.skipped else None
        break
    environment = target.server.program_environment(
        database=target.database, application=target.application, options="-c synchronous_commit=off"
    )
    with _listed(kept, scratch) as listed:
        arguments = (
            "--format=custom",
            "--no-owner",
            "--no-acl",
            "--no-tablespaces",
            f"--role={target.database}",
            "--exit-on-error",
            "--no-password",
            f"--dbname={target.database}",
            *listed,
        )
        program = await Program.start(pg_restore, arguments, environment=environment, stdin=True)
        try:
            await program.feed(_behind(bytes(head), blocks))
        except ProgramFailed:
            async with target.server.session():  # a server that is gone is the better answer, and a temporary one
                raise
        finally:
            await program.stop()
    async with target.server.session(database=target.database) as session:
        await apply(carried, session, role=target.database)


@contextmanager
def _listed(numbers: list[int] | None, scratch: Path) -> Iterator[tuple[str, ...]]:
    if numbers is None:
        yield ()
        return
    with tempfile.NamedTemporaryFile("w", dir=scratch, prefix="entries-") as file:
        file.writelines(f"{number};\n" for number in numbers)
        file.flush()
        yield (f"--use-list={file.name}",)


async def _behind(head: bytes, blocks: AsyncIterator[Buffer]) -> AsyncIterator[Buffer]:
    yield head
    async for block in blocks:
        yield block
