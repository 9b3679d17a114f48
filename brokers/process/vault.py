"""Secrets at rest: the secret environment of services, encrypted under a key that never leaves the state directory."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.utils import random as random_bytes

from brokers.sdk.atomic import write_atomically
from brokers.sdk.errors import permanent_error
from schemas.secrets import Secret


class Vault:
    """Encrypts with XSalsa20-Poly1305 (libsodium's secretbox) under the key in ``file`` (mode 0600), made once."""

    def __init__(self, file: Path) -> None:
        if not file.exists():
            write_atomically(file, random_bytes(SecretBox.KEY_SIZE), mode=0o600)
        key = file.read_bytes()
        self._box = SecretBox(key)
        self._digest_key = hashlib.sha256(b"calque content digest" + key).digest()

    def close(self, values: Mapping[str, Secret]) -> bytes:
        """The box that holds ``values``."""
        return bytes(self._box.encrypt(msgspec.json.encode({name: secret.value for name, secret in values.items()})))

    def open(self, box: bytes) -> dict[str, Secret]:
        """What is in ``box``. Raises ``secrets_lost`` when it was closed under another key."""
        try:
            plain = self._box.decrypt(box)
        except CryptoError:
            raise permanent_error(
                "secrets_lost", "the stored secrets can't be decrypted with this key", remedy="deploy the service again"
            ) from None
        values = msgspec.json.decode(plain, type=dict[str, str])
        return {name: Secret(value=value) for name, value in values.items()}

    def digest(self, content: bytes) -> str:
        """A digest of content that may hold secrets: nobody without the key can try values against it."""
        return hmac.new(self._digest_key, content, hashlib.sha256).hexdigest()
