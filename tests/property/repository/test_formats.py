"""Frames, chunks and parts, for any content."""

import contextlib
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.repository.chunking import MAX_BYTES, Chunker
from brokers.repository.manifest import CopyInfo, canonical, parse, seal
from brokers.sdk.frames import (
    Data,
    End,
    EntryBegin,
    EntryEnd,
    FrameDecoder,
    FrameError,
    Layout,
    StoredChunk,
    chunk_header,
    data_header,
    encode,
)
from tests.unit.repository.copies import (
    entries_body,
    open_repository,
    read_entries,
    read_part,
    write_entries,
    write_part,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ENTRIES = st.lists(st.tuples(TEXT, st.dictionaries(TEXT, TEXT, max_size=3), st.binary(max_size=300)), max_size=12)


def cut(body: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(body[at : at + size])
        at += size
    return [*pieces, body[at:]]


@given(ENTRIES, st.lists(st.integers(0, 50), max_size=60))
def test_frames_mean_the_same_in_any_pieces(entries: list[tuple[str, dict[str, str], bytes]], sizes: list[int]) -> None:
    body = entries_body(entries)
    decoder = FrameDecoder(Layout.ENTRIES)
    found: list[tuple[str, dict[str, str], bytes]] = []
    head: EntryBegin | None = None
    data = bytearray()
    for piece in cut(body, sizes):
        for event in decoder.feed(piece):
            if isinstance(event, EntryBegin):
                head, data = event, bytearray()
            elif isinstance(event, Data):
                data += event.data
            elif isinstance(event, EntryEnd):
                assert head is not None
                found.append((head.key, head.metadata, bytes(data)))
    decoder.finish()
    assert found == entries


@given(ENTRIES, st.data())
def test_a_body_cut_anywhere_is_no_body(entries: list[tuple[str, dict[str, str], bytes]], data: st.DataObject) -> None:
    body = entries_body(entries)
    decoder = FrameDecoder(Layout.ENTRIES)
    list(decoder.feed(body[: data.draw(st.integers(0, len(body) - 1))]))
    with pytest.raises(FrameError, match="cut short"):
        decoder.finish()


@given(st.binary(max_size=400), st.sampled_from(list(Layout)))
def test_any_bytes_are_frames_or_a_frame_error(body: bytes, layout: Layout) -> None:
    decoder = FrameDecoder(layout)
    with contextlib.suppress(FrameError):
        list(decoder.feed(body))
        decoder.finish()
        assert decoder.done


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.binary(max_size=100)), max_size=5))
def test_stored_chunks_pass_through(chunks: list[tuple[bytes, bytes]]) -> None:
    body = b"".join(chunk_header(digest, len(data)) + data for digest, data in chunks)
    events = list(FrameDecoder(Layout.CHUNKS).feed(body + encode(End(0, "", len(chunks)))))
    assert [(e.digest, bytes(e.data)) for e in events if isinstance(e, StoredChunk)] == chunks


def test_frames_of_another_layout_are_refused() -> None:
    with pytest.raises(FrameError, match="can't stand here"):
        list(FrameDecoder(Layout.ENTRIES).feed(data_header(1) + b"x"))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 6_000_000), st.lists(st.integers(1, 3_000_000), max_size=6))
def test_chunk_boundaries_depend_on_the_content_only(seed: int, size: int, sizes: list[int]) -> None:
    data = Random(seed).randbytes(size)  # Hypothesis would draw megabytes choice by choice

    def chunks(pieces: list[bytes]) -> list[bytes]:
        found: list[bytes] = []
        chunker = Chunker(lambda view: found.append(bytes(view)))
        for piece in pieces:
            chunker.feed(piece)
        chunker.finish()
        return found

    whole = chunks([data])
    assert b"".join(whole) == data
    assert all(0 < len(chunk) <= MAX_BYTES for chunk in whole)
    assert chunks(cut(data, sizes)) == whole


@settings(max_examples=25, deadline=None)
@given(ENTRIES, st.binary(max_size=2000), st.integers(1, 500))
def test_parts_come_back_as_they_were_written(
    entries: list[tuple[str, dict[str, str], bytes]], data: bytes, block: int
) -> None:
    with tempfile.TemporaryDirectory() as directory, open_repository(Path(directory)) as repository:
        opened = repository.open_write("c", CopyInfo())
        write_entries(opened, "entries", entries, block=block)
        write_part(opened, "dump", data, block=block)
        committed = repository.commit("c")
        assert read_entries(repository, "c", "entries") == entries
        assert read_part(repository, "c", "dump") == data
        assert seal(committed.manifest, repository._key) == committed.raw


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_any_attributes_keep_the_signature_sound(attributes: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as directory, open_repository(Path(directory)) as repository:
        write_part(repository.open_write("c", CopyInfo(attributes=attributes)), "dump", b"x")
        committed = repository.commit("c")
        assert canonical(parse(committed.raw, copy="c").attributes) == canonical(attributes)
