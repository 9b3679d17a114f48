"""Parts of copies as they arrive: their frames, judged as a repository must judge them."""

from __future__ import annotations

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


def stream_body(data: bytes, *, digest: str | None = None) -> bytes:
    """The frames of a stream part; ``digest`` to say a wrong one."""
    hasher = Hasher()
    hasher.update(data)
    return data_header(len(data)) + data + encode(End(len(data), digest or hasher.hex()))


def judged(name: str, body: bytes, *, layout: Layout, media_type: str) -> StoredPart:
    """The part in ``body``. Raises FrameError for one that was cut short or contradicts itself."""
    decoder = FrameDecoder(layout)
    whole, entry = Hasher(), Hasher()
    size = entry_size = entries = 0
    head: EntryBegin | None = None
    for event in decoder.feed(body):
        match event:
            case Data():
                size += len(event.data)
                entry_size += len(event.data)
                entry.update(event.data)
                if layout is Layout.STREAM:
                    whole.update(event.data)
            case EntryBegin():
                head, entry, entry_size = event, Hasher(), 0
            case EntryEnd() if head is not None:
                if (event.size, event.digest) != (entry_size, entry.hex()) or head.size != entry_size:
                    raise FrameError(f"entry {head.key!r} is not what its end says")
                whole.update(entry_line(key=head.key, size=entry_size, metadata=head.metadata, digest=event.digest))
                entries += 1
            case End():
                if (event.size, event.digest) != (size, whole.hex()):
                    raise FrameError("the part is not what its end says")
            case Failure():
                raise FrameError(f"the writer gave up: {event.message}")
    decoder.finish()
    part = CopyPart(name=name, media_type=media_type, size=size, digest=whole.hex(), entries=entries)
    return StoredPart(part, layout, body)


def unframed(data: bytes) -> bytes:
    """Raw bytes of a stream, in frames."""
    return stream_body(data)
