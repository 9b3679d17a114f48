"""Chunks as views: their bytes stay as long as somebody looks at them, and their memory is used again afterwards."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

from brokers.repository.chunking import GATHERED_BUFFERS, Chunker, Gathered

BLOCK = 1 << 20
BLOCKS = [random.Random(seed).randbytes(BLOCK) for seed in range(16)]


def stream(blocks: int) -> Iterator[bytes]:
    return (BLOCKS[at % len(BLOCKS)][at:] for at in range(blocks))


def test_chunks_that_are_kept_are_not_overwritten() -> None:
    """More of them than there are buffers; and the same ones come when none is kept."""
    kept: list[memoryview] = []
    late: deque[memoryview] = deque()
    passed: list[bytes] = []

    def a_while(view: memoryview) -> None:
        late.append(view)
        if len(late) > 40:
            passed.append(bytes(late.popleft()))

    chunkers = Chunker(kept.append), Chunker(a_while)
    for chunker in chunkers:
        for block in stream(64):
            chunker.feed(block)
        chunker.finish()
    passed += map(bytes, late)
    whole = b"".join(stream(64))
    assert b"".join(kept) == whole
    assert passed == [bytes(view) for view in kept]


def test_memory_is_used_again_when_nobody_looks_at_it() -> None:
    gathered = Gathered()
    places = set()
    for _ in range(10):
        view = gathered.join(BLOCKS[:4], size=4 * BLOCK)
        assert view == b"".join(BLOCKS[:4])
        places.add(id(view.obj))
        del view
    assert len(places) == 1
    held = [gathered.join(BLOCKS[:4], size=4 * BLOCK) for _ in range(GATHERED_BUFFERS + 2)]
    assert len({id(view.obj) for view in held}) == len(held)
    assert all(view == held[0] for view in held)
    big = gathered.join(BLOCKS[:8], size=8 * BLOCK)
    assert big == b"".join(BLOCKS[:8])
