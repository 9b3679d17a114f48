"""What did not change since the copy before is not sent again: it is kept, by its key, and only from that copy."""

import random
import time
from collections.abc import AsyncIterator

import pytest

from brokers.repository.opened import CommittedCopy
from brokers.sdk.copystream import (
    CopyReader,
    CopyStreamError,
    CopyWriter,
    EntrySource,
    KeptEntry,
    KeptRange,
    KnownEntry,
)
from schemas.brokers import CopyGrant
from schemas.problems import Actor
from tests.integration.filesystem.site import Site, blocks

RANDOM = random.Random(11)
OLD = {f"dir/{n:03}": RANDOM.randbytes(RANDOM.choice([0, 10, 5000, 400_000])) for n in range(60)}


async def whole(entries: dict[str, bytes]) -> AsyncIterator[EntrySource | KeptEntry]:
    for key, data in entries.items():
        yield key, {"n": key[-1]}, len(data), blocks(data)


async def given(*entries: EntrySource | KeptEntry | KeptRange) -> AsyncIterator[EntrySource | KeptEntry | KeptRange]:
    for entry in entries:
        yield entry


async def write_first(site: Site, copy: str = "c1") -> CommittedCopy:
    await CopyWriter(site.open_write(copy)).write_entries("tree", whole(OLD))
    return site.repository.commit(copy)


async def known(grant: CopyGrant, part: str = "tree") -> list[KnownEntry]:
    return [entry async for entry in CopyWriter(grant).known(part)]


async def contents(site: Site, copy: str) -> dict[str, tuple[dict[str, str], bytes]]:
    reader = CopyReader(site.open_read(copy))
    return {
        head.key: (head.metadata, b"".join([bytes(block) async for block in data]))
        async for head, data in reader.read_entries("tree")
    }


def keep(entry: KnownEntry, *, of: str | None = None, key: str | None = None) -> KeptEntry:
    return KeptEntry(key or entry.key, {"kept": "yes"}, entry.size, entry.digest, of)


async def test_kept_entries_read_back_beside_new_ones(north: Site) -> None:
    await write_first(north)
    grant = north.open_write("c2", parent="c1")
    before = await known(grant)
    assert [entry.key for entry in before] == list(OLD)
    assert [(entry.size, entry.metadata) for entry in before] == [(len(OLD[e.key]), {"n": e.key[-1]}) for e in before]
    new = RANDOM.randbytes(300_000)

    async def source() -> AsyncIterator[EntrySource | KeptEntry]:
        for at, entry in enumerate(before):
            if at % 10 == 3:  # these were deleted
                continue
            if at % 10 == 5:  # these changed
                yield entry.key, {}, len(new), blocks(new)
            elif at % 10 == 7:  # and these go by another name
                yield keep(entry, of=entry.key, key=f"moved/{entry.key}")
            else:
                yield keep(entry)
        yield keep(before[1], of=before[1].key, key="again")  # one behind all others, for the second time
        yield keep(before[3], of=before[3].key, key="passed over")

    passed: list[int] = []
    stored = north.repository.stats().stored_bytes
    part = await CopyWriter(grant, progress=passed.append).write_entries("tree", source())
    assert sum(passed) == part.size
    committed = north.repository.commit("c2", info=None)
    assert north.repository.stats().stored_bytes - stored < 600_000
    found = await contents(north, "c2")
    expected: dict[str, tuple[dict[str, str], bytes]] = {}
    for at, entry in enumerate(before):
        if at % 10 == 5:
            expected[entry.key] = ({}, new)
        elif at % 10 == 7:
            expected[f"moved/{entry.key}"] = ({"kept": "yes"}, OLD[entry.key])
        elif at % 10 != 3:
            expected[entry.key] = ({"kept": "yes"}, OLD[entry.key])
    expected["again"] = ({"kept": "yes"}, OLD[before[1].key])
    expected["passed over"] = ({"kept": "yes"}, OLD[before[3].key])
    assert found == expected
    assert list(found) == [*expected]
    assert part.entries == len(expected) == (committed.parts[0].entries or 0)
    assert north.repository.verify("c2", progress=lambda _done: None).sound


