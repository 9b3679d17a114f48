"""Format 1: whatever of a repository is changed, cut short, lost or swapped is noticed by who reads it, named, and
never restored as sound. The kinds of objects come from the format's code: a new one without pieces here fails."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from brokers.repository.errors import CopyNotFound, CorruptPart, RepositoryError, WrongKey
from brokers.repository.format1.keyring import RecipientKey
from brokers.repository.format1.kinds import Kind, kind_of
from brokers.repository.format1.repository import Repository
from brokers.repository.manifest import CopyInfo
from tests.unit.repository.copies import memory_disk, read_entries, read_part, write_entries
from tests.unit.repository.damage import (
    DUMPS,
    ENTRIES,
    IMAGES,
    PIECES,
    Damaged,
    Objects,
    Written,
    everything,
    opened,
    pieces_of,
    store_of,
    written,
)
from tests.unit.repository.memory_store import MemoryObjects, MemoryStore

DOCUMENT = Path(__file__).parents[3] / "docs" / "repository-format.md"


class Seen(NamedTuple):
    """What somebody was told who opened a repository and looked at all of it."""

    opening: tuple[str, ...] = ()
    learning: tuple[str, ...] = ()
    listing: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()
    structure: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    collecting: tuple[str, ...] = ()

    def by(self) -> set[str]:
        return {name for name, told in zip(self._fields, self, strict=True) if told}


def look(directory: Path, objects: Objects, *, state: str) -> Seen:
    """Looks at everything. What can be read is what was written."""
    there = store_of(objects)
    try:
        repository = opened(directory, there, state=state)
    except RepositoryError as error:
        return Seen(opening=(str(error),))
    with repository:
        learning = tuple(repository.learn())
        listed = {each.copy: each for each in repository.copies()}
        listing = [each.problem for each in listed.values() if each.problem]
        listing += [f"copy {copy} is not there" for copy in DUMPS if copy not in listed]
        images = {each.image: each for each in repository.images()}
        told = [each.problem for each in images.values() if each.problem]
        told += [f"image {image} is not there" for image in IMAGES if image not in images]
        assert all(each.content == IMAGES[each.image] for each in images.values() if not each.problem)
        reading, structure, everything_read = [], [], []
        for copy, dump in DUMPS.items():
            reading += trouble(functools.partial(read_back, repository, copy, dump))
            structure += verified(repository, copy, whole=False)
            everything_read += verified(repository, copy, whole=True)
        blocked = repository.collect().blocked
        # What was collected was needed by nobody, as far as anybody could have known.
        after = [*trouble(lambda: [read_part(repository, copy, "dump") for copy in DUMPS])]
        assert bool(after) <= bool(everything_read), after
    return Seen(
        (),
        learning,
        tuple(listing),
        tuple(told),
        tuple(reading),
        tuple(structure),
        tuple(everything_read),
        (blocked,) if blocked else (),
    )


def trouble(act: Callable[[], object]) -> list[str]:
    """What the repository said of it; any other error is one."""
    try:
        act()
    except RepositoryError as error:
        return [str(error)]
    return []


def read_back(repository: Repository, copy: str, dump: bytes) -> None:
    """Reads a copy; it is what was written, or an error."""
    problems = trouble(lambda: equal(read_part(repository, copy, "dump"), dump))
    equal(read_entries(repository, copy, "entries"), ENTRIES)
    if problems:
        raise CorruptPart(problems[0])


def equal(found: object, expected: object) -> None:
    assert found == expected


def verified(repository: Repository, copy: str, *, whole: bool) -> list[str]:
    try:
        depth = "all" if whole else "structure"
        return [each.message for each in repository.verify(copy, depth=depth, progress=lambda _done: None).findings]  # type: ignore[arg-type]
    except RepositoryError as error:
        return [str(error)]


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=memory_disk()) as found:
        yield Path(found)


@pytest.fixture(scope="module")
def friend(directory: Path) -> Path:
    found = directory / "friend"
    found.mkdir()
    return found


@pytest.fixture(scope="module")
def whole(directory: Path, friend: Path) -> Written:
    """A repository with some of each kind."""
    return written(directory, friend=RecipientKey.load_or_create(friend / "recipient.key").public.hex())


@pytest.fixture(scope="module")
def sound(whole: Written) -> Objects:
    return whole.objects


@pytest.fixture(scope="module")
def foreign(directory: Path) -> Objects:
    """One of the same shape with other keys."""
    elsewhere = directory / "foreign"
    elsewhere.mkdir()
    return written(elsewhere, friend=RecipientKey.load_or_create(elsewhere / "friend.key").public.hex()).objects


def test_every_kind_has_its_pieces_and_stands_in_the_document(sound: Objects) -> None:
    assert PIECES.keys() == set(Kind)
    assert {kind_of(name) for name in sound} == set(Kind)
    document = DOCUMENT.read_text()
    assert all(f"| `{kind.value}" in document for kind in Kind)


def test_pieces_cover_their_objects(sound: Objects) -> None:
    for name, content in sound.items():
        kind = kind_of(name)
        assert kind is not None
        ends = [0]
        for begin, end in pieces_of(kind, content).values():
            assert kind is Kind.FORMAT or begin == ends[-1], name
            ends.append(end)
        assert ends[-1] == len(content), name


def test_a_sound_repository_gives_no_complaint(directory: Path, sound: Objects) -> None:
    assert look(directory, sound, state="sound").by() == set()


NOTICED: dict[Kind, tuple[set[str], ...]] = {
    Kind.FORMAT: ({"opening"},),
    Kind.RECIPIENT: ({"opening"},),
    Kind.PACK: (
        {"reading", "all"},
        {"structure", "all"},
        {"learning", "structure", "all"},
        {"learning", "reading", "structure", "all"},
        {"reading", "structure", "all"},
    ),
    Kind.INDEX: ({"learning"},),
    Kind.COMMIT: ({"listing", "reading", "structure", "all", "collecting"},),
    Kind.IMAGE: ({"images"},),
    Kind.HOLD: ({"collecting"},),
    Kind.MARK: (set(),),
    Kind.GONE: (set(),),
}
"""Who notices damage of an object of the kind: one of these sets."""


def test_all_damage_is_noticed_by_who_reads_it_and_named(directory: Path, whole: Written, foreign: Objects) -> None:
    own = RecipientKey.load_or_create(directory / "recipient.key").public.hex()
    done: Counter[Kind] = Counter()
    for number, damaged in enumerate(everything(whole.objects, foreign)):
        if damaged.kind is Kind.RECIPIENT and not damaged.name.endswith(own):
            continue  # read by its own recipient only, see below
        seen = look(directory, damaged.objects, state=f"damage-{number}")
        judge(whole, damaged, seen)
        done[damaged.kind] += 1
        shutil.rmtree(directory / f"damage-{number}")
    assert all(done[kind] >= 5 for kind in Kind), done


def judge(whole: Written, damaged: Damaged, seen: Seen) -> None:
    """Whether what was told is what should have been."""
    told = f"{damaged.name}: {damaged.what}: {seen}"
    gone = damaged.what == "gone"
    if gone and damaged.kind in (Kind.INDEX, Kind.HOLD):
        # A shortcut, which the packs make good; and what only its writer misses, who looks before it commits.
        assert seen.by() == set(), told
        return
    if gone and damaged.kind is Kind.FORMAT:
        return  # a store without it holds no repository
    if gone and damaged.kind is Kind.COMMIT:
        assert seen.by() == {"listing", "reading", "structure", "all"}, told
    elif damaged.kind is Kind.PACK and damaged.name not in whole.needed:
        assert seen.by() <= {"learning"}, told
    else:
        assert seen.by() in NOTICED[damaged.kind], told
    for messages in seen:
        for message in messages:
            assert any(each in message for each in names_of(damaged)), f"{told}: {message!r} names nothing of it"


def names_of(damaged: Damaged) -> list[str]:
    """What an error may call it."""
    parts = damaged.name.split("/")
    if damaged.kind is Kind.FORMAT:
        return ["object format", "repository"]
    if damaged.kind is Kind.RECIPIENT:
        return [damaged.name, parts[-1], "recipients/"]
    if damaged.kind is Kind.PACK:
        return [parts[1], "chunk "]
    if damaged.kind in (Kind.COMMIT, Kind.IMAGE):
        return [damaged.name, f"copy {parts[1]}", f"image {parts[1]}"]
    return [damaged.name]


def test_another_recipients_object_is_noticed_by_that_one(
    directory: Path, friend: Path, sound: Objects, foreign: Objects
) -> None:
    theirs = RecipientKey.load_or_create(friend / "recipient.key").public.hex()
    (name,) = [each for each in sound if each.endswith(theirs)]
    number = 0
    for number, damaged in enumerate(everything(sound, foreign)):
        if damaged.name == name:
            assert look(friend, damaged.objects, state=f"damage-{number}").by() == {"opening"}, damaged.what
    assert look(friend, sound, state="sound").by() == set()
    assert number


def test_who_had_it_open_before_restores_nothing_that_is_damaged(
    directory: Path, whole: Written, foreign: Objects
) -> None:
    """What a process remembers of a repository does not hide what is wrong with it now."""
    with opened(directory, store_of(whole.objects), state="before") as repository:
        list(repository.copies())
    for number, damaged in enumerate(everything(whole.objects, foreign)):
        needed = damaged.kind is Kind.COMMIT or damaged.name in whole.needed
        if not needed or ("byte" in damaged.what and number % 3):
            continue
        state = f"remembers-{number}"
        shutil.copytree(directory / "before", directory / state)
        seen = look(directory, damaged.objects, state=state)
        assert seen.all, f"{damaged.name}: {damaged.what}: {seen}"
        shutil.rmtree(directory / state)


def test_what_others_put_beside_it_stops_nothing(directory: Path, sound: Objects) -> None:
    strays = {f"{kind.value}README.txt": b"hello" for kind in (Kind.PACK, Kind.MARK, Kind.INDEX)}
    seen = look(directory, {**sound, **strays}, state="strays")
    assert seen.by() == {"learning"}
    assert len(seen.learning) == 2  # a mark of no pack is passed over
    assert all("README.txt" in each for each in seen.learning)


def test_another_key_opens_nothing(tmp_path: Path, sound: Objects) -> None:
    with pytest.raises(WrongKey, match="recipient"):
        opened(tmp_path, store_of(sound), state="stranger")
    stranger = RecipientKey.load_or_create(tmp_path / "recipient.key").public.hex()
    name = next(each for each in sound if kind_of(each) is Kind.RECIPIENT)
    forged = {**sound, f"{name.rpartition('/')[0]}/{stranger}": sound[name]}
    (told,) = look(tmp_path, forged, state="stranger").opening
    assert stranger in told


def test_nothing_readable_of_the_data_lies_in_the_store(tmp_path: Path) -> None:
    there = MemoryObjects()
    text = b"a sentence that nobody but the recipients may read. " * 20
    with Repository.open(MemoryStore(there), state=tmp_path / "state") as repository:
        copy = repository.open_write("c1", CopyInfo(source={"instance_name": "payroll"}))
        write_entries(copy, "entries", [("salaries/2024", {"content-type": "text/csv"}, text)])
        repository.commit("c1")
    everything_there = b"".join(content for content, _ in there.objects.values())
    for secret in (b"sentence", b"salaries", b"text/csv", b"payroll"):
        assert secret not in everything_there
    with pytest.raises(CopyNotFound):
        opened(tmp_path, MemoryObjects(), state="empty").committed("c1")
