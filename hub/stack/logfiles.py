"""The logs of parts: which there are, their last lines, and following one over its rotation."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

CHUNK_BYTES = 64 << 10
POLL_SECONDS = 0.1
SUPERVISOR = "up"
"""The log of ``calque up --detach`` itself."""


def log_files(logs: Path) -> dict[str, Path]:
    """The log of each part by the part's name."""
    return {file.stem: file for file in sorted(logs.glob("*.log")) if not file.name.startswith("calque-error-")}


def last_lines(file: Path, *, lines: int) -> list[str]:
    """The last ``lines`` lines of a log, fewer if it has fewer; the older file that was put aside is not read."""
    return _last(file, lines)[0]


def every_line(file: Path) -> Iterator[str]:
    """All lines of a log, those of the older file that was put aside first."""
    for each in (file.with_suffix(".log.1"), file):
        try:
            with each.open(errors="replace") as stream:
                yield from (line.rstrip("\n") for line in stream)
        except FileNotFoundError:
            continue


def _last(file: Path, lines: int) -> tuple[list[str], int]:
    """The last lines, and the position after them."""
    try:
        with file.open("rb") as stream:
            end = position = stream.seek(0, os.SEEK_END)
            data = b""
            while position > 0 and data.count(b"\n") <= lines:
                step = min(CHUNK_BYTES, position)
                position -= step
                stream.seek(position)
                data = stream.read(step) + data
    except FileNotFoundError:
        return [], 0
    found = data.decode(errors="replace").splitlines()
    return found[-lines:] if lines else [], end


async def follow(file: Path, *, lines: int) -> AsyncIterator[str]:
    """The last ``lines`` lines, then those that come, without end. A file put aside is read to its end first."""
    before, position = _last(file, lines)
    for line in before:
        yield line
    rest = b""
    identity = _identity(file)
    stream = file.open("rb") if identity is not None else None
    try:
        if stream is not None:
            stream.seek(position)
        while True:
            data = stream.read(CHUNK_BYTES) if stream is not None else b""
            if data:
                *whole, rest = (rest + data).split(b"\n")
                for each in whole:
                    yield each.decode(errors="replace")
                continue
            now = _identity(file)
            if now is not None and (now != identity or (stream is not None and stream.tell() > file.stat().st_size)):
                if stream is not None:
                    if late := stream.read(CHUNK_BYTES):  # written before it was put aside
                        stream.seek(-len(late), os.SEEK_CUR)
                        continue
                    stream.close()
                stream, identity = file.open("rb"), now
                continue
            await asyncio.sleep(POLL_SECONDS)
    finally:
        if stream is not None:
            stream.close()


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
