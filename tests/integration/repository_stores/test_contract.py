"""What a repository relies on, whatever store it lies in (``brokers.repository.objects``)."""

from __future__ import annotations

import asyncio
import random

import pytest

from brokers.repository.objects import ObjectExists, ObjectMissing
from tests.integration.repository_stores.conftest import DURABLE, OpenShelf
from tests.integration.repository_stores.stores import Shelf

MIB = 1 << 20
CLOCK_SECONDS = 1.5
"""Some stores keep whole seconds."""


async def test_what_is_put_is_read(shelf: Shelf) -> None:
    await shelf.put("packs/one", b"content")

    assert await shelf.read("packs/one") == b"content"
    found = await shelf.look("packs/one")
    assert found is not None
    assert (found.name, found.size) == ("packs/one", 7)


async def test_what_is_not_there_is_missing(shelf: Shelf) -> None:
    assert await shelf.look("nothing") is None
    for length in (None, 0, 10):
        with pytest.raises(ObjectMissing):
            await shelf.read("nothing", length=length)
    assert await shelf.names() == []
    await shelf.delete("nothing")


async def test_a_put_that_comes_again_changes_nothing(shelf: Shelf) -> None:
    await shelf.put("a", b"same")
    before = await shelf.look("a")

    await shelf.put("a", memoryview(b"same"))

    assert await shelf.look("a") == before


@pytest.mark.parametrize("other", [b"else", b"longer content", b""])
async def test_other_content_under_a_name_is_refused(shelf: Shelf, other: bytes) -> None:
    await shelf.put("a", b"kept")

    with pytest.raises(ObjectExists):
        await shelf.put("a", other)

    assert await shelf.read("a") == b"kept"


async def test_an_object_may_be_empty(shelf: Shelf) -> None:
    await shelf.put("empty", b"")

    assert await shelf.read("empty") == b""
    assert await shelf.read("empty", offset=3, length=5) == b""
    found = await shelf.look("empty")
    assert found is not None
    assert found.size == 0
    await shelf.put("empty", b"")
    with pytest.raises(ObjectExists):
        await shelf.put("empty", b"x")


async def test_ranges(shelf: Shelf) -> None:
    content = bytes(range(200))
    await shelf.put("r", content)

    for offset, length in ((0, 10), (50, 1), (190, 10), (190, 50), (0, None), (7, None), (199, None), (0, 0), (5, 0)):
        end = None if length is None else offset + length
        assert await shelf.read("r", offset=offset, length=length) == content[offset:end], (offset, length)
    for offset, length in ((200, 1), (200, None), (5000, 10), (5000, 0)):
        assert await shelf.read("r", offset=offset, length=length) == b"", (offset, length)


async def test_a_listing_is_ordered_by_name_and_by_prefix(shelf: Shelf) -> None:
    names = ["z", "a/b", "a-b", "a.b", "a_b", "aB", "a/b.c/d-e/F_g/0", "Z", "0", "a/" + "n" * 198, "a..", "-"]
    for name in names:
        await shelf.put(name, name.encode())

    assert await shelf.names() == sorted(names)
    assert await shelf.names("a") == sorted(name for name in names if name.startswith("a"))
    assert await shelf.names("a/") == sorted(name for name in names if name.startswith("a/"))
    assert await shelf.names("a/b.c") == ["a/b.c/d-e/F_g/0"]
    assert await shelf.names("b") == []
    assert {each.name: each.size for each in await shelf.listing()} == {name: len(name) for name in names}
    for name in names:
        assert await shelf.read(name) == name.encode()


@pytest.mark.full
async def test_a_listing_of_many(shelf: Shelf) -> None:
    names = [f"many/{number:05}" for number in range(1050)]
    for start in range(0, len(names), 100):
        await asyncio.gather(*(shelf.put(name, b"x") for name in names[start : start + 100]))

    assert await shelf.names("many/") == names
    assert await shelf.names("many/001") == names[100:200]


async def test_what_is_deleted_is_gone_and_its_name_free(shelf: Shelf) -> None:
    await shelf.put("a", b"first")
    await shelf.put("b", b"other")

    await shelf.delete("a")
    await shelf.delete("a")

    assert await shelf.look("a") is None
    assert await shelf.names() == ["b"]
    await shelf.put("a", b"second")
    assert await shelf.read("a") == b"second"


async def test_deletes_of_neighbours_do_not_meet(shelf: Shelf) -> None:
    """What keeps objects in folders removes a folder with its last object, while another is deleted from it."""
    for round in range(30):
        names = [f"holds/writer/copy-{round}/{number}" for number in range(6)]
        await asyncio.gather(*(shelf.put(name, b"held") for name in names))
        await asyncio.gather(*(shelf.delete(name) for name in names))
    assert await shelf.names("holds/") == []


