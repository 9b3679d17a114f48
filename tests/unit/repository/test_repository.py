"""What a user of a repository sees: copies appear whole, are shared, deleted, collected, and damage is noticed."""

import random
import threading
from pathlib import Path

import msgspec
import pytest

from brokers.filesystem.format0.maintenance import collect, stats, verify
from brokers.filesystem.format0.repository import Repository
from brokers.repository.errors import (
    AlreadyCommitted,
    Conflict,
    CopyNotFound,
    CorruptChunk,
    CorruptManifest,
    CorruptPart,
    IncompleteCopy,
    InvalidName,
    InvalidPart,
    RepositoryBusy,
    UnknownFormat,
)
from brokers.repository.manifest import CopyInfo, parse
from brokers.sdk.frames import Layout
from tests.unit.repository.copies import (
    begin,
    entries_body,
    listed,
    open_repository,
    read_part,
    write_copy,
    write_entries,
    write_part,
)

RANDOM = random.Random(5)
DUMP = RANDOM.randbytes(3_000_000)


def test_a_copy_is_listed_only_when_it_is_committed(repository: Repository) -> None:
    opened = repository.open_write("c1", CopyInfo(data_class="personal", attributes={"format": "pg_dump"}))
    write_part(opened, "dump", DUMP)
    assert listed(repository) == []
    with pytest.raises(CopyNotFound):
        repository.part("c1", "dump")
    committed = repository.commit("c1")
    assert listed(repository) == ["c1"]
    assert committed.manifest.attributes == {"format": "pg_dump"}
    assert repository.commit("c1") == committed
    with pytest.raises(AlreadyCommitted):
        repository.open_write("c1", CopyInfo())
    with pytest.raises(Conflict):
        repository.abort("c1")


def test_opening_again_joins_and_refuses_other_particulars(repository: Repository) -> None:
    first = repository.open_write("c1", CopyInfo())
    assert repository.open_write("c1", CopyInfo()) is first
    with pytest.raises(Conflict):
        repository.open_write("c1", CopyInfo(data_class="public"))
    begin(first, "dump")
    with pytest.raises(RepositoryBusy, match="part dump"):
        begin(first, "dump")
    with pytest.raises(RepositoryBusy):
        repository.commit("c1")


def test_what_was_written_before_a_restart_is_not_written_again(tmp_path: Path) -> None:
    with open_repository(tmp_path) as repository:
        write_part(repository.open_write("c1", CopyInfo()), "dump", DUMP)
    with open_repository(tmp_path) as repository:
        assert list(repository.writing("c1").sealed()) == ["dump"]
        assert repository.commit("c1").manifest.logical_bytes == len(DUMP)


def test_one_process_holds_a_repository(tmp_path: Path) -> None:
    with open_repository(tmp_path), pytest.raises(RepositoryBusy):
        open_repository(tmp_path)
    with open_repository(tmp_path):
        pass


def test_another_format_is_refused(tmp_path: Path) -> None:
    open_repository(tmp_path).close()
    (tmp_path / "repository" / "format").write_text('{"format":1,"id":"x"}')
    with pytest.raises(UnknownFormat, match="format 1"):
        open_repository(tmp_path)


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "x" * 129, "a\n", ".hidden"])
def test_names_that_are_no_file_names(repository: Repository, name: str) -> None:
    with pytest.raises(InvalidName):
        repository.open_write(name, CopyInfo())
    with pytest.raises(InvalidName):
        begin(repository.open_write("c1", CopyInfo()), name)


def test_copies_share_chunks_and_deletion_keeps_what_others_need(repository: Repository) -> None:
    write_copy(repository, "c1", dump=DUMP)
    alone = stats(repository).stored_bytes
    write_copy(repository, "c2", dump=DUMP[:1_500_000] + b"changed" + DUMP[1_500_000:], more=b"more")
    assert stats(repository).stored_bytes < alone * 1.6
    assert repository.delete("c1")
    assert not repository.delete("c1")
    assert listed(repository) == ["c2"]
    assert collect(repository).chunks > 0
    assert verify(repository, "c2").sound
    repository.delete("c2")
    collect(repository)
    assert stats(repository).stored_bytes == 0
    assert not list((repository.directory / "copies").iterdir())