async def test_a_copy_outlives_its_parent(north: Site) -> None:
    await write_first(north)
    grant = north.open_write("c2", parent="c1")
    before = await known(grant)
    await CopyWriter(grant).write_entries("tree", given(*map(keep, before)))
    # The parent goes before the commit: what was kept is held already.
    north.repository.delete("c1")
    north.repository.collect()
    north.repository.commit("c2")
    north.repository.collect()
    assert {key: data for key, (_, data) in (await contents(north, "c2")).items()} == OLD
    assert north.repository.verify("c2", progress=lambda _done: None).sound


async def test_a_parent_that_is_gone_is_a_temporary_problem_that_names_the_entry(north: Site) -> None:
    await write_first(north)
    grant = north.open_write("c2", parent="c1")
    before = await known(grant)
    north.repository.delete("c1")
    with pytest.raises(CopyStreamError, match=r"dir/000.*can't be kept") as caught:
        await CopyWriter(grant).write_entries("tree", given(*map(keep, before)))
    assert (caught.value.problem.code, caught.value.problem.temporary) == ("kept_gone", True)
    assert await known(grant) == []


async def test_a_lost_chunk_is_a_temporary_problem_that_names_the_entry(north: Site) -> None:
    committed = await write_first(north)
    grant = north.open_write("c2", parent="c1")
    before = await known(grant)
    lost = next(entry for entry in north.repository.entries("c1", committed.parts[0]) if entry.chunks)
    place = north.repository.catalog.places(bytes.fromhex(lost.chunks[0].digest))[0]
    north.repository.catalog.forget_chunk(bytes.fromhex(lost.chunks[0].digest), place.pack)
    path = north.directory / "repository" / "packs" / place.pack.hex()
    there = path.read_bytes()
    # What the trailer still says of it is no help either.
    path.write_bytes(there[:100])
    with pytest.raises(CopyStreamError, match=lost.key) as caught:
        await CopyWriter(grant).write_entries("tree", given(*map(keep, before)))
    assert caught.value.problem.code == "kept_gone"
    assert "c1" in north.endpoint.unfit


@pytest.mark.parametrize("wrong", ["digest", "size", "key"])
async def test_only_what_the_parent_holds_can_be_kept(north: Site, wrong: str) -> None:
    await write_first(north)
    await north.write_copy("other", tree=b"of somebody else")
    grant = north.open_write("c2", parent="c1")
    entry = (await known(grant))[1]
    asked = {
        "digest": KeptEntry(entry.key, {}, entry.size, "0" * 64),
        "size": KeptEntry(entry.key, {}, entry.size + 1, entry.digest),
        "key": KeptEntry("nowhere", {}, entry.size, entry.digest),
    }[wrong]
    with pytest.raises(CopyStreamError, match="can't be kept") as caught:
        await CopyWriter(grant).write_entries("tree", given(asked))
    assert caught.value.problem.actor is Actor.CALLER
    assert not (await north.settled("c2")).sealed()


async def test_without_a_parent_nothing_is_known_and_nothing_kept(north: Site) -> None:
    await write_first(north)
    grant = north.open_write("c2")
    assert await known(grant) == []
    assert [entry async for entry in CopyWriter(grant).known("tree")] == []
    digest = (await known(north.open_write("c3", parent="c1")))[0].digest
    with pytest.raises(CopyStreamError, match="the grant names none"):
        await CopyWriter(grant).write_entries("tree", given(KeptEntry("dir/000", {}, len(OLD["dir/000"]), digest)))


async def test_a_part_that_the_parent_lacks_is_unknown(north: Site) -> None:
    await write_first(north)
    await north.write("c1b", "dump", b"x")
    north.repository.commit("c1b")
    assert await known(north.open_write("c2", parent="c1"), "other") == []
    assert await known(north.open_write("c3", parent="c1b"), "dump") == []


