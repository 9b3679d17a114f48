"""Ed25519 signatures over manifests, with the key of the site's repository."""

import base64
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from brokers.sdk.atomic import write_atomically


class SigningKey:
    """The private half; signs bytes."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def load_or_create(cls, path: Path) -> "SigningKey":
        """The key in `path` (mode 0600), made at first use."""
        if path.exists():
            return cls(Ed25519PrivateKey.from_private_bytes(base64.b64decode(path.read_bytes())))
        key = Ed25519PrivateKey.generate()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, base64.b64encode(key.private_bytes_raw()))
        return cls(key)

    @property
    def public_hex(self) -> str:
        return self._key.public_key().public_bytes_raw().hex()

    def sign_hex(self, message: bytes) -> str:
        return self._key.sign(message).hex()


def signature_holds(*, public_hex: str, signature_hex: str, message: bytes) -> bool:
    """Whether the signature of `message` is that of the key; anything malformed is a no."""
    try:
        public, signature = bytes.fromhex(public_hex), bytes.fromhex(signature_hex)
        if public.hex() != public_hex or signature.hex() != signature_hex:
            return False
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (ValueError, InvalidSignature):
        return False
    return True