def test_collecting_beside_a_writer_that_shares_chunks(repository: Repository) -> None:
    write_copy(repository, "c1", dump=DUMP)
    opened = repository.open_write("c2", CopyInfo())
    writer = begin(opened, "dump")
    writer.feed(DUMP)
    repository.delete("c1")
    collect(repository)
    opened.seal_part(writer.seal())
    opened.end_part("dump")
    repository.commit("c2")
    assert read_part(repository, "c2", "dump") == DUMP


def test_two_writers_and_a_collector_at_once(repository: Repository) -> None:
    failures: list[BaseException] = []
    done = threading.Event()

    def write(copy: str) -> None:
        try:
            for n in range(8):
                name = f"{copy}-{n}"
                write_copy(repository, name, dump=DUMP[: 400_000 * (n % 3 + 1)], same=b"same")
                assert verify(repository, name).sound
                if n % 2:
                    repository.delete(name)
        except BaseException as error:
            failures.append(error)

    def gather() -> None:
        try:
            while not done.is_set():
                collect(repository)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in ("x", "y")]
    collector = threading.Thread(target=gather)
    for thread in [*writers, collector]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    collector.join()
    assert failures == []
    assert len(listed(repository)) == 8
    assert all(verify(repository, copy).sound for copy in listed(repository))


def test_an_aborted_copy_leaves_nothing(repository: Repository) -> None:
    opened = repository.open_write("c1", CopyInfo())
    write_part(opened, "dump", DUMP)
    repository.abort("c1")
    repository.abort("c1")
    assert not list((repository.directory / "staging").iterdir())
    assert stats(repository).chunks == 0
    with pytest.raises(CopyNotFound):
        repository.commit("c1")
    with pytest.raises(Conflict):
        begin(opened, "dump")


def test_a_copy_without_parts_is_no_copy(repository: Repository) -> None:
    repository.open_write("c1", CopyInfo())
    with pytest.raises(IncompleteCopy):
        repository.commit("c1")


def test_a_framed_body_that_contradicts_itself_is_refused(repository: Repository) -> None:
    body = entries_body([("a", {}, b"0123456789")])
    opened = repository.open_write("c1", CopyInfo())
    for broken in (body[:-1], body.replace(b"0123456789", b"0123456780"), body[:-40] + body, b"\xff" + body):
        writer = begin(opened, "entries", layout=Layout.ENTRIES, framed=True)
        with pytest.raises(InvalidPart, match="c1, part entries"):
            _feed_and_seal(writer.feed, writer.seal, broken)
        opened.end_part("entries")
    assert opened.sealed() == {}


def _feed_and_seal(feed: object, seal: object, body: bytes) -> None:
    assert callable(feed)
    assert callable(seal)
    feed(body)
    seal()


def test_every_flipped_bit_of_a_manifest_is_noticed(repository: Repository) -> None:
    committed = write_copy(repository, "c1", dump=b"small", info=CopyInfo(attributes={"a": 1.5, "b": None}))
    for at in range(len(committed.raw)):
        for bit in (1, 4, 32):
            changed = bytearray(committed.raw)
            changed[at] ^= bit
            with pytest.raises(CorruptManifest):
                parse(bytes(changed), copy="c1")
    with pytest.raises(CorruptManifest, match="copy c2"):
        parse(committed.raw, copy="c2")
    for cut in range(0, len(committed.raw), 7):
        with pytest.raises(CorruptManifest):
            parse(committed.raw[:cut], copy="c1")


