"""The frames in which a part with entries comes to a reader on the same machine (`brokers.sdk.near`): over a socket
that both ends read and write from threads, many small entries in one frame.

Besides ENTRY, DATA, ENTRY_END, END and FAILURE there is WHOLE (12): four bytes with the length of some entry lines (big
endian), these, and then the bytes of those entries, one behind the other. The lines are those that count into the
digest of the part. Calls block.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec

from brokers.sdk.digests import Buffer
from brokers.sdk.frames import (
    MAX_DATA_BYTES,
    Event,
    FrameDecoder,
    FrameError,
    KnownEntry,
    Layout,
)

WHOLE = 12
STALL_SECONDS = 120.0
"""How long the other end may take nothing, or send nothing."""
_HEADER = struct.Struct(">BI")
_LINES = struct.Struct(">I")
_BUFFERS = 6
_MOST_PIECES = 512
_UNDER_WAY_BYTES = 4 << 20
_SNDBUFFORCE = 32  # SO_SNDBUFFORCE of Linux, which Python has no name for

_DECODER = msgspec.json.Decoder(KnownEntry)


class Whole:
    """Some small entries with their bytes. ``lines`` are their entry lines; each of ``data`` is valid until
    :meth:`release`."""

    def __init__(self, lines: bytes, data: memoryview, buffers: list[bytearray], buffer: bytearray) -> None:
        self.lines = lines
        self._buffers = buffers
        self._buffer = buffer
        try:
            self.entries: list[KnownEntry] = _DECODER.decode_lines(lines)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FrameError(f"a WHOLE frame can't be read: {error}") from error
        self.data: list[memoryview] = []
        at = 0
        for entry in self.entries:
            if entry.size < 0 or at + entry.size > len(data):
                raise FrameError("a WHOLE frame is shorter than its entries")
            self.data.append(data[at : at + entry.size])
            at += entry.size
        if at != len(data):
            raise FrameError("a WHOLE frame is longer than its entries")

    def release(self) -> None:
        """The bytes are used no more."""
        if len(self._buffers) < _BUFFERS:
            self._buffers.append(self._buffer)


def widen(connection: socket.socket) -> None:
    """Lets more be under way on it, so that neither end waits for each piece of the other's. Root may have all of it,
    others what the system allows."""
    for option in (_SNDBUFFORCE, socket.SO_SNDBUF):
        with suppress(PermissionError):
            connection.setsockopt(socket.SOL_SOCKET, option, _UNDER_WAY_BYTES)
            return


def send_whole(connection: socket.socket, lines: bytes, data: Sequence[Buffer]) -> None:
    """Sends entries. Raises OSError."""
    size = sum(map(len, data))
    head = _HEADER.pack(WHOLE, _LINES.size + len(lines) + size) + _LINES.pack(len(lines)) + lines
    send_all(connection, [head, *data])


def send_all(connection: socket.socket, pieces: Sequence[Buffer]) -> None:
    """Sends the pieces, one behind the other. Raises OSError."""
    for first in range(0, len(pieces), _MOST_PIECES):
        left = [memoryview(piece) for piece in pieces[first : first + _MOST_PIECES]]
        while left:
            sent = connection.sendmsg(left)
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]


def receive(connection: socket.socket) -> Iterator[Whole | Event]:
    """What is sent until END or FAILURE, those too. Raises FrameError for what is not allowed or cut short, OSError."""
    decoder = FrameDecoder(Layout.ENTRIES)
    buffers: list[bytearray] = []
    head = bytearray(_HEADER.size)
    while not decoder.done:
        _fill(connection, memoryview(head))
        kind, length = _HEADER.unpack(head)
        if length > MAX_DATA_BYTES:
            raise FrameError(f"a frame of {length} bytes is longer than the limit")
        if kind == WHOLE:
            if not decoder.between or length < _LINES.size:
                raise FrameError("a WHOLE frame can't stand here")
            yield _whole(connection, length, buffers)
            continue
        payload = bytearray(length)
        _fill(connection, memoryview(payload))
        yield from decoder.feed(bytes(head))
        yield from decoder.feed(payload)


def _whole(connection: socket.socket, length: int, buffers: list[bytearray]) -> Whole:
    buffer = buffers.pop() if buffers else bytearray()
    if len(buffer) < length:
        buffer = bytearray(length + length // 4)
    view = memoryview(buffer)[:length]
    _fill(connection, view)
    (count,) = _LINES.unpack_from(view)
    if _LINES.size + count > length:
        raise FrameError("a WHOLE frame is shorter than its lines")
    lines = bytes(view[_LINES.size : _LINES.size + count])
    return Whole(lines, view[_LINES.size + count :], buffers, buffer)


def _fill(connection: socket.socket, view: memoryview) -> None:
    while view:
        count = connection.recv_into(view, len(view), socket.MSG_WAITALL)
        if count == 0:
            raise FrameError("the body was cut short: it ended before its END frame")
        view = view[count:]
