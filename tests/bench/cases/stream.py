"""What a stream costs on its way into a copy repository.

*Chunking, hashing, compressing, encrypting* alone: the writing side of a repository of format 1 is given a stream in
blocks of 1 MiB, and its packs go nowhere. The same without encryption, where the cipher is exchanged for one that
copies; and the bare libraries in a loop (`pyfastcdc`, `blake3`, `zstandard`) with as many threads. The stream is
generated: half of each block can't be compressed, the other half is text. In turns, medians.

*The whole way*: a broker's writer -> HTTPS -> the endpoint of a repository in a directory, and back, in one process for
each of both; with one big stream, with many small entries, and with the same entries kept of the copy before.

*Memory*: the peak of resident memory of those two processes while 8 GiB pass, generated on the way.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyfastcdc
import zstandard
from blake3 import blake3

from brokers.repository.chunking import AVERAGE_BYTES, MAX_BYTES, MIN_BYTES
from brokers.repository.compression import LEVEL
from brokers.repository.format1.repository import Repository
from brokers.repository.manifest import CopyInfo
from brokers.repository.objects import ObjectMissing, StoredObject
from brokers.sdk.frames import Layout
from tests.bench.harness import Curve, Figure, Scale, alternating
from tests.bench.stream_ends import Ends, blocks

TITLE = "A stream into the copy repository"
MIB = 1 << 20
SIZES_MIB = {Scale.FULL: 1024, Scale.SMOKE: 32}
ENTRIES = {Scale.FULL: 20_000, Scale.SMOKE: 500}
MEMORY_MIB = {Scale.FULL: 8192, Scale.SMOKE: 64}
RUNS = {Scale.FULL: 5, Scale.SMOKE: 1}
THREADS = 2
MEMORY_LIMIT_MIB = 512.0


class Nowhere:
    """An object store that keeps small objects only: packs are dropped."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}
        self._dropped: set[str] = set()

    def put(self, name: str, content: bytes | memoryview) -> None:
        if name.startswith("packs/"):
            self._dropped.add(name)
        else:
            self._kept[name] = bytes(content)

    def read(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        if name not in self._kept:
            raise ObjectMissing(name)
        content = self._kept[name]
        return content[offset : len(content) if length is None else offset + length]

    def look(self, name: str) -> StoredObject | None:
        if name in self._kept or name in self._dropped:
            return StoredObject(name, len(self._kept.get(name, b"")), 0.0)
        return None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return (
            StoredObject(name, len(data), 0.0) for name, data in sorted(self._kept.items()) if name.startswith(prefix)
        )

    def delete(self, name: str) -> None:
        self._kept.pop(name, None)

    def free_bytes(self) -> int | None:
        return None

    def now(self) -> float:
        return 0.0

    def close(self) -> None: ...


class Copying:
    """Stands for a cipher, and only copies."""

    def encrypt(self, _nonce: bytes, data: bytes, _associated: bytes) -> bytes:
        return data + bytes(16)

    def encrypt_into(self, _nonce: bytes, data: bytes, _associated: bytes, place: memoryview) -> None:
        place[: len(data)] = data


def through_the_store(data: list[bytes], *, encrypted: bool) -> float:
    """Seconds for the writing side of a repository."""
    with tempfile.TemporaryDirectory() as directory, Repository.open(Nowhere(), state=Path(directory)) as repository:
        if not encrypted:
            repository.keys.pack_cipher = lambda _pack: Copying()  # type: ignore[method-assign,assignment,return-value]
        opened = repository.open_write("c1", CopyInfo())
        writer = opened.begin_part("dump", layout=Layout.STREAM, media_type="", framed=False)
        begun = time.perf_counter()
        for block in data:
            writer.feed(block)
        writer.seal()
        return time.perf_counter() - begun


def through_bare_libraries(data: list[bytes]) -> float:
    """Seconds for cutting, hashing (of the stream and of each chunk) and compressing, and nothing else."""
    cutter = pyfastcdc.FastCDC(
        avg_size=AVERAGE_BYTES, min_size=MIN_BYTES, max_size=MAX_BYTES, normalized_chunking=1, seed=0
    )
    key, whole = bytes(32), blake3()

    def finish(chunk: bytes) -> int:
        blake3(chunk, key=key).digest()
        return len(zstandard.ZstdCompressor(level=LEVEL).compress(chunk))

    begun = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[int]] = deque()
        for at in range(0, len(data), 4):
            joined = b"".join(data[at : at + 4])
            whole.update(joined)
            view, start = memoryview(joined), 0
            for cut in cutter.cut_buf(view):
                waiting.append(pool.submit(finish, bytes(view[start : start + cut.length])))
                start += cut.length
                if len(waiting) > 32:
                    waiting.popleft().result()
        for future in waiting:
            future.result()
    return time.perf_counter() - begun


