"""Checking a whole copy, freeing what nothing refers to, and counting what is there."""

import contextlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from brokers.filesystem.format0.chunks import ChunkStore
from brokers.repository.errors import CorruptChunk, CorruptManifest, CorruptPart
from brokers.repository.manifest import ChunkRef, Manifest, Part
from brokers.repository.opened import Collected, Finding, Stats, Verification
from brokers.repository.partreader import all_chunks
from brokers.sdk.frames import Data

if TYPE_CHECKING:
    from brokers.filesystem.format0.repository import Repository


def verify(
    repository: "Repository",
    copy: str,
    *,
    progress: Callable[[int], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Verification:
    """Reads every part of the copy with all its checks. Raises CopyNotFound, CorruptManifest; damage to parts is
    in the answer, one finding per part. A damaged chunk is set aside: whoever writes its bytes again, in any copy,
    heals this one."""
    manifest = repository.committed(copy).manifest
    checked = 0
    findings: list[Finding] = []
    for part in manifest.parts:
        try:
            for event in repository.read_part(copy, part):
                if isinstance(event, Data):
                    checked += len(event.data)
                    if progress is not None:
                        progress(checked)
                if cancelled():
                    return Verification(copy, checked, (Finding("was cancelled"),))
        except (CorruptChunk, CorruptPart) as error:
            if error.chunk is not None:
                repository.chunks.set_aside(error.chunk)
            findings.append(Finding(str(error), part.name, error.chunk))
    return Verification(copy, checked, tuple(findings))


def collect(repository: "Repository") -> Collected:
    """Removes tombstones, and the chunks that no manifest names. Safe beside writers: an open copy has names of its
    own for what it needs (`brokers.filesystem.format0.chunks`).

    A copy whose manifest or index can't be read might name any chunk: then nothing is removed, and the answer says
    which copy it is.
    """
    chunks, freed = 0, 0
    with repository.chunks.collecting():
        try:
            used = _used(repository)
        except (CorruptChunk, CorruptPart, CorruptManifest) as error:
            return Collected(blocked=str(error))
        for path in list(repository.chunks.all()):
            if bytes.fromhex(path.name) in used:
                continue
            size = repository.chunks.remove_unless_published(path)
            if size is not None:
                chunks += 1
                freed += size
    _remove_tombstones(repository)
    return Collected(chunks, freed)


def stats(repository: "Repository") -> Stats:
    """Counts; a copy with a damaged manifest counts as a copy without bytes."""
    listed = list(repository.copies())
    sizes = [_size(path) for path in repository.chunks.all()]
    open_copies = [path for path in (repository.directory / "staging").iterdir() if (path / "open.json").exists()]
    return Stats(
        copies=len(listed),
        open_copies=len(open_copies),
        chunks=len(sizes),
        logical_bytes=sum(each.committed.manifest.logical_bytes for each in listed if each.committed),
        stored_bytes=sum(sizes),
        images=sum(1 for _ in repository.images()),
        free_bytes=repository.free_bytes(),
        staging_bytes=sum(_size(path) for folder in open_copies for path in folder.rglob("*")),
    )


def _size(path: Path) -> int:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def copy_digests(chunks: ChunkStore, manifest: Manifest) -> dict[bytes, int]:
    """The digests of every chunk of a committed copy, with plaintext sizes."""
    found: dict[bytes, int] = {}
    for part in manifest.parts:
        for ref in all_chunks(part, _reader(chunks, manifest.copy, part), copy=manifest.copy):
            found[bytes.fromhex(ref.digest)] = ref.size
    return found


def _reader(chunks: ChunkStore, copy: str, part: Part) -> Callable[[ChunkRef], bytes]:
    return lambda ref: chunks.read(ref.digest, size=ref.size, copy=copy, part=part.name)


def _used(repository: "Repository") -> set[bytes]:
    used: set[bytes] = set()
    for listed in repository.copies():
        if listed.committed is None:
            raise CorruptManifest(listed.problem or "can't be read", copy=listed.copy)
        used.update(copy_digests(repository.chunks, listed.committed.manifest))
    return used


def _remove_tombstones(repository: "Repository") -> None:
    for path in (repository.directory / "copies").glob("*/tombstone.json"):
        repository.files.unlink(path)
        # Only an empty directory goes: the copy may have been written again meanwhile.
        with contextlib.suppress(OSError):
            path.parent.rmdir()
