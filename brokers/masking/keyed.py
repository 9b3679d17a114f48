"""Keyed digests: what every transformer is made of. BLAKE2b with the image's key (RFC 7693)."""

from __future__ import annotations

from hashlib import blake2b

from schemas.secrets import Secret

KEY_BYTES = 32


class Keyed:
    """Digests under one key. ``repr`` does not show it."""

    __slots__ = ("_begun", "_key")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._begun = blake2b(key=key)  # what the key alone costs is paid once

    @classmethod
    def of(cls, secret: Secret) -> Keyed:
        """The key of an image."""
        return cls(blake2b(secret.value.encode(), digest_size=KEY_BYTES, person=b"calque masking").digest())

    def sub(self, purpose: str) -> Keyed:
        """Another key, for one purpose: what one transformer makes of a value says nothing of another's."""
        return Keyed(self.digest(purpose.encode(), size=KEY_BYTES))

    def digest(self, value: bytes, *, size: int = 16) -> bytes:
        """``size`` bytes (at most 64) that follow from ``value`` for those who have the key."""
        begun = self._begun.copy()
        begun.update(value)
        return begun.digest()[:size]

    def number(self, value: bytes, below: int) -> int:
        """A number of 0 to ``below`` - 1; ``below`` is far less than 2**128."""
        return int.from_bytes(self.digest(value)) % below

    @property
    def material(self) -> bytes:
        """The key itself, for a transformer of the operator's own."""
        return self._key
