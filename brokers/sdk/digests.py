"""BLAKE3, the digest of copies: of chunks, entries, parts and manifests. Digests travel as 64 lower-case hex
digits; inside frames as 32 bytes."""

import re

from blake3 import blake3

DIGEST_BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}")

Buffer = bytes | bytearray | memoryview


class Hasher:
    """A running BLAKE3 over what it was fed. Big buffers are hashed outside the interpreter's lock."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = blake3()

    def update(self, data: Buffer) -> None:
        self._state.update(data)

    def hex(self) -> str:
        return self._state.hexdigest()


def digest_bytes(data: Buffer) -> bytes:
    return blake3(data).digest()


def digest_hex(data: Buffer) -> str:
    return blake3(data).hexdigest()


def is_digest(text: str) -> bool:
    """Whether `text` is a digest in its one allowed spelling."""
    return _HEX.fullmatch(text) is not None
