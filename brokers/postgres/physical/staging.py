"""The base of a physical copy: the files of a running cluster, copied beside it between the begin and the end of a
backup as PostgreSQL knows it.

Files are copied while the server writes them: the log from the backup's begin on makes them whole again. Copying is the
kernel's, several files at once; where the filesystem shares blocks between files, none is copied at all. All of them
become one file, in which each begins at a block of its own.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from brokers.postgres.physical.files import CONTROL, LABEL, Tree, control_is_whole, tree_of
from brokers.postgres.server import Server
from brokers.sdk.errors import permanent_error, temporary_error

COPIERS = max(2, min(4, os.cpu_count() or 2))
RANGE_BYTES = 16 << 20
"""How much is copied between two looks at whether it is still wanted."""
_BLOCK_BYTES = 1 << 20
_ALIGNED_BYTES = 4096
_POLL_SECONDS = 0.1
_TRIES = 1000
_START = re.compile(r"^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+)", re.MULTILINE)
_TIMELINE = re.compile(r"^START TIMELINE: ([0-9]+)", re.MULTILINE)
_NOT_IN_KERNEL = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM})
_BEGIN = "SELECT pg_backup_start(%s::text, true)"
_END = "SELECT labelfile, spcmapfile FROM pg_backup_stop(false)"


class StagedFile(msgspec.Struct, frozen=True, array_like=True):
    """A file of the cluster: its path there, its size in bytes, and where in the content it begins."""

    path: str
    size: int
    at: int


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """What was staged: where in the log it begins, and what the cluster consists of, parents first."""

    start: str
    timeline: int
    directories: list[str]
    files: list[StagedFile]

    @property
    def size(self) -> int:
        """Of all files, in bytes."""
        return sum(file.size for file in self.files)


async def stage(
    server: Server, data: Path, content: Path, *, label: str, told: Callable[[int, int], None] | None = None
) -> Staged:
    """Copy the cluster in ``data``, which is ``server``'s, to the new file ``content``. ``told`` hears how many bytes
    are done, and of how many."""
    async with server.session() as session:
        await session.value(_BEGIN, (label,))
        # Looked at when the backup has begun: what grows from here on is in the log.
        tree = await asyncio.to_thread(tree_of, data)
        if spaces := [path for path in tree.directories if path.startswith("pg_tblspc/")]:
            raise permanent_error("unsupported", f"the server has tablespaces: {spaces[0]}", field="service_id")
        copying = _Copying(data, content, tree)
        working = asyncio.ensure_future(asyncio.to_thread(copying.run))
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=_POLL_SECONDS)
                if told is not None:
                    told(copying.done, tree.size)
            files = working.result()
        finally:
            copying.stop()
            await asyncio.wait({working})
            working.exception()  # looked at, so that what nobody waits for is not told as forgotten
        text, spaces_map = (await session.rows(_END))[0]
    if spaces_map and str(spaces_map).strip():
        raise permanent_error("unsupported", "the server has tablespaces", field="service_id")
    begin, line = _START.search(str(text)), _TIMELINE.search(str(text))
    if begin is None or line is None:
        raise permanent_error("postgres", "the label of the backup does not say where it begins", field="copy")
    written = await asyncio.to_thread(_append, content, LABEL, str(text).encode())
    return Staged(start=begin[1], timeline=int(line[1]), directories=tree.directories, files=[written, *files])


def _append(content: Path, path: str, block: bytes) -> StagedFile:
    with content.open("r+b") as file:
        at = _next_block(file.seek(0, os.SEEK_END))
        file.seek(at)
        file.write(block)
    return StagedFile(path, len(block), at)


def _next_block(at: int) -> int:
    return -(-at // _ALIGNED_BYTES) * _ALIGNED_BYTES


class _Stopped(Exception):
    """Nobody wants it any more."""


class _Copying:
    """Copies files in threads; ``done`` is in bytes."""

    def __init__(self, data: Path, content: Path, tree: Tree) -> None:
        self._data = data
        self._content = content
        self._tree = tree
        self._target = -1
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.done = 0

    def stop(self) -> None:
        """Soon."""
        self._stopped.set()

    def run(self) -> list[StagedFile]:
        """All files that were there, with the sizes that were copied. Blocking."""
        planned: list[StagedFile] = []
        at = 0
        for path, size in self._tree.files:
            planned.append(StagedFile(path, size, at))
            at = _next_block(at + size)
        self._target = os.open(self._content, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with ThreadPoolExecutor(COPIERS, thread_name_prefix="stage") as pool:
                try:
                    found = [file for file in pool.map(self._copy, planned) if file is not None]
                except BaseException:
                    self.stop()
                    raise
            os.truncate(self._target, at)
        finally:
            os.close(self._target)
        return [*found, _append(self._content, CONTROL, self._control())]

    def _copy(self, file: StagedFile) -> StagedFile | None:
        """What was copied; ``None`` for a file that is gone."""
        try:
            source = os.open(self._data / file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return StagedFile(file.path, self._copy_bytes(source, file), file.at)
        finally:
            os.close(source)

    def _copy_bytes(self, source: int, file: StagedFile) -> int:
        done, in_kernel = 0, True
        while done < file.size:
            if self._stopped.is_set():
                raise _Stopped
            moved = 0
            if in_kernel:
                try:
                    count = min(file.size - done, RANGE_BYTES)
                    moved = os.copy_file_range(source, self._target, count, done, file.at + done)
                except OSError as error:
                    if error.errno not in _NOT_IN_KERNEL:
                        raise
                    in_kernel = False
            if not in_kernel:
                block = os.pread(source, min(file.size - done, _BLOCK_BYTES), done)
                moved = os.pwrite(self._target, block, file.at + done)
            if not moved:  # it was made shorter meanwhile, which the log does again
                break
            done += moved
            with self._lock:
                self.done += moved
        return done

    def _control(self) -> bytes:
        for _ in range(_TRIES):
            content = (self._data / CONTROL).read_bytes()
            if control_is_whole(content):
                return content
        raise temporary_error("unavailable", "the server's control file can't be read whole", retry_after_seconds=2.0)
