"""Format 1: whatever of a repository is changed, cut short, lost or swapped is noticed, and never restored as sound."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers.repository.errors import CorruptObject, RepositoryError, WrongKey
from brokers.repository.format1.keyring import RecipientKey
from brokers.repository.format1.repository import Options, Repository
from brokers.repository.manifest import CopyInfo
from schemas.values import ImageContent
from tests.unit.repository.copies import read_entries, read_part, write_entries, write_part
from tests.unit.repository.memory_store import MemoryObjects, MemoryStore

RANDOM = random.Random(2)
DUMP = RANDOM.randbytes(260_000)
ENTRIES = [(f"key {at}", {"n": str(at)}, RANDOM.randbytes(at * 10)) for at in range(40)]
IMAGE = ImageContent(image="m1", site="north", level="crash", instances=())
PLACES_PER_OBJECT = 40

Objects = dict[str, tuple[bytes, float]]


def opened(directory: Path, objects: Objects, *, state: str) -> Repository:
    there = MemoryObjects()
    there.objects = dict(objects)
    options = Options(recipient_key=directory / "recipient.key", pack_bytes=100_000)
    return Repository.open(MemoryStore(there), state=directory / state, options=options)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


@pytest.fixture(scope="module")
def sound(directory: Path) -> Objects:
    """A repository with one copy of two parts and one image."""
    there = MemoryObjects()
    options = Options(recipient_key=directory / "recipient.key", pack_bytes=100_000)
    with Repository.open(MemoryStore(there), state=directory / "writer", options=options) as repository:
        copy = repository.open_write("c1", CopyInfo())
        write_part(copy, "dump", DUMP)
        write_entries(copy, "entries", ENTRIES)
        repository.commit("c1")
        repository.record_image(IMAGE)
    return there.objects


def complaints(directory: Path, objects: Objects, state: str) -> Iterator[str]:
    """What somebody notices who opens the repository for the first time and looks at all of it. What he can read is
    what was written."""
    try:
        repository = opened(directory, objects, state=state)
    except RepositoryError as error:
        yield f"open: {error}"
        return
    with repository:
        yield from repository.learn()
        listed = list(repository.copies())
        if [each.copy for each in listed] != ["c1"]:
            yield "the copy is not listed"
        yield from (each.problem for each in listed if each.problem)
        images = list(repository.images())
        if [each.content for each in images] != [IMAGE]:
            yield f"the image is not listed: {[each.problem for each in images]}"
        for part, read, written in (("dump", read_part, DUMP), ("entries", read_entries, ENTRIES)):
            try:
                assert read(repository, "c1", part) == written
            except RepositoryError as error:
                yield f"reading {part}: {error}"
        try:
            yield from (finding.message for finding in repository.verify("c1", progress=lambda _done: None).findings)
        except RepositoryError as error:
            yield f"verify: {error}"


def kinds(objects: Objects) -> set[str]:
    return {name.partition("/")[0] for name in objects}


def test_a_sound_repository_gives_no_complaint(directory: Path, sound: Objects) -> None:
    assert kinds(sound) == {"format", "recipients", "packs", "index", "copies", "images"}
    assert sum(name.startswith("packs/") for name in sound) >= 2
    assert list(complaints(directory, sound, "sound")) == []


def test_a_flipped_bit_anywhere_is_noticed(directory: Path, sound: Objects) -> None:
    for number, name in enumerate(sorted(sound)):
        content, modified = sound[name]
        places = {0, 5, 20, len(content) - 1, len(content) - 10, len(content) - 14}
        places |= set(RANDOM.sample(range(len(content)), min(len(content), PLACES_PER_OBJECT)))
        for at in sorted(place for place in places if 0 <= place < len(content)):
            changed = bytearray(content)
            changed[at] ^= 1 << RANDOM.randrange(8)
            state = f"flip-{number}-{at}"
            assert list(complaints(directory, {**sound, name: (bytes(changed), modified)}, state)), f"{name}, byte {at}"


def test_an_object_cut_short_is_noticed(directory: Path, sound: Objects) -> None:
    for number, name in enumerate(sorted(sound)):
        content, modified = sound[name]
        for at in {0, 1, len(content) // 2, len(content) - 1}:
            state = f"cut-{number}-{at}"
            assert list(complaints(directory, {**sound, name: (content[:at], modified)}, state)), f"{name}, byte {at}"


def test_a_missing_object_is_noticed(directory: Path, sound: Objects) -> None:
    for number, name in enumerate(sorted(sound)):
        if name == "format":
            continue  # without it there is no repository
        without = {each: sound[each] for each in sound if each != name}
        noticed = list(complaints(directory, without, f"missing-{number}"))
        # An index is a shortcut: what it says is in the packs.
        assert bool(noticed) is not name.startswith("index/"), f"{name}: {noticed}"


def test_swapped_objects_are_noticed(directory: Path, sound: Objects) -> None:
    names = sorted(sound)
    for number, (one, other) in enumerate(zip(names, names[1:] + names[:1], strict=True)):
        swapped = {**sound, one: sound[other], other: sound[one]}
        assert list(complaints(directory, swapped, f"swapped-{number}")), f"{one} and {other}"


def test_another_key_opens_nothing(tmp_path: Path, directory: Path, sound: Objects) -> None:
    with pytest.raises(WrongKey, match="recipient"):
        opened(tmp_path, sound, state="stranger")
    stranger = RecipientKey.load_or_create(tmp_path / "recipient.key").public.hex()
    (name,) = [name for name in sound if name.startswith("recipients/")]
    forged = {**sound, f"{name.rpartition('/')[0]}/{stranger}": sound[name]}
    with pytest.raises(CorruptObject):
        opened(tmp_path, forged, state="stranger")


def test_a_recipient_that_was_named_can_open_it(tmp_path: Path, directory: Path, sound: Objects) -> None:
    friend = RecipientKey.load_or_create(tmp_path / "recipient.key").public.hex()
    there = MemoryObjects()
    there.objects = dict(sound)
    options = Options(recipient_key=directory / "recipient.key", recipients=(friend,))
    Repository.open(MemoryStore(there), state=directory / "again", options=options).close()
    assert list(complaints(tmp_path, there.objects, "friend")) == []


def test_nothing_readable_of_the_data_lies_in_the_store(tmp_path: Path) -> None:
    there = MemoryObjects()
    text = b"a sentence that nobody but the recipients may read. " * 20
    with Repository.open(MemoryStore(there), state=tmp_path / "state") as repository:
        copy = repository.open_write("c1", CopyInfo(source={"instance_name": "payroll"}))
        write_entries(copy, "entries", [("salaries/2024", {"content-type": "text/csv"}, text)])
        repository.commit("c1")
    everything = b"".join(content for content, _ in there.objects.values())
    for secret in (b"sentence", b"salaries", b"text/csv", b"payroll"):
        assert secret not in everything
