"""Files of a copy become files of a cluster: written in a thread while the next ones arrive, the big ones made durable
while they grow. From a repository on the same machine they come into that thread without a detour.

Nobody but the broker can look into the directory before it is handed over, so nothing can be put in the way; a key that
would lead elsewhere is refused.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from brokers.postgres.physical.account import Account
from brokers.sdk.copystream_near import Received, check
from brokers.sdk.digests import Buffer
from brokers.sdk.errors import permanent_error
from brokers.sdk.frames import Data, EntryBegin, EntryEnd
from brokers.sdk.near_frames import Whole

BATCH_BYTES = 4 << 20
_BATCH_STEPS = 1024
SYNCED_BYTES = 1 << 20
"""Files of this size and more are synced one by one; what is smaller the server syncs together at its start."""
SYNC_EVERY_BYTES = 32 << 20
"""Of a big file so much is written before the disk gets it, while more is written."""
SYNCS_AHEAD = 32
_KEY = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/){0,8}[A-Za-z0-9_][A-Za-z0-9_.-]*")
_END = object()


class Filler:
    """Fills the directory ``root``, which is new and the broker's own; ``there`` are directories in it."""

    def __init__(self, root: Path, account: Account, *, there: Sequence[str] = ()) -> None:
        self._root = root
        self._account = account
        self._steps: list[object] = []
        self._bytes = 0
        self._writing: asyncio.Future[None] | None = None
        self._file = -1
        self._size = 0
        self._unsynced = 0
        self._directories = {"", *there}
        self._syncs = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._syncing: list[Future[None]] = []
        self._room = threading.BoundedSemaphore(SYNCS_AHEAD)

    def make(self, directories: Sequence[str]) -> None:
        """Directories, by path. Blocking."""
        for directory in directories:
            self._make(_checked(directory))

    async def file(self, key: str, blocks: AsyncIterator[Buffer]) -> None:
        """One file and what is in it."""
        await self._step(_checked(key), 0)
        async for block in blocks:
            await self._step(block, len(block))
        await self._step(_END, 0)

    def take(self, part: str, events: Iterator[Received]) -> None:
        """All files of the part, as a repository on the same machine sends them. Blocking."""
        for event in events:
            if isinstance(event, Whole):
                check(part, event)
                for entry, data in zip(event.entries, event.data, strict=True):
                    self._begin(_checked(entry.key))
                    self._put(data)
                    self._end()
                event.release()
            elif isinstance(event, EntryBegin):
                self._begin(_checked(event.key))
            elif isinstance(event, Data):
                self._put(event.data)
            elif isinstance(event, EntryEnd):
                self._end()

    async def finish(self) -> None:
        """All files are complete; the directory is handed over to the account."""
        await self._hand_over()
        await self._written()
        for synced in self._syncing:
            await asyncio.wrap_future(synced)
        await asyncio.to_thread(self._give)

    async def close(self) -> None:
        """Nothing is written any more, whether it was complete or not."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
            self._writing.exception()
        await asyncio.to_thread(self._syncs.shutdown)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    async def _step(self, step: object, size: int) -> None:
        self._steps.append(step)
        self._bytes += size
        if self._bytes >= BATCH_BYTES or len(self._steps) >= _BATCH_STEPS:
            await self._hand_over()

    async def _hand_over(self) -> None:
        await self._written()
        steps, self._steps, self._bytes = self._steps, [], 0
        self._writing = asyncio.ensure_future(asyncio.to_thread(self._write, steps))

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)

    # --- in threads

    def _write(self, steps: list[object]) -> None:
        for step in steps:
            if isinstance(step, str):
                self._begin(step)
            elif step is _END:
                self._end()
            else:
                assert isinstance(step, bytes | bytearray | memoryview)
                self._put(step)

    def _begin(self, key: str) -> None:
        self._make(key.rpartition("/")[0])
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._root / key, flags, 0o600)
        except FileExistsError:
            raise permanent_error("wrong_copy", f"{key!r} is there twice", field="restore") from None
        self._size = self._unsynced = 0
        if self._account.switch:
            os.fchown(self._file, self._account.user, self._account.group)

    def _put(self, block: Buffer) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(self._file, view) :]
        self._size += len(block)
        self._unsynced += len(block)
        if self._unsynced >= SYNC_EVERY_BYTES:
            self._unsynced = 0
            self._sync_soon(os.dup(self._file))

    def _end(self) -> None:
        file, self._file = self._file, -1
        if self._size < SYNCED_BYTES:
            os.close(file)
            return
        self._sync_soon(file)

    def _sync_soon(self, file: int) -> None:
        """``file`` is closed then."""
        self._room.acquire()
        self._syncing.append(self._syncs.submit(self._sync, file))

    def _sync(self, file: int) -> None:
        try:
            os.fdatasync(file)
        finally:
            os.close(file)
            self._room.release()

    def _make(self, directory: str) -> None:
        if directory in self._directories:
            return
        self._make(directory.rpartition("/")[0])
        (self._root / directory).mkdir(mode=0o700)
        self._directories.add(directory)

    def _give(self) -> None:
        for directory in sorted(self._directories, reverse=True):
            self._account.own(self._root / directory)


def _checked(path: str) -> str:
    if not _KEY.fullmatch(path):
        raise permanent_error("wrong_copy", f"{path!r} is no file of a cluster", field="restore")
    return path
