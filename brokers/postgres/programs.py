"""``pg_dump`` and ``pg_restore`` as child processes: streams in and out, passwords in the environment only."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from brokers.sdk.errors import permanent_error

BLOCK_BYTES = 1 << 20
_STDERR_LINES = 20


class ProgramFailed(Exception):
    """A program ended with an error; ``last_line`` is the last thing that it said."""

    def __init__(self, program: str, *, code: int, last_line: str) -> None:
        super().__init__(f"{program} ended with code {code}: {last_line}")
        self.last_line = last_line


class Program:
    """A running program. Whoever starts one stops it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process
        self._said: deque[str] = deque(maxlen=_STDERR_LINES)
        self._listening = asyncio.create_task(self._listen(), name=f"{name} stderr")
        self._first = b""

    @classmethod
    async def start(
        cls,
        path: Path,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdin: bool = False,
        cwd: Path | None = None,
        user: int | None = None,
        group: int | None = None,
        extra_groups: Sequence[int] | None = None,
    ) -> Program:
        """Start ``path``, in ``cwd`` and as ``user`` where they are given. Raises :class:`CalqueError` when it can't
        be."""
        try:
            process = await asyncio.create_subprocess_exec(
                str(path),
                *arguments,
                stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL if stdin else asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", os.defpath), **environment},
                limit=BLOCK_BYTES,
                start_new_session=True,
                cwd=cwd,
                user=user,
                group=group,
                extra_groups=extra_groups,
            )
        except OSError as error:
            raise permanent_error(
                "program_missing", f"{path} can't be started: {error.strerror}", field="bin_dir", remedy="check bin_dir"
            ) from None
        return cls(path.name, process)

    async def first_block(self) -> None:
        """Return when it has written something, which is kept for :meth:`blocks`. Raises :class:`ProgramFailed`."""
        if not self._first:
            self._first = await self._read()
            if not self._first:
                await self.succeeded()

    async def blocks(self) -> AsyncIterator[bytes]:
        """What it writes. Ends when the program has ended well. Raises :class:`ProgramFailed`."""
        block, self._first = self._first, b""
        while block or (block := await self._read()):
            yield block
            block = b""
        await self.succeeded()

    async def feed(self, blocks: AsyncIterator[bytes | bytearray | memoryview]) -> None:
        """Write all of ``blocks`` to it and wait for its end. ``blocks`` is read to its end even when the program
        needs no more, so that the source can check what it sent. Raises :class:`ProgramFailed`."""
        stdin = self._process.stdin
        assert stdin is not None
        async for block in blocks:
            if not stdin.is_closing():
                try:
                    stdin.write(block)
                    await stdin.drain()
                except (BrokenPipeError, ConnectionResetError):
                    await self.succeeded()
                    stdin.close()
        stdin.close()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await stdin.wait_closed()
        await self.succeeded()

    async def succeeded(self) -> None:
        """Wait for its end. Raises :class:`ProgramFailed` unless it ended well."""
        code = await self._process.wait()
        await self._listening
        if code != 0:
            raise ProgramFailed(self._name, code=code, last_line=self._last_error())

    def kill(self) -> None:
        """Kill it if it runs; whoever reads it sees that it failed."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """Kill it if it runs, and wait until it is gone. Nobody else may be reading it."""
        self.kill()
        if self._process.stdout is not None:
            while await self._read():  # a pipe that nobody reads keeps the process from being collected
                continue
        await self._process.wait()
        await self._listening

    def _last_error(self) -> str:
        """The last line that names an error: those after it may repeat statements and rows of the user's."""
        errors = [line for line in self._said if "error:" in line or "FATAL:" in line]
        return (errors or list(self._said) or ["it said nothing"])[-1]

    async def _read(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.read(BLOCK_BYTES)

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            if text := line.decode(errors="replace").strip():
                self._said.append(text)
