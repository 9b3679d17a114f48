"""Secrets of webhooks and signatures by them (Standard Webhooks 1.0, symmetric ``v1``)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from nacl.exceptions import CryptoError
from nacl.public import PublicKey, SealedBox

from schemas.problems import CalqueError, invalid
from schemas.secrets import Sealed, Secret

KEY_BYTES = 32
PREFIX = "whsec_"


class Secrets:
    """All secrets of webhooks. They are derived from one key, so there is nothing to keep in step with the record."""

    def __init__(self, key_file: Path) -> None:
        """Raises ``OSError`` or ``ValueError``."""
        self._key = key_file.read_bytes()
        if len(self._key) != KEY_BYTES:
            raise ValueError(f"{key_file} does not hold a key of {KEY_BYTES} bytes")

    def of(self, name: str, *, key: str, version: int) -> Secret:
        """The secret of one webhook, as receivers configure it."""
        raw = hmac.digest(self._key, f"webhook\0{name}\0{key}\0{version}".encode(), hashlib.sha256)
        return Secret(value=PREFIX + base64.b64encode(raw).decode())


def signature(secrets: Sequence[Secret], *, id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: one signature per secret."""
    content = f"{id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{_signed(secret, content)}" for secret in secrets)


def seal(secret: Secret, *, public_key: str) -> Sealed:
    """The secret for the holder of one key. Raises a problem when that is no key."""
    try:
        box = SealedBox(PublicKey(bytes.fromhex(public_key)))
    except (ValueError, TypeError, CryptoError):
        raise CalqueError(invalid("public_key", "it is no X25519 key", "send 32 bytes, hexadecimal")) from None
    return Sealed(recipient=public_key, box=box.encrypt(secret.value.encode()))


def _signed(secret: Secret, content: bytes) -> str:
    key = base64.b64decode(secret.value.removeprefix(PREFIX))
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
