"""The keys of a repository of format 1, and what is done with them: chunk names, pack ciphers, sealed objects.

Every key is used for one pack or one object only (derived from the data key with a random id or salt), so nonces
can't meet.
"""

from __future__ import annotations

import os

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from brokers.repository.errors import CorruptObject
from brokers.sdk.digests import Buffer

KEY_BYTES = 32
TAG_BYTES = 16
SALT_BYTES = 16
NO_NONCE = bytes(12)
SEALED_MAGIC = b"CLQ1"
_CIPHERS = 256
"""How many ciphers of packs are kept: to make one costs more than to decrypt a small chunk."""
_CONTEXT = "calque repository format 1: "


def derive(purpose: str, material: bytes) -> bytes:
    """A key of 32 bytes for one purpose: BLAKE3's key derivation."""
    return blake3(material, derive_key_context=_CONTEXT + purpose).digest()


class Keys:
    """The two secrets of a repository: the data key, and the secret of its trust domain."""

    def __init__(self, data_key: bytes, domain_secret: bytes) -> None:
        self._data_key = data_key
        self._domain_secret = domain_secret
        self._chunk_key = derive("chunk names", domain_secret)
        self._ciphers: dict[bytes, AESGCM] = {}
        self.domain = f"blake3-keyed-{derive('domain name', domain_secret)[:16].hex()}"
        """Names the domain without telling its secret."""

    def __repr__(self) -> str:
        return f"Keys({self.domain})"

    @property
    def secret(self) -> bytes:
        """Both, as they are wrapped for a recipient."""
        return self._data_key + self._domain_secret

    @classmethod
    def of_secret(cls, secret: bytes) -> Keys:
        """The reverse of `secret`. Raises ValueError."""
        if len(secret) != 2 * KEY_BYTES:
            raise ValueError("a repository's secret has 64 bytes")
        return cls(secret[:KEY_BYTES], secret[KEY_BYTES:])

    def chunk_name(self, plain: Buffer) -> bytes:
        """The name of a chunk: the keyed BLAKE3 of its plaintext."""
        return blake3(plain, key=self._chunk_key).digest()

    def pack_cipher(self, pack: bytes) -> AESGCM:
        """The cipher of one pack, by its id."""
        cipher = self._ciphers.get(pack)
        if cipher is None:
            if len(self._ciphers) >= _CIPHERS:
                self._ciphers.clear()
            cipher = self._ciphers[pack] = AESGCM(derive("pack", self._data_key + pack))
        return cipher

    def seal(self, name: str, plain: Buffer) -> bytes:
        """The object of this name, encrypted and bound to its name."""
        salt = os.urandom(SALT_BYTES)
        head = SEALED_MAGIC + salt
        cipher = AESGCM(derive("object", self._data_key + salt))
        return head + cipher.encrypt(NO_NONCE, bytes(plain), head + name.encode())

    def unseal(self, name: str, sealed: bytes) -> bytes:
        """The reverse of `seal`. Raises CorruptObject for any other bytes, any other name and any other key."""
        head = sealed[: len(SEALED_MAGIC) + SALT_BYTES]
        if len(sealed) < len(head) + TAG_BYTES or not head.startswith(SEALED_MAGIC):
            raise CorruptObject(f"{name} is cut short or no object of this format")
        cipher = AESGCM(derive("object", self._data_key + head[len(SEALED_MAGIC) :]))
        try:
            return cipher.decrypt(NO_NONCE, sealed[len(head) :], head + name.encode())
        except InvalidTag:
            raise CorruptObject(f"{name} was changed, or belongs to another name or another key") from None
