"""Concurrent writers: each posts ideas (writer, seq) one after the other and logs what became of them.

A writer begins ``seq + 1`` only when ``seq`` is acknowledged, so whatever copy is made of the application
must hold a gapless prefix of each. A write that is not answered is sent again under the same seq; the
application makes it one idea. The log has a line for each fact, written before the next step is taken.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal, Self

import aiohttp

_RETRY_SECONDS = 0.1
_ANSWER_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One fact about one write.

    ``monotonic`` is ``time.monotonic()`` of this machine, in seconds; ``wall`` is seconds since 1970, UTC.
    A write is begun before the first byte leaves, and acknowledged after the answer was read.
    """

    writer: str
    seq: int
    fact: Literal["begun", "acknowledged"]
    monotonic: float
    wall: float
    digest: str


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a copy owes one writer: at least ``least`` writes, and at most ``most``."""

    writer: str
    least: int
    most: int


@dataclass(frozen=True, kw_only=True)
class History:
    """All facts of all writers, in the order they happened."""

    writers: tuple[str, ...]
    entries: tuple[Entry, ...]

    def acknowledged(self) -> int:
        """How many writes were acknowledged in all."""
        return sum(entry.fact == "acknowledged" for entry in self.entries)

    def digests(self) -> dict[tuple[str, int], str]:
        """The SHA-256 of the document of each write, by writer and seq."""
        return {(entry.writer, entry.seq): entry.digest for entry in self.entries}

    def bounds(self, *, saving_began: float, thawed: float) -> tuple[Bounds, ...]:
        """What a copy must hold whose save began and whose writers were let go on at these moments.

        Args:
            saving_began: monotonic seconds just before the save was asked for.
            thawed: monotonic seconds when the last thaw was confirmed, or any time after.
        """
        return tuple(
            Bounds(
                writer=writer,
                least=self._highest(writer, "acknowledged", until=saving_began),
                most=self._highest(writer, "begun", until=thawed),
            )
            for writer in self.writers
        )

    def final_bounds(self) -> tuple[Bounds, ...]:
        """What the application itself must hold when its writers have stopped."""
        return self.bounds(saving_began=float("inf"), thawed=float("inf"))

    def _highest(self, writer: str, fact: str, *, until: float) -> int:
        seqs = (e.seq for e in self.entries if e.writer == writer and e.fact == fact and e.monotonic <= until)
        return max(seqs, default=0)


class Writers:
    """Writes to the application at ``url`` from entering the context (or ``start``) to ``stop``.

    Args:
        url: the application's address.
        log_path: file that every fact is appended to, one JSON object per line.
        count: how many writers.
        pause_seconds: how long each waits between an acknowledgement and its next write.
    """

    def __init__(self, *, url: str, log_path: Path | None = None, count: int = 4, pause_seconds: float = 0.005) -> None:
        self._url = url
        self._log_path = log_path
        self._names = tuple(f"writer-{number}" for number in range(1, count + 1))
        self._pause = pause_seconds
        self._entries: list[Entry] = []
        self._acknowledged = 0
        self._log: IO[str] | None = None
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._last_problem = ""

    @property
    def last_problem(self) -> str:
        """The last answer that was no acknowledgement; empty when every write was taken at once."""
        return self._last_problem

    @property
    def history(self) -> History:
        return History(writers=self._names, entries=tuple(self._entries))

    async def start(self) -> None:
        if self._tasks:
            raise RuntimeError("these writers have been started already")
        if self._log_path is not None:
            self._log = self._log_path.open("a", encoding="utf-8")
        self._tasks = [asyncio.create_task(self._write(name), name=name) for name in self._names]

    async def acknowledged(self, count: int, *, deadline: float) -> None:
        """Wait until ``count`` writes were acknowledged in all.

        Raises:
            TimeoutError: not by ``deadline`` (monotonic seconds).
        """
        while self._acknowledged < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the writers did not reach {count} acknowledged writes: {self._last_problem}")
            await asyncio.sleep(0.02)

    async def stop(self, *, patience_seconds: float = 30.0) -> History:
        """Let each writer finish its write and stop; one still unanswered after the patience is given up.

        Raises:
            Exception: what ended a writer before its time.
        """
        self._stop.set()
        done, late = await asyncio.wait(self._tasks, timeout=patience_seconds) if self._tasks else (set(), set())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if self._log is not None:
            self._log.close()
            self._log = None
        for task in done:
            task.result()
        return self.history

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _write(self, writer: str) -> None:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS, sock_connect=5)
        async with aiohttp.ClientSession(base_url=self._url, timeout=timeout) as session:
            seq = 0
            while not self._stop.is_set():
                seq += 1
                document = f"{writer} wrote this as number {seq}.\n".encode() * (1 + seq % 40)
                digest = hashlib.sha256(document).hexdigest()
                self._record(writer=writer, seq=seq, fact="begun", digest=digest)
                if not await self._until_acknowledged(session, writer=writer, seq=seq, document=document):
                    return
                self._record(writer=writer, seq=seq, fact="acknowledged", digest=digest)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), self._pause)

    async def _until_acknowledged(
        self, session: aiohttp.ClientSession, *, writer: str, seq: int, document: bytes
    ) -> bool:
        """Send a write until it is taken; whether it was before the writers were stopped."""
        body = {
            "title": f"{writer}: idea {seq}",
            "text": f"Idea {seq} of {writer}, written while the application was being copied.",
            "author": writer,
            "document": base64.b64encode(document).decode("ascii"),
            "writer": writer,
            "seq": seq,
        }
        while True:
            try:
                async with session.post("/api/ideas", json=body) as answer:
                    text = await answer.text()
                    if answer.status in (200, 201):
                        return True
                    if answer.status < 500:
                        raise RuntimeError(f"{writer} seq {seq} was refused with {answer.status}: {text[:300]}")
                    self._last_problem = f"{answer.status}: {text[:300]}"
            except (aiohttp.ClientError, TimeoutError) as error:
                self._last_problem = repr(error)
            if self._stop.is_set():
                return False
            await asyncio.sleep(_RETRY_SECONDS)

    def _record(self, *, writer: str, seq: int, fact: Literal["begun", "acknowledged"], digest: str) -> None:
        entry = Entry(writer=writer, seq=seq, fact=fact, monotonic=time.monotonic(), wall=time.time(), digest=digest)
        self._entries.append(entry)
        self._acknowledged += fact == "acknowledged"
        if self._log is not None:
            self._log.write(json.dumps(asdict(entry)) + "\n")
            self._log.flush()


def history_from(path: Path) -> History:
    """The history that a log file holds; a torn last line is left out.

    Raises:
        ValueError: a line before the last is no entry.
    """
    lines: Sequence[str] = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines = lines[:-1]
    entries = tuple(Entry(**json.loads(line)) for line in lines)
    return History(writers=tuple(sorted({entry.writer for entry in entries})), entries=entries)
