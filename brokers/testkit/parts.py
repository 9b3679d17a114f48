"""Parts of copies as they arrive: their frames, judged as a repository must judge them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from brokers.sdk.digests import Hasher
from brokers.sdk.frames import (
    Data,
    End,
    EntryBegin,
    EntryEnd,
    Failure,
    FrameDecoder,
    FrameError,
    Kept,
    KnownEntry,
    Layout,
    data_header,
    encode,
    entry_line,
)
from schemas.values import CopyPart


class StoredPart(NamedTuple):
    """A part and its body, in frames."""

    part: CopyPart
    layout: Layout
    body: bytes

    @property
    def data(self) -> bytes:
        """All plaintext of the part, one entry after another."""
        decoder = FrameDecoder(self.layout)
        return b"".join(bytes(event.data) for event in decoder.feed(self.body) if isinstance(event, Data))


class StoredEntry(NamedTuple):
    """One entry and its bytes."""

    entry: KnownEntry
    data: bytes


def entries_of(stored: StoredPart) -> dict[str, StoredEntry]:
    """The entries of a part of entries, by key, in order."""
    found: dict[str, StoredEntry] = {}
    head, data = EntryBegin("", 0), bytearray()
    for event in FrameDecoder(stored.layout).feed(stored.body):
        match event:
            case EntryBegin():
                head, data = event, bytearray()
            case Data():
                data += event.data
            case EntryEnd():
                known = KnownEntry(head.key, event.size, head.metadata, event.digest)
                found[head.key] = StoredEntry(known, bytes(data))
    return found


def entry_body(known: KnownEntry, data: bytes) -> bytes:
    """The frames of one entry."""
    begin = encode(EntryBegin(known.key, known.size, known.metadata))
    return begin + (data_header(len(data)) + data if data else b"") + encode(EntryEnd(known.size, known.digest))


def stream_body(data: bytes, *, digest: str | None = None) -> bytes:
    """The frames of a stream part; ``digest`` to say a wrong one."""
    hasher = Hasher()
    hasher.update(data)
    return data_header(len(data)) + data + encode(End(len(data), digest or hasher.hex()))


def judged(
    name: str, body: bytes, *, layout: Layout, media_type: str, parent: Mapping[str, StoredEntry] | None = None
) -> StoredPart:
    """The part in ``body``, with the bytes of what it keeps of ``parent``. Raises FrameError for one that was cut
    short or contradicts itself."""
    decoder = FrameDecoder(layout)
    filled = bytearray()
    whole, entry = Hasher(), Hasher()
    size = entry_size = entries = 0
    data = bytearray()
    head: EntryBegin | None = None
    for event in decoder.feed(body):
        match event:
            case Data():
                size += len(event.data)
                entry_size += len(event.data)
                entry.update(event.data)
                data += event.data
                if layout is Layout.STREAM:
                    whole.update(event.data)
            case Kept():
                for kept in event.entries:
                    known = KnownEntry(kept.key, kept.size, kept.metadata, kept.digest)
                    before = (parent or {}).get(kept.of if kept.of is not None else kept.key)
                    if before is None or (before.entry.size, before.entry.digest) != (kept.size, kept.digest):
                        raise FrameError(f"the parent has no entry of these bytes to keep as {kept.key!r}")
                    whole.update(
                        entry_line(key=known.key, size=known.size, metadata=known.metadata, digest=known.digest)
                    )
                    filled += entry_body(known, before.data)
                    size += known.size
                    entries += 1
            case EntryBegin():
                head, entry, entry_size, data = event, Hasher(), 0, bytearray()
            case EntryEnd() if head is not None:
                if (event.size, event.digest) != (entry_size, entry.hex()) or head.size != entry_size:
                    raise FrameError(f"entry {head.key!r} is not what its end says")
                whole.update(entry_line(key=head.key, size=entry_size, metadata=head.metadata, digest=event.digest))
                filled += entry_body(KnownEntry(head.key, entry_size, head.metadata, event.digest), bytes(data))
                entries += 1
            case End():
                if (event.size, event.digest) != (size, whole.hex()):
                    raise FrameError("the part is not what its end says")
                filled += encode(event)
            case Failure():
                raise FrameError(f"the writer gave up: {event.message}")
    decoder.finish()
    part = CopyPart(name=name, media_type=media_type, size=size, digest=whole.hex(), entries=entries)
    return StoredPart(part, layout, bytes(filled) if layout is Layout.ENTRIES else body)


def unframed(data: bytes) -> bytes:
    """Raw bytes of a stream, in frames."""
    return stream_body(data)
