"""Loads real input into the sample application: the text files of the running Python's standard library.

Each file becomes an idea whose document is the file. About a hundred of them get votes.
"""

import asyncio
import base64
import io
import json
import os
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

MAX_FILE_BYTES = 256 * 1024
MAX_TOTAL_BYTES = 48 * 1024 * 1024
MAX_FILES = 3000
ENOUGH_FILES = 1200
_BATCH_FILES = 100
_BATCH_BYTES = 2 * 1024 * 1024
_SKIPPED = frozenset({"site-packages", "dist-packages", "__pycache__"})
_VOTED_EVERY = 17
_VOTES = 120


class LoadFailedError(Exception):
    """The application refused the input, or was not reached; says what it answered."""


@dataclass(frozen=True, kw_only=True)
class LoadProgress:
    """So far: ideas stored, and bytes of their documents."""

    ideas: int
    bytes: int
    total_ideas: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What was loaded; ``votes`` is the sum of all votes given."""

    ideas: int
    bytes: int
    votes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class LibraryFile:
    """A text file of the library; ``name`` is its path below the library."""

    name: str
    content: bytes
    text: str


def library_files(root: Path | None = None) -> list[LibraryFile]:
    """Every text file of the standard library, by name; at most :data:`MAX_FILES`.

    Some distributions ship the library without its tests: when it holds fewer than :data:`ENOUGH_FILES`, files of
    the installed packages follow until there are enough.

    Args:
        root: another directory to read instead.
    """
    if root is not None:
        return list(_text_files(root, room=MAX_TOTAL_BYTES, most=MAX_FILES))
    found = list(_text_files(Path(sysconfig.get_path("stdlib")), room=MAX_TOTAL_BYTES, most=MAX_FILES))
    if len(found) < ENOUGH_FILES:
        room = MAX_TOTAL_BYTES - sum(len(each.content) for each in found)
        packages = Path(sysconfig.get_path("purelib"))
        found += _text_files(packages, room=room, most=ENOUGH_FILES - len(found), prefix="site-packages/")
    return found


def _text_files(base: Path, *, room: int, most: int, prefix: str = "") -> Iterator[LibraryFile]:
    """At most ``most`` text files below ``base``, at most ``room`` bytes together."""
    count = total = 0
    for path in _walk(base):
        if count == most:
            return
        content = _small_file(path)
        if content is None or total + len(content) > room:
            continue
        try:
            text = content.decode()
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            continue
        yield LibraryFile(name=prefix + path.relative_to(base).as_posix(), content=content, text=text)
        count += 1
        total += len(content)


async def load(
    *,
    url: str,
    files: list[LibraryFile] | None = None,
    progress: Callable[[LoadProgress], None] | None = None,
    concurrency: int = 3,
) -> LoadReport:
    """Send the files through the application's HTTP API, then votes for some.

    Raises:
        LoadFailedError: the application did not take it.
    """
    started = time.monotonic()
    chosen = await asyncio.to_thread(library_files) if files is None else files
    total_bytes = sum(len(each.content) for each in chosen)
    batches = list(_batches(chosen))
    stored: dict[int, list[str]] = {}
    done_bytes = 0
    waiting = iter(enumerate(batches))
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(base_url=url, timeout=timeout) as session:

        async def send() -> None:
            nonlocal done_bytes
            for number, batch in waiting:
                body = {"ideas": [_fields(each) for each in batch]}
                answer = await _post(session, "/api/ideas:batch", body)
                stored[number] = answer["ids"]
                done_bytes += sum(len(each.content) for each in batch)
                if progress is not None:
                    ideas = sum(len(ids) for ids in stored.values())
                    progress(
                        LoadProgress(ideas=ideas, bytes=done_bytes, total_ideas=len(chosen), total_bytes=total_bytes)
                    )

        await asyncio.gather(*(send() for _ in range(concurrency)))
        ids = [each for number in sorted(stored) for each in stored[number]]
        modules = [idea for idea, file in zip(ids, chosen, strict=True) if file.name.endswith(".py")]
        votes = await _vote(session, modules[::_VOTED_EVERY][:_VOTES], concurrency=concurrency)
    return LoadReport(ideas=len(ids), bytes=done_bytes, votes=votes, seconds=time.monotonic() - started)


def _walk(base: Path) -> Iterator[Path]:
    for directory, below, names in os.walk(base):
        below[:] = sorted(set(below) - _SKIPPED)
        yield from (Path(directory, name) for name in sorted(names))


def _small_file(path: Path) -> bytes | None:
    """The content, or ``None`` for what is no regular file, not readable, or too big."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            return None
        return path.read_bytes()
    except OSError:
        return None


def _batches(files: list[LibraryFile]) -> Iterator[list[LibraryFile]]:
    batch: list[LibraryFile] = []
    size = 0
    for each in files:
        if batch and (len(batch) == _BATCH_FILES or size + len(each.content) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += len(each.content)
    if batch:
        yield batch


def _fields(file: LibraryFile) -> dict[str, Any]:
    lines = (line.strip() for line in file.text.splitlines()[:40])
    summary = " ".join(line.strip("\"'# ") for line in lines if line)[:400]
    package, _, rest = file.name.partition("/")
    return {
        "title": file.name[-200:],
        "text": summary,
        "author": (package if rest else "stdlib")[:100],
        "document": base64.b64encode(file.content).decode("ascii"),
    }


async def _vote(session: aiohttp.ClientSession, ids: list[str], *, concurrency: int) -> int:
    """Falling, uneven votes, the same in every run; their sum."""
    wishes = [(idea_id, 1 + (len(ids) - place) * 7 % 97) for place, idea_id in enumerate(ids)]
    waiting = iter(wishes)

    async def send() -> None:
        for idea_id, count in waiting:
            await _post(session, f"/api/ideas/{idea_id}/votes", {"count": count})

    await asyncio.gather(*(send() for _ in range(concurrency)))
    return sum(count for _, count in wishes)


async def _post(session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        # Batches are large: as a file-like body they are sent piece by piece.
        data = io.BytesIO(json.dumps(body).encode())
        async with session.post(path, data=data, headers={"Content-Type": "application/json"}) as answer:
            if answer.status >= 400:
                raise LoadFailedError(f"POST {path} answered {answer.status}: {(await answer.text())[:300]}")
            found: dict[str, Any] = await answer.json()
            return found
    except (aiohttp.ClientError, TimeoutError) as error:
        raise LoadFailedError(f"POST {path} was not answered: {error!r}") from error
