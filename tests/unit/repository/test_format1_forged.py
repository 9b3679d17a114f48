"""Format 1: what is authentic and yet wrong, written by somebody who has the keys: every field of every structure
inside the encryption, changed. It is noticed, or it changes nothing of what is read. The fields come from the format's
code: a new one is tried too, and has to be noticed or named below."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from brokers.repository.compression import compress, decompress_any
from brokers.repository.format1.commits import Commit
from brokers.repository.format1.images import ImageObject
from brokers.repository.format1.index import put_index, read_index
from brokers.repository.format1.keyring import RecipientKey
from brokers.repository.format1.kinds import Kind, kind_of
from brokers.repository.format1.packs import Blob
from brokers.repository.format1.sealing import Keys
from brokers.repository.manifest import Manifest, Part, Signature, canonical
from tests.unit.repository.copies import memory_disk, read_part
from tests.unit.repository.damage import DUMPS, IMAGES, Objects, opened, store_of, written
from tests.unit.repository.memory_store import MemoryStore
from tests.unit.repository.test_format1_damage import look

IN_ANY_ORDER = {("Commit", "packs")}
ANY = {("Commit", "operation")}
"""What nothing else says too: it is held by the seal alone."""


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=memory_disk()) as found:
        yield Path(found)


@pytest.fixture(scope="module")
def sound(directory: Path) -> Objects:
    return written(directory, friend=RecipientKey.load_or_create(directory / "friend.key").public.hex()).objects


@pytest.fixture(scope="module")
def keys(directory: Path, sound: Objects) -> Keys:
    with opened(directory, store_of(sound), state="keys") as repository:
        return repository.keys


def others(value: Any) -> Iterator[Any]:
    """Values of the same type."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, 0)
    elif isinstance(value, str):
        yield from (value[:-1] + ("0" if value[-1:] != "0" else "1"), "")
    elif isinstance(value, bytes):
        yield from (value[:-2] + b" " + value[-1:], b"")
    elif isinstance(value, tuple):
        yield from (value[:-1], value[::-1] if len(value) > 1 else (*value, *value))
    elif isinstance(value, dict):
        yield {**value, "more": "1"}
    elif value is None:
        yield ()
    else:
        yield None


def forgeries(found: msgspec.Struct) -> Iterator[tuple[str, msgspec.Struct]]:
    """The structure with each of its fields changed."""
    for field in found.__struct_fields__:
        value = getattr(found, field)
        for other in others(value):
            if other != value:
                yield field, msgspec.structs.replace(found, **{field: other})


def forged(keys: Keys, sound: Objects) -> Iterator[tuple[str, str, Objects]]:
    """Structure, field, and the store with that forgery."""
    name = next(each for each in sorted(sound) if each.startswith(f"{Kind.COMMIT.value}c1/"))
    commit = msgspec.json.decode(decompress_any(keys.unseal(name, sound[name])), type=Commit)

    def with_commit(changed: Any) -> Objects:
        return {**sound, name: keys.seal(name, compress(msgspec.json.encode(changed)))}

    for field, changed in forgeries(commit):
        yield "Commit", field, with_commit(changed)
    for at, part in enumerate(commit.parts):
        for field, changed in forgeries(part):
            parts = (*commit.parts[:at], changed, *commit.parts[at + 1 :])
            yield "Part", field, with_commit(msgspec.structs.replace(commit, parts=parts))
    manifest = msgspec.json.decode(commit.manifest, type=Manifest)
    assert manifest.signature is not None
    for field, changed in itertools.chain(
        forgeries(manifest),
        (
            (f"signature.{field}", msgspec.structs.replace(manifest, signature=each))
            for field, each in forgeries(manifest.signature)
        ),
    ):
        yield "Manifest", field, with_commit(msgspec.structs.replace(commit, manifest=canonical(changed)))
    image = next(each for each in sorted(sound) if each.startswith(f"{Kind.IMAGE.value}m1/"))
    record = msgspec.json.decode(keys.unseal(image, sound[image]), type=ImageObject)
    for field, signature in forgeries(record.signature):
        changed = msgspec.structs.replace(record, signature=signature)
        yield "ImageObject", f"signature.{field}", {**sound, image: keys.seal(image, msgspec.json.encode(changed))}
    content = msgspec.structs.replace(IMAGES["m1"], site="south")
    changed = msgspec.structs.replace(record, content=msgspec.Raw(canonical(content)))
    yield "ImageObject", "content", {**sound, image: keys.seal(image, msgspec.json.encode(changed))}


def test_every_field_of_a_commit_or_an_image(directory: Path, keys: Keys, sound: Objects) -> None:
    noticed: set[tuple[str, str]] = set()
    for number, (structure, field, objects) in enumerate(forged(keys, sound)):
        seen = look(directory, objects, state=f"forged-{number}")
        if seen.by():
            noticed.add((structure, field))
        else:
            assert (structure, field) in IN_ANY_ORDER | ANY, f"{structure}.{field} was changed, and nobody noticed"
    for kind in (Commit, Part, Manifest):
        assert {(kind.__name__, field) for field in kind.__struct_fields__} <= noticed | ANY
    for owner in ("Manifest", "ImageObject"):
        assert {(owner, f"signature.{field}") for field in Signature.__struct_fields__} <= noticed
    assert ("ImageObject", "content") in noticed


def test_a_copy_that_does_not_keep_what_it_needs_is_repaired(directory: Path, keys: Keys, sound: Objects) -> None:
    objects = next(each for structure, field, each in forged(keys, sound) if (structure, field) == ("Commit", "packs"))
    with opened(directory, store_of(objects), state="unkept") as repository:
        for depth in ("structure", "sample", "all"):
            (finding,) = repository.verify("c1", depth=depth, progress=lambda _done: None).findings
            assert "no pack that the copy keeps" in finding.message
        assert "c1" in repository.repair().healed
        repository.delete("c2")
        repository.collect()
        assert repository.verify("c1", progress=lambda _done: None).sound
        assert read_part(repository, "c1", "dump") == DUMPS["c1"]


@pytest.mark.parametrize("field", Blob._fields)
def test_an_index_that_lies_gives_an_error_and_no_other_bytes(
    directory: Path, keys: Keys, sound: Objects, field: str
) -> None:
    there = store_of({name: content for name, content in sound.items() if kind_of(name) is not Kind.INDEX})
    lies = []
    for name in (each for each in sound if kind_of(each) is Kind.INDEX):
        for pack, size, blobs in read_index(MemoryStore(store_of(sound)), keys, name):
            values = [getattr(blob, field) for blob in blobs]
            lies.append(
                (pack, size, [blob._replace(**{field: each}) for blob, each in zip(blobs, moved(values), strict=True)])
            )
    put_index(MemoryStore(there), keys, lies, serial="00000000000000000000")
    seen = look(directory, {name: content for name, (content, _) in there.objects.items()}, state=f"index-{field}")
    # The size there only tells whether a chunk may be shared.
    assert bool(seen.reading) is bool(seen.all) is (field != "size")


def moved(values: list[Any]) -> list[Any]:
    """Each value in the place of another one."""
    return [*values[1:], values[0]] if len(values) > 1 else [next(others(values[0]))]
