"""Packs: many encrypted chunks in one object, with a trailer that lists them (`docs/repository-format.md`, "Packs").

The trailer makes the index a mere shortcut: whoever has the packs and the keys can make it anew.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from brokers.repository.compression import NotCompressed, decompress
from brokers.repository.errors import CorruptChunk, CorruptObject
from brokers.repository.format1.kinds import Kind
from brokers.repository.format1.sealing import TAG_BYTES, Keys
from brokers.repository.objects import ObjectMissing, ObjectStore
from brokers.sdk.digests import Buffer

PACKS = Kind.PACK.value
PACK_ID_BYTES = 16
_HEAD_MAGIC = b"CALQPK01"
_FOOT_MAGIC = b"CALQPE01"
HEAD_BYTES = len(_HEAD_MAGIC) + PACK_ID_BYTES
FOOT_BYTES = 4 + len(_FOOT_MAGIC)
_ENTRY = struct.Struct(">32sIII")
_TRAILER_NONCE = b"\xff" * 12
_TAIL_READ = 64 << 10


class Blob(NamedTuple):
    """A chunk in a pack: name, where its ciphertext begins, ciphertext's size with its tag, plaintext's size."""

    name: bytes
    offset: int
    stored: int
    size: int


def pack_name(pack: bytes) -> str:
    """The object's name."""
    return PACKS + pack.hex()


def pack_of(name: str) -> bytes | None:
    """The pack whose object, or whose mark, has this name; `None` for what was put there by others."""
    told = name.rpartition("/")[2]
    try:
        pack = bytes.fromhex(told)
    except ValueError:
        return None
    return pack if len(pack) == PACK_ID_BYTES and pack.hex() == told and name.count("/") == 1 else None


def listed_packs(objects: ObjectStore) -> dict[bytes, int]:
    """The packs that are there, with their sizes."""
    found = ((pack_of(each.name), each.size) for each in objects.list(PACKS))
    return {pack: size for pack, size in found if pack is not None}


def head_of(pack: bytes) -> bytes:
    return _HEAD_MAGIC + pack


def encrypt_chunk_into(cipher: AESGCM, pack: bytes, blob: Blob, packed: Buffer, place: bytearray | memoryview) -> None:
    """Writes a compressed chunk as it lies in the pack to a `place` of `blob.stored` bytes. Its offset there is its
    nonce: no two blobs begin at one place."""
    cipher.encrypt_into(blob.offset.to_bytes(12, "big"), packed, pack + blob.name, place)


def decrypt_chunk(cipher: AESGCM, pack: bytes, blob: Blob, stored: Buffer) -> bytes:
    """The compressed chunk. Raises CorruptChunk."""
    try:
        return cipher.decrypt(blob.offset.to_bytes(12, "big"), stored, pack + blob.name)
    except InvalidTag:
        raise CorruptChunk(f"is damaged in pack {pack.hex()}", chunk=blob.name.hex()) from None


def open_chunk(keys: Keys, packed: Buffer, *, name: bytes, size: int) -> bytes:
    """The plaintext of a compressed chunk, checked against its name. Raises CorruptChunk."""
    plain = unpack_chunk(packed, name=name, size=size)
    check_name(keys, plain, name=name)
    return plain


def unpack_chunk(packed: Buffer, *, name: bytes, size: int) -> bytes:
    """The plaintext of a compressed chunk that was decrypted: so it is what was written under this name. Raises
    CorruptChunk."""
    try:
        return decompress(packed, size=size)
    except NotCompressed as error:
        raise CorruptChunk(f"is damaged: {error}", chunk=name.hex()) from error


def check_name(keys: Keys, plain: Buffer, *, name: bytes) -> None:
    """Raises CorruptChunk unless the name is that of these bytes."""
    if keys.chunk_name(plain) != name:
        raise CorruptChunk("is damaged: its bytes are not those of its name", chunk=name.hex())


def encode_blobs(blobs: Iterable[Blob]) -> bytes:
    return b"".join(_ENTRY.pack(*blob) for blob in blobs)


def decode_blobs(data: bytes) -> list[Blob]:
    """Raises CorruptObject."""
    if len(data) % _ENTRY.size:
        raise CorruptObject("a list of chunks is cut short")
    return [Blob(*fields) for fields in _ENTRY.iter_unpack(data)]


def trailer(cipher: AESGCM, pack: bytes, blobs: Iterable[Blob]) -> bytes:
    """What ends a pack."""
    sealed = cipher.encrypt(_TRAILER_NONCE, encode_blobs(blobs), pack + b"trailer")
    return sealed + len(sealed).to_bytes(4, "big") + _FOOT_MAGIC


def read_trailer(objects: ObjectStore, keys: Keys, pack: bytes, *, size: int) -> list[Blob]:
    """The chunks of a pack of `size` bytes, from its trailer, its frame checked. Raises CorruptObject."""
    name = pack_name(pack)
    if size < HEAD_BYTES + FOOT_BYTES + TAG_BYTES:
        raise CorruptObject(f"{name} is cut short")
    try:
        if objects.read(name, offset=0, length=HEAD_BYTES) != head_of(pack):
            raise CorruptObject(f"{name} does not begin as a pack of that name")
        at = max(HEAD_BYTES, size - _TAIL_READ)
        tail = objects.read(name, offset=at, length=size - at)
        length = int.from_bytes(tail[-FOOT_BYTES : -len(_FOOT_MAGIC)], "big")
        if len(tail) != size - at or not tail.endswith(_FOOT_MAGIC) or length > size - HEAD_BYTES - FOOT_BYTES:
            raise CorruptObject(f"{name} is cut short, or does not end as a pack")
        if length + FOOT_BYTES > len(tail):
            tail = objects.read(name, offset=size - FOOT_BYTES - length, length=length + FOOT_BYTES)
    except ObjectMissing:
        raise CorruptObject(f"{name} is missing") from None
    try:
        plain = keys.pack_cipher(pack).decrypt(
            _TRAILER_NONCE, tail[-FOOT_BYTES - length : -FOOT_BYTES], pack + b"trailer"
        )
    except InvalidTag:
        raise CorruptObject(f"the trailer of {name} was changed, or belongs to another pack or key") from None
    blobs = decode_blobs(plain)
    if sum(blob.stored for blob in blobs) + HEAD_BYTES + FOOT_BYTES + length != size:
        raise CorruptObject(f"{name} does not have the size that its trailer says")
    return blobs
