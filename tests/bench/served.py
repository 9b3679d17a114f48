"""A copy repository in a process of its own on the same machine, as it is in the product, for benchmarks that are the
broker themselves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from schemas.brokers import CopyGrant
from tests.bench import stream_ends
from tests.bench.stream_ends import LINE_BYTES, Answer, Task


class ServedRepository:
    """Gives grants for its copies, and commits them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: Path) -> AsyncIterator[ServedRepository]:
        """A new one in ``directory``; its process is ended afterwards."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", stream_ends.__name__, "serve", str(directory), "near"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            env={**os.environ, "TMPDIR": str(directory)},
        )
        try:
            yield cls(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    async def open_write(self, copy: str, *, parent: str = "") -> CopyGrant:
        """A grant for a copy that is begun."""
        return _grant(await self._ask(Task("open_write", copy, parent)))

    async def open_read(self, copy: str) -> CopyGrant:
        """A grant for a committed copy."""
        return _grant(await self._ask(Task("open_read", copy)))

    async def commit(self, copy: str) -> None:
        """The copy is complete."""
        await self._ask(Task("commit", copy))

    async def _ask(self, task: Task) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(task) + b"\n")
        await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the repository that should {task.what} has ended")
        return msgspec.json.decode(line, type=Answer)


def _grant(answer: Answer) -> CopyGrant:
    assert answer.grant is not None
    return answer.grant
