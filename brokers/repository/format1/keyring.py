"""Who can open a repository: its secret lies in it once for each recipient, sealed to the recipient's X25519 key.

`format` says what the store holds; `recipients/<repository>/<public key>` holds the secret for one recipient.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import uuid
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from brokers.repository.errors import CorruptObject, UnknownFormat, WrongKey
from brokers.repository.format1.kinds import Kind
from brokers.repository.format1.sealing import KEY_BYTES, NO_NONCE, Keys, derive
from brokers.repository.manifest import canonical
from brokers.repository.objects import ObjectExists, ObjectMissing, ObjectStore
from brokers.sdk.atomic import write_atomically
from schemas.unreadable import UNREADABLE

FORMAT = 1
FORMAT_NAME = Kind.FORMAT.value
RECIPIENTS = Kind.RECIPIENT.value
_MAGIC = b"CLQR"
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

logger = logging.getLogger(__name__)


class FormatObject(msgspec.Struct, frozen=True):
    """What `format` holds, in canonical JSON."""

    format: int
    id: str


class RecipientKey:
    """The private half of a recipient's key."""

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()

    @classmethod
    def load_or_create(cls, path: Path) -> RecipientKey:
        """The key in `path` (base64, mode 0600), made at first use."""
        return cls(X25519PrivateKey.from_private_bytes(load_or_create_secret(path)))

    def open(self, wrapped: bytes, *, repository: str) -> Keys:
        """The repository's keys. Raises CorruptObject."""
        head = wrapped[: len(_MAGIC) + KEY_BYTES]
        if not head.startswith(_MAGIC) or len(head) < len(_MAGIC) + KEY_BYTES:
            raise CorruptObject("the sealed key of this recipient is cut short or no key")
        ephemeral = head[len(_MAGIC) :]
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(ephemeral))
            cipher = _cipher(shared, ephemeral=ephemeral, public=self.public)
            return Keys.of_secret(cipher.decrypt(NO_NONCE, wrapped[len(head) :], repository.encode()))
        except (InvalidTag, ValueError) as error:
            raise CorruptObject("the sealed key of this recipient was changed") from error


def load_or_create_secret(path: Path) -> bytes:
    """32 secret bytes in `path` (base64, mode 0600), made at first use. Raises WrongKey for anything else."""
    if path.exists():
        try:
            secret = base64.b64decode(path.read_bytes().strip(), validate=True)
        except ValueError:
            secret = b""
        if len(secret) != KEY_BYTES:
            raise WrongKey(f"{path.name} holds no key: 32 bytes in base64 are needed")
        return secret
    secret = os.urandom(KEY_BYTES)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, base64.b64encode(secret))
    return secret


def seal_to(keys: Keys, public: bytes, *, repository: str) -> bytes:
    """The repository's secret for one recipient."""
    key = X25519PrivateKey.generate()
    ephemeral = key.public_key().public_bytes_raw()
    cipher = _cipher(key.exchange(X25519PublicKey.from_public_bytes(public)), ephemeral=ephemeral, public=public)
    return _MAGIC + ephemeral + cipher.encrypt(NO_NONCE, keys.secret, repository.encode())


def read_format(objects: ObjectStore) -> FormatObject | None:
    """What the store says that it holds; `None` for an empty one. Raises UnknownFormat."""
    try:
        found = msgspec.json.decode(objects.read(FORMAT_NAME), type=FormatObject)
    except ObjectMissing:
        return None
    except (*UNREADABLE, ValueError) as error:
        raise UnknownFormat(f"the object {FORMAT_NAME} can't be read: {error}") from error
    if found.format != FORMAT:
        raise UnknownFormat(
            f"the object {FORMAT_NAME} says that this is a repository of format {found.format},"
            f" this version knows {FORMAT}"
        )
    if not _ID.fullmatch(found.id):
        raise UnknownFormat(f"the object {FORMAT_NAME} names no repository")
    return found


def open_keys(
    objects: ObjectStore, own: RecipientKey, *, domain_secret: bytes | None, recipients: tuple[str, ...]
) -> tuple[str, Keys]:
    """The repository's id and keys; a new repository is made in an empty store. `recipients` are public keys (hex)
    that shall be able to open it too. Raises WrongKey, UnknownFormat, CorruptObject."""
    found = read_format(objects)
    if found is None:
        found = _create(objects, own, domain_secret=domain_secret)
    name = _name(found.id, own.public)
    try:
        keys = own.open(objects.read(name), repository=found.id)
    except ObjectMissing:
        if not any(True for _ in objects.list(f"{RECIPIENTS}{found.id}/")):
            raise CorruptObject(
                f"the object {FORMAT_NAME} names repository {found.id}, and no key of that one is here: the object was"
                f" changed, or what lay in {RECIPIENTS} is gone"
            ) from None
        raise WrongKey(
            f"the key {own.public.hex()} can't open this repository: a site that can must name it as a recipient"
        ) from None
    except CorruptObject as error:
        raise CorruptObject(f"{name}: {error.cause}") from error
    if domain_secret is not None and Keys(bytes(KEY_BYTES), domain_secret).domain != keys.domain:
        logger.warning("the repository keeps the trust domain that it was made with, not the configured one")
    for recipient in recipients:
        _admit(objects, keys, recipient, repository=found.id)
    return found.id, keys


def _create(objects: ObjectStore, own: RecipientKey, *, domain_secret: bytes | None) -> FormatObject:
    made = FormatObject(FORMAT, str(uuid.uuid4()))
    keys = Keys(os.urandom(KEY_BYTES), domain_secret or os.urandom(KEY_BYTES))
    # The key first: a repository that nobody can open must never be seen.
    objects.put(_name(made.id, own.public), seal_to(keys, own.public, repository=made.id))
    try:
        objects.put(FORMAT_NAME, canonical(made))
    except ObjectExists:
        logger.info("another process made the repository in the same moment")
    return read_format(objects) or made


def _admit(objects: ObjectStore, keys: Keys, recipient: str, *, repository: str) -> None:
    try:
        public = bytes.fromhex(recipient)
        if len(public) != KEY_BYTES:
            raise ValueError("a public key has 32 bytes")
        name = _name(repository, public)
        if objects.look(name) is None:
            objects.put(name, seal_to(keys, public, repository=repository))
    except ValueError as error:
        raise WrongKey(f"{recipient[:80]!r} is no recipient: {error}") from error


def _name(repository: str, public: bytes) -> str:
    return f"{RECIPIENTS}{repository}/{public.hex()}"


def _cipher(shared: bytes, *, ephemeral: bytes, public: bytes) -> AESGCM:
    return AESGCM(derive("recipient", shared + ephemeral + public))
