"""The output of services: files that they write to directly, so that they never wait for the broker.

A service holds its file open and appends, so rotation copies and truncates. What a service writes in the moment
between the last copied byte and the truncation is lost; the copy catches up first, which makes that microseconds.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path

ROTATE_BYTES = 10 * 1024 * 1024
KEEP_OLD = 2
LONGEST_LINE_BYTES = 16 * 1024
_BLOCK_BYTES = 1 << 18
_NOTHING = b""


def open_log(path: Path) -> int:
    """A descriptor that appends to the log at ``path``; the caller closes it."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Add lines to the log at ``path``."""
    log = open_log(path)
    try:
        os.write(log, "".join(f"{line}\n" for line in lines).encode())
    finally:
        os.close(log)


def last_lines(path: Path, count: int) -> list[str]:
    """The last ``count`` lines, oldest first, also from rotated files."""
    found: list[bytes] = []
    for file in (path, *(_old(path, number) for number in range(1, KEEP_OLD + 1))):
        if len(found) >= count or not file.exists():
            break
        with file.open("rb") as lines:
            tail = deque((line.rstrip(b"\r\n") for line in lines), maxlen=count - len(found))
        found = [*tail, *found]
    return [_text(line) for line in found[-count:]] if count > 0 else []


class LogFollower:
    """Reads the lines that are added to a log, and rotates it."""

    def __init__(self, path: Path, *, rotate_bytes: int = ROTATE_BYTES) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._position = path.stat().st_size if path.exists() else 0
        self._partial = _NOTHING

    def has_more(self) -> bool:
        """Whether the file is not what it was; cheap."""
        try:
            return self._path.stat().st_size != self._position
        except FileNotFoundError:
            return False

    def new_lines(self) -> list[str]:
        """The whole lines that came since the last call; rotates the file when it is full. Blocks briefly."""
        try:
            with self._path.open("rb+") as file:
                data = self._read(file.fileno())
                if self._position >= self._rotate_bytes:
                    data += self._rotate(file.fileno())
        except FileNotFoundError:
            return []
        *whole, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > LONGEST_LINE_BYTES:
            whole.append(self._partial)
            self._partial = _NOTHING
        return [_text(line.rstrip(b"\r")) for line in whole]

    def _read(self, descriptor: int) -> bytes:
        size = os.fstat(descriptor).st_size
        if size < self._position:  # somebody emptied it
            self._position = 0
        blocks = []
        while block := os.pread(descriptor, _BLOCK_BYTES, self._position):
            self._position += len(block)
            blocks.append(block)
            if self._position >= self._rotate_bytes + size:  # written faster than it is read: the rest comes next time
                break
        return b"".join(blocks)

    def _rotate(self, descriptor: int) -> bytes:
        for number in range(KEEP_OLD, 1, -1):
            if _old(self._path, number - 1).exists():
                _old(self._path, number - 1).replace(_old(self._path, number))
        copied = 0
        late = []
        with _old(self._path, 1).open("wb") as copy:
            while block := os.pread(descriptor, _BLOCK_BYTES, copied):
                copy.write(block)
                if copied + len(block) > self._position:
                    late.append(block[max(self._position - copied, 0) :])
                copied += len(block)
            os.ftruncate(descriptor, 0)
        self._position = 0
        return b"".join(late)


def _old(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _text(line: bytes) -> str:
    return line[:LONGEST_LINE_BYTES].decode("utf-8", errors="replace")