@pytest.mark.full
async def test_big_objects(shelf: Shelf) -> None:
    content = random.Random(7).randbytes(36 * MIB + 3)
    await shelf.put("packs/big", memoryview(content))

    assert await shelf.read("packs/big") == content
    for offset, length in ((MIB - 1, 2), (16 * MIB - 5, 10), (3, 20 * MIB), (36 * MIB, 100), (len(content) - 1, None)):
        end = None if length is None else offset + length
        assert await shelf.read("packs/big", offset=offset, length=length) == content[offset:end], (offset, length)
    await shelf.put("packs/big", content)
    with pytest.raises(ObjectExists):
        await shelf.put("packs/big", content[:-1] + b"?")
    assert await shelf.names() == ["packs/big"]


async def test_many_writers_of_one_object_agree(shelf: Shelf) -> None:
    await asyncio.gather(*(shelf.put("same", b"all say this") for _ in range(12)))

    assert await shelf.read("same") == b"all say this"


async def test_of_many_writers_with_other_contents_one_wins(shelf: Shelf) -> None:
    contents = [f"writer {number}".encode() * 1000 for number in range(12)]
    results = await asyncio.gather(*(shelf.put("fought", each) for each in contents), return_exceptions=True)

    won = [content for content, result in zip(contents, results, strict=True) if result is None]
    lost = [result for result in results if result is not None]
    assert len(won) == 1
    assert all(isinstance(result, ObjectExists) for result in lost), lost
    assert await shelf.read("fought") == won[0]


async def test_a_listing_beside_writers_holds_what_was_there_before(shelf: Shelf) -> None:
    before = [f"before/{number}" for number in range(60)]
    await asyncio.gather(*(shelf.put(name, b"x" * 100) for name in before))

    async def write() -> None:
        for number in range(60):
            await shelf.put(f"later/{number}", b"y" * 100)
            await shelf.delete(f"later/{number - 5}")

    writing = asyncio.create_task(write())
    while not writing.done():
        names = await shelf.names()
        assert names == sorted(set(names))
        assert [name for name in names if name.startswith("before/")] == sorted(before)
    await writing


async def test_a_reader_never_sees_half_an_object(shelf: Shelf) -> None:
    size = 24 * MIB
    writing = asyncio.create_task(shelf.put("packs/slow", bytes(size)))
    while not writing.done():
        found = await shelf.look("packs/slow")
        assert found is None or found.size == size
        assert all(each.size == size for each in await shelf.listing("packs/"))
    await writing


@pytest.mark.full
@pytest.mark.parametrize("after_seconds", [0.02, 0.15])
@pytest.mark.parametrize("kind", DURABLE, indirect=True)
async def test_a_put_that_was_torn_leaves_nothing_or_all(shelf: Shelf, after_seconds: float) -> None:
    size = 40 * MIB
    process = await shelf.begin_put_elsewhere("packs/torn", size=size)
    await asyncio.sleep(after_seconds)
    process.kill()
    await process.wait()

    found = await shelf.look("packs/torn")
    assert found is None or found.size == size
    assert await shelf.names() == ([] if found is None else ["packs/torn"])
    if found is None:
        with pytest.raises(ObjectMissing):
            await shelf.read("packs/torn", length=10)
    await shelf.put("packs/torn", bytes(size))
    assert await shelf.read("packs/torn", offset=size - 3) == bytes(3)


async def test_times_are_those_of_the_clock_of_the_store(shelf: Shelf) -> None:
    before = await shelf.now()
    await shelf.put("timed", b"x")
    after = await shelf.now()

    assert before <= after + CLOCK_SECONDS
    looked = await shelf.look("timed")
    assert looked is not None
    for modified in (looked.modified, (await shelf.listing("timed"))[0].modified):
        assert before - CLOCK_SECONDS <= modified <= after + CLOCK_SECONDS


async def test_two_stores_of_one_server_are_apart(open_shelf: OpenShelf) -> None:
    one, other = open_shelf(), open_shelf()
    await one.put("a", b"one")
    await other.put("a", b"other")
    await other.put("b", b"other")

    assert await one.names() == ["a"]
    await other.delete("a")
    assert await one.read("a") == b"one"


@pytest.mark.parametrize("kind", DURABLE, indirect=True)
async def test_what_a_closed_store_kept_is_there_for_the_next(shelf: Shelf) -> None:
    await shelf.put("a", b"kept")
    await asyncio.to_thread(shelf.close)

    again = Shelf(shelf.kind, shelf.settings)
    try:
        assert await again.read("a") == b"kept"
    finally:
        await asyncio.to_thread(again.close)
