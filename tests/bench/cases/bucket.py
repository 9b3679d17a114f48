"""A bucket of 20,000 objects of 4 to 64 KiB and 20 of 64 MiB: into a copy repository (hashed, compressed, encrypted,
committed), again with nothing changed, and back into a new bucket. Beside it, in turns, rclone between the same bucket
and a directory, with the settings that made it fastest.

The server is SeaweedFS as the embedded stack runs it; the S3 broker and the filesystem repository are processes of
their own, asked over the bus, and a copy counts from its prepare to its commit. The bucket keeps versions; a restore
makes one that keeps versions too, rclone writes into a plain one. rclone's second run compares times, which it has to
ask for object by object; with ``--size-only``, which trusts sizes alone, it asks for none. Tried beside these settings
and not faster: 8 and 32 transfers, ``--ignore-checksum``, uploads in parts of 16 MiB without a checksum of the whole.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import statistics
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from brokers.s3.names import bucket_of
from tests.bench.buckets import BucketBench, Cost, Shape, bucket_bench, write_objects
from tests.bench.harness import Curve, Figure, Scale

TITLE = "A bucket: copy, copy again, restore"
SHAPES = {
    Scale.FULL: Shape(20_000, 4 << 10, 64 << 10, 20, 64 << 20),
    Scale.SMOKE: Shape(300, 4 << 10, 64 << 10, 2, 16 << 20),
}
RUNS = {Scale.FULL: 3, Scale.SMOKE: 1}
RCLONE = (
    "--transfers=16",
    "--checkers=32",
    "--fast-list",
    "--s3-no-check-bucket",
    "--s3-no-head",
    "--s3-upload-concurrency=4",
    "--s3-chunk-size=16Mi",
)
MIB = 1 << 20


async def run(scale: Scale) -> list[Figure | Curve]:
    """Measure."""
    with TemporaryDirectory(prefix="calque-bench-") as directory:
        async with bucket_bench(Path(directory)) as bench:
            return await Measuring(bench, Path(directory), scale).run()


class Measuring:
    """One run: the bucket is that of a data service, filled by rclone."""

    def __init__(self, bench: BucketBench, home: Path, scale: Scale) -> None:
        self._bench = bench
        self._scale = scale
        self._files = home / "files"
        self._copied = home / "copied"
        self._numbers = itertools.count()
        self._bucket = ""

    async def run(self) -> list[Figure | Curve]:
        shape, full = SHAPES[self._scale], self._scale is Scale.FULL
        size = await asyncio.to_thread(write_objects, self._files, shape, seed=1)
        self._bucket = (await self._bench.broker.provision("source")).resource["bucket"]
        await self._bench.rclone.run("copy", str(self._files), f"s3:{self._bucket}", *RCLONE)
        copies = await self._turns(self._save_anew, self._rclone_copy)
        again = await self._turns(self._save_again, self._rclone_sync, self._rclone_sync_sizes)
        restores = await self._turns(self._restore, self._rclone_restore)
        what = f"{shape.small:,} objects of {shape.small_from >> 10} to {shape.small_to >> 10} KiB and {shape.big} of "
        what += f"{shape.big_size // MIB} MiB, {size / MIB:,.0f} MiB"
        return [
            *_compared("copy", copies, against="rclone copy to a directory", bar=1.0 if full else None, detail=what),
            *_compared("nothing changed", again[:2], against="rclone sync", bar=5.0 if full else None),
            *_compared("nothing changed", again[::2], against="rclone sync --size-only", bar=None)[-1:],
            *_compared("restore", restores, against="rclone copy from a directory", bar=1.2 if full else None),
        ]

    async def _turns(self, *measures: Callable[[], Awaitable[Cost]]) -> list[list[Cost]]:
        results: list[list[Cost]] = [[] for _ in measures]
        for _ in range(RUNS[self._scale]):
            for kept, measure in zip(results, measures, strict=True):
                kept.append(await measure())
        return results

    # --- ours

    async def _save_anew(self) -> Cost:
        await self._forget_copies()
        return await self._save()

    async def _forget_copies(self) -> None:
        for copy in await self._bench.repository.copies():
            await self._bench.repository.delete(copy)
        await self._bench.repository.collect()

    async def _save_again(self) -> Cost:
        return await self._save(parent=(await self._bench.repository.copies())[0])

    async def _save(self, *, parent: str = "") -> Cost:
        return await self._bench.timed(self._bench.save("source", f"copy-{next(self._numbers)}", parent=parent))

    async def _restore(self) -> Cost:
        copy, service = (await self._bench.repository.copies())[0], f"restored-{next(self._numbers)}"
        cost = await self._bench.timed(self._bench.restore(service, copy))
        await self._bench.broker.deprovision(service)
        return cost

    # --- rclone's

    async def _rclone_copy(self) -> Cost:
        await asyncio.to_thread(shutil.rmtree, self._copied, ignore_errors=True)
        return await self._bench.rclone.run("copy", f"s3:{self._bucket}", str(self._copied), *RCLONE)

    async def _rclone_sync(self, *more: str) -> Cost:
        return await self._bench.rclone.run("sync", f"s3:{self._bucket}", str(self._copied), *RCLONE, *more)

    async def _rclone_sync_sizes(self) -> Cost:
        return await self._rclone_sync("--size-only")

    async def _rclone_restore(self) -> Cost:
        service = f"rclone-{next(self._numbers)}"
        bucket = bucket_of(service)  # a plain one, which is removed as those of data services are
        await asyncio.to_thread(lambda: self._bench.client.create_bucket(Bucket=bucket))
        cost = await self._bench.rclone.run("copy", str(self._files), f"s3:{bucket}", *RCLONE)
        await self._bench.broker.deprovision(service)
        return cost


def _compared(name: str, costs: list[list[Cost]], *, against: str, bar: float | None, detail: str = "") -> list[Figure]:
    ours, theirs = (statistics.median(cost.wall for cost in each) for each in costs)
    own_cpu, their_cpu = (statistics.median(cost.cpu for cost in each) for each in costs)
    return [
        Figure(name=name, value=ours, unit="s", detail=f"{own_cpu:.1f} s of processors without the server's"),
        Figure(name=against, value=theirs, unit="s", detail=f"{their_cpu:.1f} s of processors without the server's"),
        Figure(
            name=f"{name}: speed against {against}",
            value=theirs / ours,
            unit="x",
            at_least=bar,
            kind="ratio",
            detail=detail,
        ),
    ]
