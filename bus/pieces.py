"""The pieces of a snapshot: each is compressed by itself, and says in plain what is in it, so that a reader can leave
it as it is until somebody asks for what is in there."""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import zstandard

PART_BYTES = 512 * 1024
LEVEL = 1
_HEAD = struct.Struct(">HII32s")
"""Before each piece: the lengths of its label, of its plain and of its compressed bytes, the digest of the plain."""


class Unsound(Exception):
    """A snapshot can't be used; ``reason`` is a word for counting: torn, corrupt."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class _OfThread(threading.local):
    """Neither of them may be used by two threads at once."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_of_thread = _OfThread()


class Piece(NamedTuple):
    """``body`` is compressed; ``size`` and ``digest`` (SHA-256) are of the plain bytes."""

    label: bytes
    size: int
    digest: bytes
    body: bytes

    @classmethod
    def of(cls, label: bytes, plain: bytes) -> Piece:
        """A piece with these bytes in it. It lets others run while it compresses."""
        return cls(label, len(plain), hashlib.sha256(plain).digest(), _of_thread.compressor.compress(plain))

    def plain(self) -> bytes:
        """What is in it. Raises :class:`Unsound`."""
        try:
            return _of_thread.decompressor.decompress(self.body, max_output_size=self.size)
        except zstandard.ZstdError as error:
            raise Unsound("corrupt", f"a piece of a snapshot can't be decompressed: {error}") from None


class Packed(NamedTuple):
    """The bytes of a snapshot, ready to be stored. ``sha256`` is of them, ``state_sha256`` of what is in the pieces."""

    parts: tuple[bytes, ...]
    size: int
    plain_size: int
    sha256: str
    state_sha256: str


def digest_of(plain: Iterable[bytes]) -> str:
    """What a manifest calls ``state_sha256``, of the plain bytes of all pieces: a digest over their digests."""
    digest = hashlib.sha256()
    for each in plain:
        digest.update(hashlib.sha256(each).digest())
    return digest.hexdigest()


def pack(pieces: Iterable[Piece]) -> Packed:
    """Put pieces together as they come."""
    packed, state, plain_size = bytearray(), hashlib.sha256(), 0
    for piece in pieces:
        state.update(piece.digest)
        plain_size += piece.size
        packed += _HEAD.pack(len(piece.label), piece.size, len(piece.body), piece.digest)
        packed += piece.label
        packed += piece.body
    parts = tuple(bytes(packed[at : at + PART_BYTES]) for at in range(0, len(packed), PART_BYTES))
    return Packed(parts, len(packed), plain_size, hashlib.sha256(packed).hexdigest(), state.hexdigest())


def unpack(parts: Iterable[bytes], *, generation: int) -> Iterator[Piece]:
    """The pieces again, as they are. Raises :class:`Unsound`."""
    whole = b"".join(parts)
    at, end = 0, len(whole)
    while at < end:
        try:
            label, size, body, digest = _HEAD.unpack_from(whole, at)
        except struct.error:
            raise Unsound("corrupt", f"snapshot {generation} ends within a piece") from None
        at += _HEAD.size
        behind = at + label + body
        if behind > end:
            raise Unsound("corrupt", f"snapshot {generation} ends within a piece")
        yield Piece(whole[at : at + label], size, digest, whole[at + label : behind])
        at = behind