@pytest.mark.full
async def test_fifty_thousand_entries_are_kept_at_little_cost(north: Site) -> None:
    count = 50_000
    body = b"y" * 100

    async def small() -> AsyncIterator[EntrySource]:
        for n in range(count):
            yield f"a/rather/long/path/of/a/file/{n:08}", {"mode": "33188", "mtime": "1700000000"}, 100, blocks(body)

    await CopyWriter(north.open_write("c1")).write_entries("tree", small())
    north.repository.commit("c1")
    grant = north.open_write("c2", parent="c1")
    begun, cpu = time.perf_counter(), time.process_time()
    before = await known(grant)
    read = time.perf_counter()
    part = await CopyWriter(grant).write_entries("tree", given(*map(keep, before)))
    written = time.perf_counter()
    north.repository.commit("c2")
    print(
        f"known {read - begun:.2f} s, kept {written - read:.2f} s, commit {time.perf_counter() - written:.2f} s,"
        f" cpu {time.process_time() - cpu:.2f} s"
    )
    assert part.entries == count


async def test_a_part_is_kept_whole(north: Site) -> None:
    first = await write_first(north)
    grant = north.open_write("c2", parent="c1")
    passed: list[int] = []
    part = await CopyWriter(grant, progress=passed.append).keep_part("tree")
    assert sum(passed) == part.size
    stored = north.repository.stats().stored_bytes
    second = north.repository.commit("c2")
    assert north.repository.stats().stored_bytes - stored < 10_000
    assert second.parts == first.parts
    north.repository.delete("c1")
    north.repository.collect(compact=True)
    assert {key: data for key, (_, data) in (await contents(north, "c2")).items()} == OLD


async def test_a_part_is_not_kept_whole_of_a_copy_that_lacks_it_or_is_gone(north: Site) -> None:
    await write_first(north)
    for copy, parent, name in (("c2", "c1", "other"), ("c3", "", "tree"), ("c4", "c1", "tree")):
        grant = north.open_write(copy, parent=parent)
        if copy == "c4":
            north.repository.delete("c1")
        with pytest.raises(CopyStreamError) as refused:
            await CopyWriter(grant).keep_part(name)
        assert (refused.value.problem.code, refused.value.problem.temporary) == ("kept_gone", True)
        assert north.repository.writing(copy).sealed() == {}


def sizes(first: int, count: int) -> int:
    return sum(len(data) for data in list(OLD.values())[first : first + count])


def kept_range(committed: CommittedCopy, first: int, count: int, *, size: int | None = None) -> KeptRange:
    (part,) = committed.manifest.parts
    return KeptRange(first, count, sizes(first, count) if size is None else size, part.digest)


async def test_ranges_of_the_parent_are_kept_by_number(north: Site) -> None:
    committed = await write_first(north)
    entries = given(
        kept_range(committed, 3, 20),
        ("new", {}, 3, blocks(b"new")),
        kept_range(committed, 23, 1),
        kept_range(committed, 40, 20),
        kept_range(committed, 0, 2),
    )
    part = await CopyWriter(north.open_write("c2", parent="c1")).write_entries("tree", entries)
    north.repository.commit("c2")
    expected = [list(OLD)[at] for at in (*range(3, 23), 23, *range(40, 60), 0, 1)]
    found = await contents(north, "c2")
    assert list(found) == [*expected[:20], "new", *expected[20:]]
    assert {key: data for key, (_, data) in found.items()} == {**{key: OLD[key] for key in expected}, "new": b"new"}
    assert part.entries == len(found)
    assert not north.repository.verify("c2", progress=lambda _: None).findings


async def test_a_range_that_is_not_the_parents_is_refused(north: Site) -> None:
    committed = await write_first(north)
    for wrong, code in (
        (kept_range(committed, 50, 11), "kept_gone"),
        (KeptRange(0, 1, sizes(0, 1), "0" * 64), "kept_gone"),
        (kept_range(committed, 0, 5, size=1), "invalid"),
        (kept_range(committed, -1, 5), "invalid"),
        (kept_range(committed, 0, 0), "invalid"),
    ):
        with pytest.raises(CopyStreamError) as caught:
            await CopyWriter(north.open_write("c2", parent="c1")).write_entries("tree", given(wrong))
        assert caught.value.problem.code == code, wrong
        await north.settled("c2")
    with pytest.raises(CopyStreamError) as caught:
        await CopyWriter(north.open_write("c3")).write_entries("tree", given(kept_range(committed, 0, 5)))
    assert caught.value.problem.code == "kept_gone"
