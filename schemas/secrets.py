"""Secret values and sealed boxes. A secret never enters a stream; it travels in request traffic only."""

from __future__ import annotations

from schemas.base import Fact


class Secret(Fact, frozen=True, kw_only=True, repr_omit_defaults=False):
    """A secret value whose ``repr`` and ``str`` do not show it."""

    value: str

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"


class Sealed(Fact, frozen=True, kw_only=True):
    """Bytes that only the holder of one X25519 key can open (libsodium sealed box).

    ``recipient`` is that key's public half, hexadecimal; ``box`` is base64 on the wire.
    """

    recipient: str
    box: bytes
