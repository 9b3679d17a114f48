"""Sealed boxes: secrets that leave this site can be opened by one key alone (libsodium, X25519)."""

from __future__ import annotations

from pathlib import Path

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from schemas.problems import CalqueError, invalid, permanent
from schemas.secrets import Sealed


def seal(plaintext: bytes, *, public_key: str) -> Sealed:
    """``plaintext`` for the holder of ``public_key`` (hexadecimal)."""
    try:
        key = PublicKey(bytes.fromhex(public_key))
    except (ValueError, TypeError, CryptoError):
        raise CalqueError(invalid("public_key", "not an X25519 key", "send 32 bytes in hexadecimal")) from None
    return Sealed(recipient=public_key, box=SealedBox(key).encrypt(plaintext))


class SealKey:
    """This site's key pair; the private half (32 bytes) is in ``path``."""

    def __init__(self, path: Path) -> None:
        self._key = PrivateKey(path.read_bytes())

    @property
    def public(self) -> str:
        """The public half, hexadecimal."""
        return bytes(self._key.public_key).hex()

    def open(self, sealed: Sealed) -> bytes:
        """What was sealed for this site."""
        try:
            return SealedBox(self._key).decrypt(sealed.box)
        except CryptoError:
            raise CalqueError(permanent("not_for_us", "a sealed message is not for this site's key")) from None
