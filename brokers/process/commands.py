"""Commands beside a service: one is run to its end, with all its children, and the end of what it printed is kept."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from brokers.process import processes
from brokers.process.processes import ServiceProcesses

OUTPUT_BYTES = 4096
MARK = "CALQUE_HOOK_OF"
"""The variable by which the processes of a command are found again, also by the next broker."""
_BLOCK_BYTES = 1 << 14
_DRAIN_SECONDS = 1.0


class Ended(NamedTuple):
    """How a command ended: its exit code (negative: the signal), ``None`` when it took too long and was ended.
    ``output`` is the last part of what it printed, errors too."""

    exit_code: int | None
    output: str


class CannotRun(Exception):
    """There is no such command, or it may not be run. The message says why."""


async def run_command(
    command: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    mark: str,
    timeout_seconds: float,
) -> Ended:
    """Run ``command`` in ``directory`` until it ends. Nothing of it is left when this returns or is cancelled.

    What an earlier run under the same ``mark`` left, because nobody was there any more to end it, is ended first.
    Raises :class:`CannotRun`.
    """
    all_of_it = ServiceProcesses(leader=None, home=mark, variable=MARK)
    await all_of_it.end(grace_seconds=0.0)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=directory,
            env={**environment, MARK: mark},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise CannotRun(f"cannot run {command[0]!r}: {error.strerror}") from None
    all_of_it = ServiceProcesses(leader=processes.identify(process.pid), home=mark, variable=MARK)
    assert process.stdout is not None
    tail: deque[bytes] = deque()
    reading = asyncio.create_task(_keep_tail(process.stdout, tail))
    exit_code: int | None = None
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                exit_code = await process.wait()
    finally:
        await all_of_it.end(grace_seconds=0.0)
        await process.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await reading
    return Ended(exit_code, b"".join(tail)[-OUTPUT_BYTES:].decode("utf-8", errors="replace").strip())


async def _keep_tail(stream: asyncio.StreamReader, tail: deque[bytes]) -> None:
    kept = 0
    while block := await stream.read(_BLOCK_BYTES):
        tail.append(block)
        kept += len(block)
        while kept - len(tail[0]) > OUTPUT_BYTES:
            kept -= len(tail.popleft())
