"""Format 1: chunks are encrypted where they will lie in their pack, by threads at once, also beyond its buffer."""

from __future__ import annotations

import random
from pathlib import Path

from brokers.repository.format1.repository import Options, Repository
from brokers.repository.manifest import CopyInfo
from tests.unit.repository.copies import Entry, read_entries, read_part, write_entries, write_part
from tests.unit.repository.memory_store import MemoryStore

RANDOM = random.Random(5)


def test_packs_of_chunks_of_any_size(tmp_path: Path) -> None:
    """Chunks that can't be compressed, and more of them than a pack's buffer was made for."""
    dump = RANDOM.randbytes(5_000_000) + bytes(1_500_000)
    entries: list[Entry] = [(str(at), {}, RANDOM.randbytes(RANDOM.choice([1, 5000, 140_000]))) for at in range(60)]
    with Repository.open(MemoryStore(), state=tmp_path, options=Options(pack_bytes=100_000)) as repository:
        copy = repository.open_write("c1", CopyInfo())
        write_part(copy, "dump", dump)
        write_entries(copy, "entries", entries)
        repository.commit("c1")
        assert read_part(repository, "c1", "dump") == dump
        assert read_entries(repository, "c1", "entries") == entries
        assert repository.verify("c1", progress=lambda _done: None).sound


def test_a_blob_beyond_the_buffer_of_its_pack(tmp_path: Path) -> None:
    dump = RANDOM.randbytes(600_000)
    with Repository.open(MemoryStore(), state=tmp_path, options=Options(pack_bytes=10_000_000)) as repository:
        copy = repository.open_write("c1", CopyInfo())
        workers = repository._writing._workers
        workers.give_back(bytearray(100))  # the next pack gets this one
        write_part(copy, "dump", dump)
        repository.commit("c1")
        assert read_part(repository, "c1", "dump") == dump