def test_a_damaged_manifest_is_listed_with_its_problem_and_stops_the_collector(repository: Repository) -> None:
    write_copy(repository, "c1", dump=b"small")
    write_copy(repository, "c2", dump=DUMP)
    path = repository.copy_directory("c1") / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"size":5', b'"size":6'))
    problems = {found.copy: found.problem for found in repository.copies()}
    assert problems["c2"] is None
    assert "c1" in str(problems["c1"])
    repository.delete("c2")
    found = collect(repository)
    assert found.chunks == 0
    assert "c1" in str(found.blocked)


@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "swap", "missing"])
def test_a_damaged_chunk_is_named(repository: Repository, damage: str) -> None:
    committed = write_copy(repository, "c1", dump=DUMP, other=b"other")
    refs = committed.manifest.parts[0].chunks
    assert refs is not None
    path = repository.chunks.path(refs[1].digest)
    stored = bytearray(path.read_bytes())
    if damage == "flip":
        stored[len(stored) // 2] ^= 16
    elif damage == "truncate":
        del stored[-3:]
    elif damage == "extend":
        stored += b"\x00"
    elif damage == "swap":
        stored = bytearray(repository.chunks.path(refs[2].digest).read_bytes())
    path.unlink()
    if damage != "missing":
        path.write_bytes(stored)
    with pytest.raises(CorruptChunk, match=f"copy c1, part dump, chunk {refs[1].digest}"):
        read_part(repository, "c1", "dump")
    found = verify(repository, "c1")
    assert [(finding.part, finding.chunk) for finding in found.findings] == [("dump", refs[1].digest)]
    assert read_part(repository, "c1", "other") == b"other"


def test_a_damaged_chunk_is_healed_by_the_next_writer_of_its_bytes(repository: Repository) -> None:
    refs = write_copy(repository, "c1", dump=DUMP).manifest.parts[0].chunks
    assert refs is not None
    path = repository.chunks.path(refs[0].digest)
    path.write_bytes(path.read_bytes()[:-1])
    assert not verify(repository, "c1").sound
    assert not path.exists()
    write_copy(repository, "c2", dump=DUMP)
    assert verify(repository, "c1").sound


def test_flipped_bytes_of_a_chunk_never_give_other_bytes(repository: Repository) -> None:
    data = b"the quick brown fox " * 30
    committed = write_copy(repository, "c1", dump=data)
    refs = committed.manifest.parts[0].chunks
    assert refs is not None
    path = repository.chunks.path(refs[0].digest)
    stored = path.read_bytes()
    noticed = 0
    for at in range(len(stored)):
        changed = bytearray(stored)
        changed[at] ^= 0x55
        path.write_bytes(changed)
        try:
            assert read_part(repository, "c1", "dump") == data
        except CorruptChunk:
            noticed += 1
    assert noticed > len(stored) * 0.9


def test_sound_chunks_in_a_wrong_order_are_no_sound_part(repository: Repository) -> None:
    committed = write_copy(repository, "c1", dump=DUMP)
    part = committed.manifest.parts[0]
    assert part.chunks is not None
    swapped = msgspec.structs.replace(part, chunks=(part.chunks[1], part.chunks[0], *part.chunks[2:]))
    with pytest.raises(CorruptPart, match="c1, part dump"):
        list(repository.read_part("c1", swapped))


def test_many_entries_have_an_index_and_share_chunks(repository: Repository) -> None:
    entries = [(f"key-{n}", {"n": str(n)}, RANDOM.randbytes(50)) for n in range(4000)]
    first = write_entries(repository.open_write("c1", CopyInfo()), "objects", entries)
    repository.commit("c1")
    assert first.entries == 4000
    assert len(repository.committed("c1").raw) < 5000
    before = stats(repository).chunks
    entries[2000] = ("key-2000", {}, b"changed")
    write_entries(repository.open_write("c2", CopyInfo()), "objects", entries)
    repository.commit("c2")
    assert stats(repository).chunks - before < 10
    assert verify(repository, "c2").sound
