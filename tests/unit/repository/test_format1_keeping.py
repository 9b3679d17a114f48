"""Format 1: what is dead inside packs is freed, what can be repaired is, and what can't is named."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers.repository.errors import CorruptChunk
from brokers.repository.format1.packs import pack_name
from brokers.repository.format1.repository import Options, Repository
from brokers.repository.manifest import CopyInfo
from brokers.repository.opened import Repaired
from schemas.values import ImageContent
from tests.unit.repository.copies import listed, read_part, write_copy, write_entries, write_part
from tests.unit.repository.memory_store import MemoryObjects, MemoryStore

RANDOM = random.Random(4)
SMALL = [RANDOM.randbytes(40_000) for _ in range(10)]


@pytest.fixture
def there() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def repository(tmp_path: Path, there: MemoryObjects) -> Iterator[Repository]:
    with opened(tmp_path, there) as found:
        yield found


def opened(directory: Path, there: MemoryObjects, *, state: str = "state") -> Repository:
    options = Options(recipient_key=directory / "recipient.key")
    return Repository.open(MemoryStore(there), state=directory / state, options=options)


def packs(there: MemoryObjects) -> list[str]:
    return sorted(name for name in there.objects if name.startswith("packs/"))


def flip(there: MemoryObjects, name: str, at: int) -> None:
    content, modified = there.objects[name]
    changed = bytearray(content)
    changed[at] ^= 4
    there.objects[name] = (bytes(changed), modified)


def write_in_one_pack(repository: Repository, copy: str, pieces: list[bytes]) -> None:
    opened = repository.open_write(copy, CopyInfo())
    write_entries(opened, "entries", [(str(at), {}, data) for at, data in enumerate(pieces)])
    repository.commit(copy)


def test_a_mostly_dead_pack_is_written_anew(repository: Repository, there: MemoryObjects) -> None:
    write_in_one_pack(repository, "big", SMALL)
    write_copy(repository, "c2", dump=SMALL[0])
    assert len(packs(there)) == 1
    before = sum(len(there.objects[name][0]) for name in packs(there))
    raw = repository.committed("c2").raw
    repository.delete("big")
    assert repository.collect().chunks == 0
    freed = repository.collect(compact=True)
    assert freed.blocked is None
    assert freed.freed_bytes == before
    assert sum(len(there.objects[name][0]) for name in packs(there)) < before / 5
    assert read_part(repository, "c2", "dump") == SMALL[0]
    assert repository.committed("c2").raw == raw
    assert repository.verify("c2", progress=lambda _done: None).sound
    assert repository.collect(compact=True).freed_bytes == 0
    assert len([name for name in there.objects if name.startswith("copies/")]) == 1


def test_a_copy_deleted_while_it_is_moved_stays_deleted(
    repository: Repository, there: MemoryObjects, tmp_path: Path
) -> None:
    write_in_one_pack(repository, "big", SMALL)
    write_copy(repository, "c2", dump=SMALL[0])
    repository.delete("big")
    with opened(tmp_path, there, state="other") as other:
        done: list[bool] = []

        def delete(call: str, name: str) -> None:
            if call == "put" and name.startswith("copies/c2") and not done:
                done.append(other.delete("c2"))

        assert isinstance(repository.objects, MemoryStore)
        repository.objects.hook = delete
        repository.collect(compact=True)
        assert done == [True]
        assert listed(other) == []


@pytest.mark.parametrize("step", ["put", "put after", "delete"])
def test_a_copy_deleted_while_a_compaction_that_crashes_moves_it_stays_deleted(
    repository: Repository, there: MemoryObjects, tmp_path: Path, step: str
) -> None:
    """Before the second commit object is put, after it, and before the first one is deleted."""
    write_in_one_pack(repository, "big", SMALL)
    write_copy(repository, "c2", dump=SMALL[0])
    repository.delete("big")
    with opened(tmp_path, there, state="other") as other:
        told: list[str] = []

        def deleted_and_crashed(call: str, name: str) -> None:
            if call == step and name.startswith("copies/c2") and not told:
                told.append(name)
                if step == "put":
                    assert other.delete("c2")
                    return
                assert other.delete("c2")
                raise KeyboardInterrupt

        assert isinstance(repository.objects, MemoryStore)
        repository.objects.hook = deleted_and_crashed
        if step == "put":
            repository.collect(compact=True)
        else:
            with pytest.raises(KeyboardInterrupt):
                repository.collect(compact=True)
        assert told
        repository.objects.hook = lambda _call, _name: None
        assert listed(other) == []
        assert other.collect().blocked is None
        assert other.collect().blocked is None
    with opened(tmp_path, there, state="fresh") as fresh:
        assert listed(fresh) == []
        # It may be brought here again, and be moved again.
        write_in_one_pack(fresh, "big", SMALL)
        write_copy(fresh, "c2", dump=SMALL[0])
        fresh.delete("big")
        assert fresh.collect(compact=True).freed_bytes > 0
        assert read_part(fresh, "c2", "dump") == SMALL[0]


def test_what_a_crashed_compaction_left_of_a_deleted_copy_goes_and_the_word_of_it_later(
    repository: Repository, there: MemoryObjects, tmp_path: Path
) -> None:
    write_in_one_pack(repository, "big", SMALL)
    write_copy(repository, "c2", dump=SMALL[0])
    repository.delete("big")
    with opened(tmp_path, there, state="other") as other:

        def crashed(call: str, name: str) -> None:
            if call == "put" and name.startswith("copies/c2"):
                # It listed what is there before the second one came.
                names = [each for each in there.objects if each.startswith("copies/c2/")]
                there.objects.update({f"gone/c2/{each[10:]}": (b"gone\n", there.clock) for each in names})
                for each in names:
                    del there.objects[each]
            if call == "put after" and name.startswith("copies/c2"):
                raise KeyboardInterrupt

        assert isinstance(repository.objects, MemoryStore)
        repository.objects.hook = crashed
        with pytest.raises(KeyboardInterrupt):
            repository.collect(compact=True)
        repository.objects.hook = lambda _call, _name: None
        (left,) = (name for name in there.objects if name.startswith("copies/"))
        assert listed(other) == []
        assert list(other.commits.all()) == []
        assert not other.commits.there("c2")
        other.collect()
        assert left not in there.objects
        assert any(name.startswith("gone/c2/") for name in there.objects)
        there.clock += 15 * 86400.0
        other.collect()
        assert not any(name.startswith("gone/") for name in there.objects)
        assert listed(other) == []


def test_damaged_and_lost_indexes_are_made_anew(repository: Repository, there: MemoryObjects, tmp_path: Path) -> None:
    for number in range(3):
        write_copy(repository, f"c{number}", dump=SMALL[number])
    one, other, _ = [name for name in there.objects if name.startswith("index/")]
    flip(there, one, 30)
    del there.objects[other]
    with opened(tmp_path, there, state="other") as fresh:
        assert fresh.repair() == Repaired(1)
        assert fresh.learn() == []
    indexed = {pack for packs in _indexed(tmp_path, there).values() for pack in packs}
    assert {pack_name(pack) for pack in indexed} == set(packs(there))


def _indexed(directory: Path, there: MemoryObjects) -> dict[str, set[bytes]]:
    with opened(directory, there, state="looking") as fresh:
        return fresh.catalog.loaded()


def test_a_copy_whose_chunks_lie_elsewhere_too_is_healed(
    repository: Repository, there: MemoryObjects, tmp_path: Path
) -> None:
    write_copy(repository, "c1", dump=SMALL[0])
    write_copy(repository, "lost", dump=SMALL[1])
    (first, second) = packs(there)
    for name in (first, second):
        flip(there, name, 100)
    assert not repository.verify("c1", progress=lambda _done: None).sound
    assert not repository.verify("lost", progress=lambda _done: None).sound
    # The same bytes come again, and are not taken for stored.
    write_copy(repository, "c2", dump=SMALL[0])
    assert read_part(repository, "c1", "dump") == SMALL[0]
    repaired = repository.repair(read_all=True)
    assert repaired.healed == ("c1",)
    assert len(repaired.damaged) == 1
    assert "lost" in repaired.damaged[0]
    repository.delete("c2")
    repository.collect()
    assert read_part(repository, "c1", "dump") == SMALL[0]
    assert repository.verify("c1", progress=lambda _done: None).sound
    with pytest.raises(CorruptChunk):
        read_part(repository, "lost", "dump")


def test_a_pack_with_a_damaged_end_is_written_anew(repository: Repository, there: MemoryObjects) -> None:
    write_copy(repository, "c1", dump=SMALL[0])
    (name,) = packs(there)
    flip(there, name, len(there.objects[name][0]) - 30)
    assert not repository.verify("c1", depth="structure", progress=lambda _done: None).sound
    assert repository.repair().healed == ("c1",)
    assert repository.verify("c1", progress=lambda _done: None).sound
    assert repository.repair() == Repaired()


def test_two_sites_share_one_store(repository: Repository, there: MemoryObjects, tmp_path: Path) -> None:
    with opened(tmp_path, there, state="other") as other:
        token = other.listing_token()
        write_copy(repository, "c1", dump=SMALL[0])
        repository.record_image(ImageContent(image="m1", site="north", level="crash", instances=()))
        assert other.listing_token() != token
        assert listed(other) == ["c1"]
        assert read_part(other, "c1", "dump") == SMALL[0]
        (image,) = other.images()
        assert image.signed_by == repository.public_key
        stored = len(packs(there))
        write_copy(other, "c2", dump=SMALL[0])
        assert len(packs(there)) == stored
        repository.delete("c1")
        repository.collect()
        assert read_part(other, "c2", "dump") == SMALL[0]
        token = other.listing_token()
        assert repository.listing_token() == token


def test_aborting_takes_back_what_was_written_and_no_more(repository: Repository, there: MemoryObjects) -> None:
    write_copy(repository, "c1", dump=SMALL[0])
    before = set(there.objects)
    opened = repository.open_write("c2", CopyInfo())
    write_part(opened, "dump", SMALL[0])
    write_part(opened, "more", SMALL[1])
    assert len(packs(there)) == 2
    repository.abort("c2")
    left = {name for name in set(there.objects) - before if not name.startswith("index/")}
    assert left == set()
    assert read_part(repository, "c1", "dump") == SMALL[0]


def test_an_image_is_replaced_and_forgotten(repository: Repository, there: MemoryObjects) -> None:
    for level in ("crash", "paused", "paused"):
        repository.record_image(ImageContent(image="m1", site="north", level=level, instances=()))
    (found,) = repository.images()
    assert found.content is not None
    assert found.content.level == "paused"
    assert len([name for name in there.objects if name.startswith("images/")]) == 1
    repository.forget_image("m1")
    repository.forget_image("m1")
    assert list(repository.images()) == []


def test_a_copy_is_committed_however_many_packs_with_its_chunks_are_about_to_go(
    tmp_path: Path, there: MemoryObjects
) -> None:
    for number in range(7):
        with opened(tmp_path, there) as writer:
            write_part(writer.open_write(f"c{number}", CopyInfo()), "dump", SMALL[0])
        if number < 6:
            # All but the last one are marked, as a collector does that saw them before they were needed.
            there.objects.update((f"doomed/{name.removeprefix('packs/')}", (b"doomed\n", 0.0)) for name in packs(there))
    assert len(packs(there)) == 7
    with opened(tmp_path, there) as again:
        again.commit("c6")
        assert read_part(again, "c6", "dump") == SMALL[0]
    assert len(packs(there)) == 7
