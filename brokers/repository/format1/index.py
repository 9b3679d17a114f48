"""Index objects: which packs hold which chunks. Made from the packs' trailers, so that one read says it for many."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from brokers.repository.errors import CorruptObject
from brokers.repository.format1.catalog import Catalog
from brokers.repository.format1.kinds import Kind
from brokers.repository.format1.packs import (
    PACK_ID_BYTES,
    PACKS,
    Blob,
    decode_blobs,
    encode_blobs,
    pack_of,
    read_trailer,
)
from brokers.repository.format1.sealing import Keys
from brokers.repository.objects import ObjectMissing, ObjectStore

INDEX = Kind.INDEX.value
_HEAD = struct.Struct(f">{PACK_ID_BYTES}sQI")
_BLOB_BYTES = 44

Indexed = tuple[bytes, int, list[Blob]]
"""A pack, its size, and its chunks."""


def put_index(objects: ObjectStore, keys: Keys, packs: Iterable[Indexed], *, serial: str) -> str:
    """Writes an index object of these packs; its name."""
    name = INDEX + serial
    body = b"".join(_HEAD.pack(pack, size, len(blobs)) + encode_blobs(blobs) for pack, size, blobs in packs)
    objects.put(name, keys.seal(name, body))
    return name


def read_index(objects: ObjectStore, keys: Keys, name: str) -> list[Indexed]:
    """Raises CorruptObject, ObjectMissing."""
    plain = keys.unseal(name, objects.read(name))
    found: list[Indexed] = []
    at = 0
    while at < len(plain):
        if len(plain) - at < _HEAD.size:
            raise CorruptObject(f"{name} is no index")
        pack, size, count = _HEAD.unpack_from(plain, at)
        at += _HEAD.size
        found.append((pack, size, decode_blobs(plain[at : at + count * _BLOB_BYTES])))
        at += count * _BLOB_BYTES
    return found


def refresh(objects: ObjectStore, keys: Keys, catalog: Catalog) -> list[str]:
    """Takes what other writers added into the catalog. What is wrong with index objects, one line each: those are
    passed over, the packs' trailers say the same."""
    loaded = catalog.loaded().keys()
    there = {found.name for found in objects.list(INDEX)}
    catalog.forget_loaded(loaded - there)
    problems: list[str] = []
    for name in sorted(there - loaded):
        try:
            indexed = read_index(objects, keys, name)
        except ObjectMissing:
            continue
        except CorruptObject as error:
            problems.append(str(error))
            continue
        for pack, size, blobs in indexed:
            catalog.add_pack(pack, size, blobs)
        catalog.note_loaded(name, [pack for pack, _, _ in indexed])
    return problems


def reconcile(objects: ObjectStore, keys: Keys, catalog: Catalog) -> list[str]:
    """Makes the catalog say what the store holds: reads the trailers of packs that no index names, and forgets packs
    that are gone. What is wrong with packs, one line each."""
    problems: list[str] = []
    known = catalog.packs()  # before the listing: what is added meanwhile is not missing
    there: dict[bytes, int] = {}
    for found in objects.list(PACKS):
        named = pack_of(found.name)
        if named is None:
            problems.append(f"{found.name} is no pack: somebody else put it there")
        else:
            there[named] = found.size
    for pack in known.keys() - there.keys():
        catalog.forget_pack(pack)
    for pack, size in there.items():
        if known.get(pack) == size:
            continue
        if pack in known:
            catalog.forget_pack(pack)
        try:
            catalog.add_pack(pack, size, read_trailer(objects, keys, pack, size=size))
        except CorruptObject as error:
            problems.append(str(error))
    return problems
