"""The frames in which the parts of a copy travel between a broker and a copy repository, and between two
repositories. Values in, values out: no socket here. Described for other languages in
`docs/repository-format-0.md`, section "Frames".

A frame is one byte of kind, four bytes of length (big endian) and the payload. A body is, by its layout:

    stream    DATA* END
    entries   (ENTRY (DATA | DATA_AT)* ENTRY_END | KEPT | KEPT_RANGE | PLACED)* END
    chunks    CHUNK* END
    known     KNOWN* END

PLACED and DATA_AT name bytes of a file that the sender passed beside the body (`brokers.sdk.near`).
FAILURE may stand in the place of any frame and is the last one. A body that stops before END or FAILURE was cut
short, whatever the transport says about it.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum, IntEnum, auto

import msgspec

from brokers.sdk.digests import DIGEST_BYTES, Buffer
from brokers.sdk.frame_events import (
    Data as Data,
)
from brokers.sdk.frame_events import (
    DataAt as DataAt,
)
from brokers.sdk.frame_events import (
    End as End,
)
from brokers.sdk.frame_events import (
    EntryBegin as EntryBegin,
)
from brokers.sdk.frame_events import (
    EntryEnd as EntryEnd,
)
from brokers.sdk.frame_events import (
    Failure as Failure,
)
from brokers.sdk.frame_events import (
    FrameError as FrameError,
)
from brokers.sdk.frame_events import (
    Kept as Kept,
)
from brokers.sdk.frame_events import (
    KeptEntry as KeptEntry,
)
from brokers.sdk.frame_events import (
    KeptRange as KeptRange,
)
from brokers.sdk.frame_events import (
    Known as Known,
)
from brokers.sdk.frame_events import (
    KnownEntry as KnownEntry,
)
from brokers.sdk.frame_events import (
    Placed as Placed,
)
from brokers.sdk.frame_events import (
    PlacedEntry as PlacedEntry,
)
from brokers.sdk.frame_events import (
    StoredChunk as StoredChunk,
)
from schemas.unreadable import UNREADABLE

STREAM_TYPE = "application/vnd.calque.stream"
ENTRIES_TYPE = "application/vnd.calque.entries"
CHUNKS_TYPE = "application/vnd.calque.chunks"
KNOWN_TYPE = "application/vnd.calque.known"
RAW_TYPE = "application/octet-stream"

MAX_CONTROL_BYTES = 1 << 20
"""The longest ENTRY, ENTRY_END, END or FAILURE payload."""
MAX_DATA_BYTES = 16 << 20
"""The longest DATA, CHUNK, KEPT or KNOWN payload."""

_HEADER = struct.Struct(">BI")


class FrameKind(IntEnum):
    ENTRY = 1
    DATA = 2
    ENTRY_END = 3
    END = 4
    FAILURE = 5
    CHUNK = 6
    KEPT = 7
    KNOWN = 8
    PLACED = 9
    DATA_AT = 10
    KEPT_RANGE = 11


class Layout(Enum):
    """What a body holds: one opaque byte stream, an ordered list of entries, stored chunks, or what is known of the
    entries of an earlier copy."""

    STREAM = "stream"
    ENTRIES = "entries"
    CHUNKS = "chunks"
    KNOWN = "known"

    @property
    def media_type(self) -> str:
        return _MEDIA_TYPES[self]


_MEDIA_TYPES = {
    Layout.STREAM: STREAM_TYPE,
    Layout.ENTRIES: ENTRIES_TYPE,
    Layout.CHUNKS: CHUNKS_TYPE,
    Layout.KNOWN: KNOWN_TYPE,
}


_KEPT_DECODER = msgspec.json.Decoder(KeptEntry)
_LINES_ENCODER = msgspec.json.Encoder()
_PLACED_DECODER = msgspec.json.Decoder(PlacedEntry)
_LISTS = (FrameKind.DATA, FrameKind.CHUNK, FrameKind.KEPT, FrameKind.KNOWN, FrameKind.PLACED)

Event = EntryBegin | Data | DataAt | EntryEnd | End | Failure | StoredChunk | Kept | KeptRange | Known | Placed
Control = EntryBegin | DataAt | EntryEnd | End | Failure | KeptRange

_KIND_OF: dict[type[Control], FrameKind] = {
    EntryBegin: FrameKind.ENTRY,
    DataAt: FrameKind.DATA_AT,
    KeptRange: FrameKind.KEPT_RANGE,
    EntryEnd: FrameKind.ENTRY_END,
    End: FrameKind.END,
    Failure: FrameKind.FAILURE,
}


def data_header(length: int) -> bytes:
    """The five bytes before `length` bytes of data, so that the data itself needs no copy."""
    return _HEADER.pack(FrameKind.DATA, length)


def chunk_header(digest: bytes, length: int) -> bytes:
    """What stands before the `length` bytes of a stored chunk."""
    return _HEADER.pack(FrameKind.CHUNK, DIGEST_BYTES + length) + digest


def kept_line(entry: KeptEntry) -> bytes:
    """One line of a KEPT frame."""
    return msgspec.json.encode(entry) + b"\n"


def kept_frame(lines: Buffer) -> bytes:
    """Lines of kept entries as one frame."""
    return _HEADER.pack(FrameKind.KEPT, len(lines)) + lines


def known_frame(lines: Buffer) -> bytes:
    """Entry lines as one frame."""
    return _HEADER.pack(FrameKind.KNOWN, len(lines)) + lines


def placed_frame(entries: Sequence[PlacedEntry]) -> bytes:
    """Entries whose bytes lie in a file as one frame. Raises FrameError if it is longer than MAX_DATA_BYTES."""
    lines = _LINES_ENCODER.encode_lines(entries)
    if len(lines) > MAX_DATA_BYTES:
        raise FrameError(f"a PLACED frame of {len(lines)} bytes is longer than allowed")
    return _HEADER.pack(FrameKind.PLACED, len(lines)) + lines


def encode(event: Control) -> bytes:
    """One control frame. Raises FrameError if it is longer than MAX_CONTROL_BYTES."""
    payload = msgspec.json.encode(event)
    if len(payload) > MAX_CONTROL_BYTES:
        raise FrameError(f"a {type(event).__name__} frame of {len(payload)} bytes is longer than allowed")
    return _HEADER.pack(_KIND_OF[type(event)], len(payload)) + payload


def entry_line(*, key: str, size: int, metadata: Mapping[str, str], digest: str) -> bytes:
    """The canonical line of one entry. The digest of an entries part is the BLAKE3 over these lines in order,
    so that both ends can take it while the bytes pass."""
    record = {"digest": digest, "key": key, "metadata": dict(metadata), "size": size}
    return msgspec.json.encode(record, order="deterministic") + b"\n"


_BETWEEN = {
    Layout.STREAM: (FrameKind.DATA,),
    Layout.ENTRIES: (FrameKind.ENTRY, FrameKind.KEPT, FrameKind.KEPT_RANGE, FrameKind.PLACED),
    Layout.CHUNKS: (FrameKind.CHUNK,),
    Layout.KNOWN: (FrameKind.KNOWN,),
}


class _State(Enum):
    BETWEEN = auto()
    IN_ENTRY = auto()
    DONE = auto()


_ALLOWED: dict[tuple[Layout, _State], frozenset[int]] = {
    **{
        (layout, _State.BETWEEN): frozenset((*kinds, FrameKind.END, FrameKind.FAILURE))
        for layout, kinds in _BETWEEN.items()
    },
    **{
        (layout, _State.IN_ENTRY): frozenset(
            (FrameKind.DATA, FrameKind.DATA_AT, FrameKind.ENTRY_END, FrameKind.FAILURE)
        )
        for layout in Layout
    },
    **{(layout, _State.DONE): frozenset() for layout in Layout},
}
_DATA = int(FrameKind.DATA)
_CONTROL: dict[int, tuple[msgspec.json.Decoder[Control], _State]] = {
    FrameKind.ENTRY: (msgspec.json.Decoder(EntryBegin), _State.IN_ENTRY),
    FrameKind.DATA_AT: (msgspec.json.Decoder(DataAt), _State.IN_ENTRY),
    FrameKind.KEPT_RANGE: (msgspec.json.Decoder(KeptRange), _State.BETWEEN),
    FrameKind.ENTRY_END: (msgspec.json.Decoder(EntryEnd), _State.BETWEEN),
    FrameKind.END: (msgspec.json.Decoder(End), _State.DONE),
    FrameKind.FAILURE: (msgspec.json.Decoder(Failure), _State.DONE),
}


class FrameDecoder:
    """Turns the bytes of a body, in any pieces, into events. Data is passed on as it comes, never gathered."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._go(_State.BETWEEN)
        self._head = bytearray()
        self._kind: int | None = None
        self._missing = 0
        self._payload = bytearray()

    @property
    def done(self) -> bool:
        return self._state is _State.DONE

    @property
    def between(self) -> bool:
        """Whether a new entry may begin, if there are any."""
        return self._state is _State.BETWEEN

    def feed(self, block: Buffer) -> Iterator[Event]:
        """Events of `block`. Raises FrameError for what the layout doesn't allow. Exhaust before feeding on."""
        view = memoryview(block)
        at, end = 0, len(view)
        while at < end:
            if self._kind is None:
                if not self._head and end - at >= _HEADER.size:
                    # Most frames lie whole in one block.
                    number, length = _HEADER.unpack_from(view, at)
                    after = at + _HEADER.size + length
                    if after <= end:
                        self._check(number, length)
                        payload = view[at + _HEADER.size : after]
                        at = after
                        if number != _DATA:
                            yield self._event(number, payload)
                        elif length:
                            yield Data(payload)
                        continue
                take = min(_HEADER.size - len(self._head), end - at)
                self._head += view[at : at + take]
                at += take
                if len(self._head) < _HEADER.size:
                    continue
                self._kind, self._missing = _HEADER.unpack(self._head)
                self._head.clear()
                self._check(self._kind, self._missing)
            else:
                piece = view[at : at + min(self._missing, end - at)]
                at += len(piece)
                self._missing -= len(piece)
                if self._kind == _DATA:
                    yield Data(piece)
                else:
                    self._payload += piece
            if self._missing == 0:
                number, self._kind = self._kind, None
                if number != _DATA:
                    whole, self._payload = self._payload, bytearray()
                    yield self._event(number, whole)

    def finish(self) -> None:
        """The body has ended. Raises FrameError unless END or FAILURE was its last frame."""
        if self._state is not _State.DONE:
            raise FrameError("the body was cut short: it ended before its END frame")

    def _check(self, number: int, length: int) -> None:
        """Whether a frame of this kind and length can stand here."""
        if number not in self._may:
            if self._state is _State.DONE:
                raise FrameError("there are bytes after the last frame of the body")
            try:
                name = FrameKind(number).name
            except ValueError:
                raise FrameError(f"unknown frame kind {number}") from None
            raise FrameError(f"a {name} frame can't stand here in a body of layout {self._layout.value}")
        if length > MAX_CONTROL_BYTES:
            limit = MAX_DATA_BYTES if number in _LISTS else MAX_CONTROL_BYTES
            if length > limit:
                raise FrameError(
                    f"a {FrameKind(number).name} frame of {length} bytes is longer than the limit of {limit}"
                )

    def _go(self, state: _State) -> None:
        self._state = state
        self._may = _ALLOWED[self._layout, state]

    def _event(self, number: int, payload: Buffer) -> Event:
        """The event of a whole frame other than DATA."""
        try:
            if number == FrameKind.CHUNK:
                if len(payload) < DIGEST_BYTES:
                    raise FrameError("a CHUNK frame is shorter than its digest")
                return StoredChunk(bytes(payload[:DIGEST_BYTES]), memoryview(payload)[DIGEST_BYTES:])
            if number == FrameKind.KNOWN:
                return Known(payload)
            if number == FrameKind.KEPT:
                return Kept(_KEPT_DECODER.decode_lines(payload))
            if number == FrameKind.PLACED:
                return Placed(_PLACED_DECODER.decode_lines(payload))
            decoder, after = _CONTROL[number]
            event = decoder.decode(payload)
        except UNREADABLE as error:
            raise FrameError(f"a {FrameKind(number).name} frame can't be read: {error}") from error
        self._go(after)
        return event
