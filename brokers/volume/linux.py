"""Calls of the system that Python doesn't offer, or not in the form that is needed here."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

Segment = tuple[int, int]
"""Offset and length of data in a file, in bytes."""

MAX_SEGMENTS = 1000
"""A file with more pieces of data between holes is stored with its smallest holes filled with zeros."""
BLOCK_BYTES = 1 << 20

_FICLONERANGE = 0x4020940D
_LARGEST_BLOCK = 64 << 10
"""A multiple of the blocks of every file system."""
_NO_CLONE = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.EPERM, errno.ENOSYS, errno.ETXTBSY, errno.EBADF}
)
_NO_RANGE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.EPERM, errno.ENOSYS, errno.EBADF})
_IN_MEMORY = frozenset({0x01021994, 0x858458F6, 0x958458F6})
"""tmpfs, ramfs, hugetlbfs."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def boot_id() -> str:
    """What changes whenever the machine starts: files that were never synced are not trusted across it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def sync_filesystem(descriptor: int) -> None:
    """Make everything on the file system of an open file durable (``syncfs``)."""
    if _LIBC.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def times_tell(descriptor: int) -> bool:
    """Whether a write through a memory map changes the times of a file that was synced. Where files lie in memory
    alone nothing is written back, so their pages are never watched again."""
    found = ctypes.create_string_buffer(256)
    if _LIBC.fstatfs(descriptor, found) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    kind = ctypes.c_long.from_buffer(found).value
    return kind & 0xFFFFFFFF not in _IN_MEMORY


def clones(directory: Path) -> bool:
    """Whether the file system of ``directory`` shares blocks between files (btrfs, XFS ...)."""
    with TemporaryDirectory(dir=directory) as place:
        source = os.open(Path(place) / "source", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        target = os.open(Path(place) / "target", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(source, b"x" * 8192)
            return clone_range(source, target, offset=0, length=8192, at=0)
        finally:
            os.close(source)
            os.close(target)


def clone_range(source: int, target: int, *, offset: int, length: int, at: int) -> bool:
    """Share ``length`` bytes of ``source`` with ``target`` at ``at``; false where that can't be. Part of a block
    can be shared only where both files end: elsewhere the last few bytes are copied."""
    if _clone(source, target, offset=offset, length=length, at=at):
        return True
    whole = length - length % _LARGEST_BLOCK
    if not (0 < whole < length and _clone(source, target, offset=offset, length=whole, at=at)):
        return False
    copy_range(source, target, offset=offset + whole, length=length - whole, at=at + whole, check=lambda: None)
    return True


def _clone(source: int, target: int, *, offset: int, length: int, at: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONERANGE, struct.pack("qQQQ", source, offset, length, at))
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True


def copy_range(source: int, target: int, *, offset: int, length: int, at: int, check: Callable[[], None]) -> None:
    """Copy bytes inside the kernel, where it can, and past it where not. Ends early when ``source`` does.
    ``check`` is called between blocks and may raise."""
    done, inside = 0, True
    while done < length:
        check()
        count = min(length - done, 64 * BLOCK_BYTES if inside else BLOCK_BYTES)
        moved = -1
        if inside:
            try:
                moved = os.copy_file_range(source, target, count, offset + done, at + done)
            except OSError as error:
                if error.errno not in _NO_RANGE:
                    raise
        if moved < 0:
            inside = False
            block = os.pread(source, count, offset + done)
            write_fully(target, block, at=at + done)
            moved = len(block)
        if moved == 0:
            return
        done += moved


def write_fully(target: int, data: bytes | memoryview, *, at: int) -> None:
    """Write all of ``data`` at an offset."""
    view = memoryview(data)
    while view:
        count = os.pwrite(target, view, at)
        view = view[count:]
        at += count


def data_segments(file: int, info: os.stat_result) -> list[Segment]:
    """Where a regular file has data; what lies between is holes. At most :data:`MAX_SEGMENTS`, in order."""
    size = info.st_size
    if size == 0:
        return []
    if info.st_blocks * 512 >= size:
        return [(0, size)]
    found: list[Segment] = []
    at, least_hole = 0, 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
            end = min(os.lseek(file, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                break
            if error.errno == errno.EINVAL:
                return [(0, size)]
            raise
        if end <= start:
            break
        found.append((start, end - start))
        at = end
        while len(found) > 2 * MAX_SEGMENTS:
            least_hole = max(4096, least_hole * 2)
            found = _joined(found, least_hole)
    while len(found) > MAX_SEGMENTS:
        least_hole = max(4096, least_hole * 2)
        found = _joined(found, least_hole)
    return found


def _joined(segments: list[Segment], least_hole: int) -> list[Segment]:
    joined = segments[:1]
    for start, length in segments[1:]:
        before, so_far = joined[-1]
        if start - (before + so_far) <= least_hole:
            joined[-1] = (before, start + length - before)
        else:
            joined.append((start, length))
    return joined


def open_directory(root: int, parts: tuple[bytes, ...]) -> int:
    """Open a directory below an open one, name by name: no link on the way is followed.

    Raises ``OSError``: ``ENOTDIR`` or ``ELOOP`` where something else stands in the way."""
    current = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    for part in parts:
        try:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
        finally:
            os.close(current)
        current = below
    return current


def is_kept(mode: int) -> bool:
    """Whether a file of this mode is part of a copy: sockets and devices mean nothing elsewhere."""
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode) or stat.S_ISFIFO(mode)
