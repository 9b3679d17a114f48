"""Writes and reads whole copies without a network."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from brokers.filesystem.format0.files import Files
from brokers.filesystem.format0.repository import Repository as Format0
from brokers.repository.errors import CopyNotFound, CorruptChunk, KeptGone
from brokers.repository.kept import earlier
from brokers.repository.manifest import CopyInfo, Part
from brokers.repository.opened import CommittedCopy, CopyRepository, OpenCopy, PartWriting
from brokers.sdk.digests import Hasher, digest_hex
from brokers.sdk.frames import (
    Data,
    End,
    EntryBegin,
    EntryEnd,
    KeptEntry,
    Layout,
    data_header,
    encode,
    entry_line,
    kept_frame,
    kept_line,
)

Entry = tuple[str, Mapping[str, str], bytes]


def open_repository(directory: Path, *, files: Files | None = None) -> Format0:
    return Format0.open(directory / "repository", key_path=directory / "key", files=files)


def memory_disk() -> str | None:
    """Where files are in memory, if there is such a place: syncing them says nothing of what is looked for here."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def begin(opened: OpenCopy, name: str, *, layout: Layout = Layout.STREAM, framed: bool = False) -> PartWriting:
    return opened.begin_part(name, layout=layout, media_type="application/octet-stream", framed=framed)


def write_part(opened: OpenCopy, name: str, data: bytes, *, block: int = 1 << 20) -> Part:
    writer = begin(opened, name)
    try:
        for at in range(0, len(data), block):
            writer.feed(data[at : at + block])
        part = writer.seal()
        opened.seal_part(part)
    finally:
        opened.end_part(name)
    return part


def write_entries(opened: OpenCopy, name: str, entries: Iterable[Entry], *, block: int = 1 << 20) -> Part:
    body = entries_body(entries)
    writer = begin(opened, name, layout=Layout.ENTRIES, framed=True)
    try:
        for at in range(0, len(body), block):
            writer.feed(body[at : at + block])
        part = writer.seal()
        opened.seal_part(part)
    finally:
        opened.end_part(name)
    return part


def write_on_top(
    repository: CopyRepository, opened: OpenCopy, name: str, contents: Mapping[str, bytes], *, parent: str
) -> int:
    """Writes entries, and keeps those that the parent has alike; how many were kept."""
    there = repository.committed(parent)
    part = there.part(name)
    try:
        known = {entry.key: entry for entry in repository.entries(parent, part)} if part is not None else {}
    except CorruptChunk as error:
        if _still(repository, parent) == there.manifest_digest:
            raise
        raise KeptGone(str(error), copy=parent, part=name) from error  # it was deleted while it was read
    body, hasher, kept = bytearray(), Hasher(), 0
    for key, data in contents.items():
        digest, before = digest_hex(data), known.get(key)
        hasher.update(entry_line(key=key, size=len(data), metadata={}, digest=digest))
        if before is not None and before.digest == digest:
            body += kept_frame(kept_line(KeptEntry(key, {}, len(data), digest)))
            kept += 1
        else:
            body += encode(EntryBegin(key, len(data))) + data_header(len(data)) + data
            body += encode(EntryEnd(len(data), digest))
    body += encode(End(sum(map(len, contents.values())), hasher.hex(), len(contents)))
    before_it = earlier(repository, opened, parent=parent, name=name)
    writer = opened.begin_part(name, layout=Layout.ENTRIES, media_type="", framed=True, earlier=before_it)
    try:
        writer.feed(bytes(body))
        opened.seal_part(writer.seal())
    finally:
        opened.end_part(name)
        if before_it is not None:
            before_it.close()
    return kept


def _still(repository: CopyRepository, copy: str) -> str | None:
    try:
        return repository.committed(copy).manifest_digest
    except CopyNotFound:
        return None


def entries_body(entries: Iterable[Entry]) -> bytes:
    body = bytearray()
    hasher, total, count = Hasher(), 0, 0
    for key, metadata, data in entries:
        body += encode(EntryBegin(key, len(data), dict(metadata)))
        if data:
            body += data_header(len(data)) + data
        body += encode(EntryEnd(len(data), digest_hex(data)))
        hasher.update(entry_line(key=key, size=len(data), metadata=metadata, digest=digest_hex(data)))
        total += len(data)
        count += 1
    body += encode(End(total, hasher.hex(), count))
    return bytes(body)


def write_copy(repository: CopyRepository, copy: str, *, info: CopyInfo | None = None, **parts: bytes) -> CommittedCopy:
    opened = repository.open_write(copy, info or CopyInfo())
    for name, data in parts.items():
        write_part(opened, name, data)
    return repository.commit(copy)


def stored_part(repository: CopyRepository, copy: str, name: str) -> Part:
    part = repository.committed(copy).part(name)
    assert part is not None
    return part


def read_part(repository: CopyRepository, copy: str, name: str) -> bytes:
    events = repository.read_part(copy, stored_part(repository, copy, name))
    return b"".join(bytes(event.data) for event in events if isinstance(event, Data))


def read_entries(repository: CopyRepository, copy: str, name: str) -> list[Entry]:
    found: list[Entry] = []
    head: EntryBegin | None = None
    data = bytearray()
    for event in repository.read_part(copy, stored_part(repository, copy, name)):
        if isinstance(event, EntryBegin):
            head, data = event, bytearray()
        elif isinstance(event, Data):
            data += event.data
        elif isinstance(event, EntryEnd):
            assert head is not None
            found.append((head.key, head.metadata, bytes(data)))
    return found


def listed(repository: CopyRepository) -> list[str]:
    return [found.copy for found in repository.copies()]
