"""The two ends of a copy stream as processes of their own: a served repository, and what a data service broker does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from brokers.sdk.copystream import CopyReader, CopyWriter, EntrySource, KeptEntry
from schemas.brokers import CopyGrant
from tests.integration.filesystem.certificates import Authority
from tests.integration.filesystem.site import Site

MIB = 1 << 20
ENTRY_BYTES = 4096
PART = "data"
LINE_BYTES = 1 << 20


class Task(msgspec.Struct):
    """What a process is told: `what` to do with a copy, through a grant where one is needed."""

    what: str
    copy: str = ""
    parent: str = ""
    amount: int = 0
    grant: CopyGrant | None = None


class Answer(msgspec.Struct):
    """What it answers: seconds of work, the peak of its resident memory, or a grant."""

    seconds: float = 0.0
    peak_mib: float = 0.0
    grant: CopyGrant | None = None


def blocks(mib: int, *, fresh_bytes: int = MIB // 2) -> Iterator[bytes]:
    """Blocks of 1 MiB that have nothing in common: so many bytes that can't be compressed, then text."""
    chosen = random.Random(7)
    words = [chosen.randbytes(chosen.randrange(2, 6)).hex().encode() for _ in range(2000)]
    text = b" ".join(chosen.choices(words, k=600_000))
    lines = (MIB - fresh_bytes) // ENTRY_BYTES
    for at in range(mib):
        start = at * 4099 % (len(text) - MIB)
        pieces = [chosen.randbytes(fresh_bytes)]
        for line in range(lines):
            number = b"%012d" % (at * 1000 + line)
            begin = start + line * ENTRY_BYTES
            pieces.append(number + text[begin : begin + ENTRY_BYTES - len(number)])
        yield b"".join(pieces)


async def _blocks(mib: int, *, fresh_bytes: int) -> AsyncIterator[bytes]:
    for block in blocks(mib, fresh_bytes=fresh_bytes):
        yield block


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _entries(count: int) -> AsyncIterator[EntrySource]:
    per_block = MIB // ENTRY_BYTES
    for number, block in enumerate(blocks(-(-count // per_block), fresh_bytes=0)):
        for at in range(min(per_block, count - number * per_block)):
            data = block[at * ENTRY_BYTES : (at + 1) * ENTRY_BYTES]
            yield f"folder/{number:05}/{at:05}", {"mode": "33188"}, len(data), _once(data)


async def _kept(writer: CopyWriter) -> AsyncIterator[KeptEntry]:
    async for entry in writer.known(PART):
        yield KeptEntry(entry.key, entry.metadata, entry.size, entry.digest)


async def work(task: Task) -> float:
    """What a broker does; seconds."""
    assert task.grant is not None
    begun = time.perf_counter()
    writer, reader = CopyWriter(task.grant), CopyReader(task.grant)
    if task.what == "write_stream":
        # Made before the clock starts.
        made = list(blocks(task.amount))
        begun = time.perf_counter()
        await writer.write_stream(PART, _each(made))
    elif task.what == "write_alike":
        await writer.write_stream(PART, _blocks(task.amount, fresh_bytes=64 << 10))
    elif task.what == "write_fresh":
        await writer.write_stream(PART, _blocks(task.amount, fresh_bytes=MIB))
    elif task.what == "write_entries":
        await writer.write_entries(PART, _entries(task.amount))
    elif task.what == "keep_entries":
        await writer.write_entries(PART, _kept(writer))
    elif task.what == "read_stream":
        size = 0
        async for block in reader.read_stream(PART):
            size += len(block)
        assert size == task.amount * MIB, f"{size} bytes came back"
    elif task.what == "read_entries":
        count = 0
        async for _ in reader.read_entries(PART):
            count += 1
        assert count == task.amount, f"{count} entries came back"
    return time.perf_counter() - begun


async def _each(made: list[bytes]) -> AsyncIterator[bytes]:
    for block in made:
        yield block


def peak_mib(pid: int | str = "self") -> float:
    """The most resident memory that a process ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


async def serve(directory: Path, *, near: bool = False) -> None:
    """The repository's process: grants and commits for whoever asks on standard input. ``near``: without TLS."""
    async with Site("north", directory=directory, authority=Authority(directory), near=near) as site:
        async for task in _tasks():
            begun = time.perf_counter()
            grant = None
            if task.what == "open_write":
                grant = site.open_write(task.copy, parent=task.parent)
            elif task.what == "open_read":
                grant = site.open_read(task.copy)
            elif task.what == "commit":
                await asyncio.to_thread(site.repository.commit, task.copy)
            _say(Answer(time.perf_counter() - begun, peak_mib(), grant))


async def copy() -> None:
    """The broker's process."""
    async for task in _tasks():
        _say(Answer(await work(task) if task.grant is not None else 0.0, peak_mib()))


async def _tasks() -> AsyncIterator[Task]:
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        yield msgspec.json.decode(line, type=Task)


def _say(answer: Answer) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


class Ends:
    """Both processes, asked from a third."""

    def __init__(self, repository: asyncio.subprocess.Process, broker: asyncio.subprocess.Process) -> None:
        self.repository = repository
        self.broker = broker

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: Path) -> AsyncIterator[Ends]:
        """Started, and ended afterwards."""
        started: list[asyncio.subprocess.Process] = []
        try:
            for arguments in (("serve", str(directory)), ("copy",)):
                started.append(
                    await asyncio.create_subprocess_exec(
                        sys.executable,
                        "-m",
                        __name__,
                        *arguments,
                        stdin=asyncio.subprocess.PIPE,
                        stdout=asyncio.subprocess.PIPE,
                        limit=LINE_BYTES,
                        env={**os.environ, "TMPDIR": str(directory)},
                    )
                )
            yield cls(*started)
        finally:
            for process in started:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def run(self, what: str, *, copy: str, amount: int, parent: str = "") -> float:
        """Seconds for a work of the broker; for writing, with the commit."""
        reading = what.startswith("read")
        opened = await _ask(self.repository, Task("open_read" if reading else "open_write", copy, parent))
        seconds = (await _ask(self.broker, Task(what, copy, parent, amount, opened.grant))).seconds
        if not reading:
            seconds += (await _ask(self.repository, Task("commit", copy))).seconds
        return seconds

    async def peaks_mib(self) -> tuple[float, float]:
        """The repository's and the broker's peak of resident memory."""
        return (await _ask(self.repository, Task("peak"))).peak_mib, (await _ask(self.broker, Task("peak"))).peak_mib


async def _ask(process: asyncio.subprocess.Process, task: Task) -> Answer:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(task) + b"\n")
    await process.stdin.drain()
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"the process that should {task.what} has ended")
    return msgspec.json.decode(line, type=Answer)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[2]), near="near" in sys.argv[3:]) if sys.argv[1] == "serve" else copy())
