"""The site's own encrypted store of secret values: libsodium secret boxes, one file each.

A secret is referred to as ``secret:<instance>/<data service>/<name>``; only this store turns that into a value.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from pathlib import Path

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from schemas.problems import CalqueError, permanent
from schemas.secrets import Secret

PREFIX = "secret:"


class SecretStore:
    """Secret values under references, in ``directory`` (0700), sealed with the key in ``key_file`` (32 bytes)."""

    def __init__(self, directory: Path, *, key_file: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._box = SecretBox(_key(key_file))

    def put(self, reference: str, secret: Secret) -> None:
        """Keep ``secret``; the same reference again replaces it. Durable when this returns."""
        path = self._path(reference)
        descriptor, name = tempfile.mkstemp(dir=self._directory, prefix=".new-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(self._box.encrypt(secret.value.encode()))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)

    def get(self, reference: str) -> Secret:
        """The value; raises :class:`CalqueError` when there is none or it can't be opened."""
        try:
            sealed = self._path(reference).read_bytes()
        except FileNotFoundError:
            raise CalqueError(
                permanent("secret_missing", f"this site has no {reference}", remedy="make the binding anew")
            ) from None
        try:
            return Secret(value=self._box.decrypt(sealed).decode())
        except CryptoError:
            raise CalqueError(
                permanent("secret_unreadable", f"{reference} can't be opened with this site's key")
            ) from None

    def propose(self, reference: str) -> Secret:
        """The value under ``reference``, made up and kept first when there is none: the same at every retry."""
        if not self._path(reference).exists():
            self.put(reference, Secret(value=secrets.token_urlsafe(32)))
        return self.get(reference)

    def remove(self, references: list[str]) -> None:
        """Forget values. Unknown ones are forgotten already."""
        for reference in references:
            self._path(reference).unlink(missing_ok=True)

    def _path(self, reference: str) -> Path:
        if not reference.startswith(PREFIX):
            raise CalqueError(permanent("secret_reference", f"{reference!r} is no reference of this store"))
        return self._directory / f"{hashlib.sha256(reference.encode()).hexdigest()}.box"


def reference(instance: str, data_service: str, name: str) -> str:
    """The reference of one secret attribute of a binding."""
    return f"{PREFIX}{instance}/{data_service}/{name}"


def _key(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != SecretBox.KEY_SIZE:
        raise ValueError(f"{path} does not hold a key of {SecretBox.KEY_SIZE} bytes")
    return key