def _speed(name: str, mib: int, seconds: float, *, detail: str = "") -> Figure:
    return Figure(name=name, value=mib / seconds, unit="MiB/s", detail=detail)


async def run(scale: Scale) -> list[Figure | Curve]:
    """Measure."""
    mib, runs = SIZES_MIB[scale], RUNS[scale]
    full = scale is Scale.FULL
    data = list(blocks(mib))
    measures: tuple[Callable[[], float], ...] = (
        lambda: through_the_store(data, encrypted=True),
        lambda: through_the_store(data, encrypted=False),
        lambda: through_bare_libraries(data),
    )
    results = await asyncio.to_thread(alternating, runs, *measures)
    encrypted, plain, bare = map(statistics.median, results)
    return [
        Figure(
            name="with encryption against without",
            value=plain / encrypted,
            unit="",
            at_least=0.75 if full else None,
            kind="ratio",
        ),
        Figure(
            name="without encryption against the bare libraries",
            value=bare / plain,
            unit="",
            at_least=0.9 if full else None,
            kind="ratio",
        ),
        _speed("cut, hash, compress, encrypt", mib, encrypted),
        _speed("cut, hash, compress", mib, plain),
        _speed("the bare libraries in a loop", mib, bare),
        *await the_whole_way(scale),
    ]


async def the_whole_way(scale: Scale) -> list[Figure]:
    """A writer, HTTPS, an endpoint, a directory; and back."""
    mib, entries, memory = SIZES_MIB[scale], ENTRIES[scale], MEMORY_MIB[scale]
    with tempfile.TemporaryDirectory() as directory:
        async with Ends.open(Path(directory)) as ends:
            written = await ends.run("write_stream", copy="stream", amount=mib)
            read = await ends.run("read_stream", copy="stream", amount=mib)
            small = await ends.run("write_entries", copy="small", amount=entries)
            kept = await ends.run("keep_entries", copy="kept", parent="small", amount=entries)
            back = await ends.run("read_entries", copy="small", amount=entries)
    with tempfile.TemporaryDirectory() as directory:
        async with Ends.open(Path(directory)) as ends:
            await ends.run("write_alike", copy="big", amount=memory)
            await ends.run("read_stream", copy="big", amount=memory)
            repository, broker = await ends.peaks_mib()
    bar = MEMORY_LIMIT_MIB if scale is Scale.FULL else None
    return [
        _speed("broker to packs over HTTPS", mib, written),
        _speed("packs to broker over HTTPS", mib, read),
        Figure(name="small entries (4 KiB) to packs", value=entries / small, unit="entries/s"),
        Figure(name="small entries kept of the copy before", value=entries / kept, unit="entries/s"),
        Figure(name="small entries from packs", value=entries / back, unit="entries/s"),
        Figure(
            name=f"peak memory of the repository, {memory / 1024:g} GiB in and out",
            value=repository,
            unit="MiB",
            at_most=bar,
        ),
        Figure(
            name=f"peak memory of the broker, {memory / 1024:g} GiB in and out", value=broker, unit="MiB", at_most=bar
        ),
    ]
