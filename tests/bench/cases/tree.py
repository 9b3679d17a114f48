"""A tree of 50,000 files, 2 GiB, copied into a repository and restored by the product (volume broker, filesystem
repository broker, as processes on one machine: encrypted, verified) and by restic: the same data, in turns.

Each time is that of everything a user waits for: stage, prepare, copy and commit; or the restore until all is on the
disk. Brokers run already; restic is a program that starts each time and opens its repository with a password, so that
time is measured too, and what is quick is also compared without it. Every round has new repositories on the disk where
the tree is; every restore goes to a fresh file system where one can be mounted.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from schemas.brokers import CommitCopy, Committed, Copied, CopyGrant, Granted, OpenRead, OpenWrite
from schemas.ids import new_id
from tests.bench import trees
from tests.bench.harness import Curve, Figure, Scale, Skipped
from tests.bench.processes import cpu_seconds_of
from tests.bench.servers import BenchServer, bench_server
from tests.integration.filesystem.certificates import Authority
from tests.integration.repository_brokers.brokers import SOURCE, CopyBroker
from tests.integration.volume.services import Volume

TITLE = "A tree of files against restic"
FILES = {Scale.FULL: 50_000, Scale.SMOKE: 1_500}
BYTES = {Scale.FULL: 2 << 30, Scale.SMOKE: 24 << 20}
ROUNDS = {Scale.FULL: 3, Scale.SMOKE: 1}
CHANGED = 0.01
PAUSE_SECONDS = 0.3
FIRST, RESTORE, AGAIN, UNCHANGED = "first copy", "restore", "1 % changed", "nothing changed"
BARS = {FIRST: 2.5, RESTORE: 1.7, AGAIN: 3.0, UNCHANGED: 3.0}
ADDED = "added by a copy of 1 % changed"
MOST_ADDED = 1.5
SERVICE = "tree"


class Spent(NamedTuple):
    """Seconds of wall, and of CPU in the processes that do the work."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s (CPU {self.cpu:.2f})"


class Found:
    """What was measured: by name and by whose it is."""

    def __init__(self) -> None:
        self.spent: dict[tuple[str, str], list[Spent]] = {}
        self.added: dict[str, list[float]] = {}
        self.starts: list[float] = []
        """Seconds that restic takes to do nothing but start and open its repository."""

    def median(self, name: str, who: str) -> Spent:
        """Of all rounds."""
        walls, cpus = zip(*self.spent[name, who], strict=True)
        return Spent(median(walls), median(cpus))


class MeasuredVolume(Volume):
    """As it is run in earnest."""

    flags = ()


class MeasuredRepository(CopyBroker):
    """As it is run in earnest."""

    flags = ()


class Ours:
    """The product: one source with its tree, one repository."""

    def __init__(self, server: BenchServer, directory: Path) -> None:
        self._server = server
        self._directory = directory
        authority = Authority(directory)
        identity = authority.issue("crb")
        self._source = self._volume("source", directory / "source")
        self._copies: list[str] = []
        self._targets: list[Volume] = []
        self.repository_dir = directory / "repository"
        self._repository = MeasuredRepository(
            "brokers.filesystem",
            bus=server.bus,
            nats_url=server.url,
            kind="crb",
            name="bench",
            directory=directory / "crb",
            tls={"cert": str(identity.certificate), "key": str(identity.key), "ca": str(authority.path)},
            repository_dir=str(self.repository_dir),
        )

    def _volume(self, name: str, directory: Path) -> Volume:
        return MeasuredVolume(bus=self._server.bus, nats_url=self._server.url, directory=directory, name=name)

    async def start(self, tree: Path) -> Path:
        """Start the brokers and give them the tree; where it is now."""
        await asyncio.gather(self._source.start(), self._repository.start())
        inside = await self._source.tree(SERVICE)
        inside.rmdir()
        return tree.rename(inside)

    def cpu_seconds(self) -> float:
        """Of the brokers so far."""
        return sum(cpu_seconds_of(each.pid) for each in (*self._targets, self._source, self._repository))

    async def stop(self) -> None:
        """End the brokers."""
        await asyncio.gather(self._source.stop(), self._repository.stop())

    async def save(self, _: Path) -> None:
        """A committed copy of the tree."""
        copy = new_id()
        await self._source.stage(SERVICE, copy, grant=await self._grant(copy))
        prepared = await self._source.prepare(SERVICE, copy)
        if prepared.level != "application":
            raise AssertionError(f"the tree was quiet, and yet: {prepared.moment}")
        copied = await self._source.copy(SERVICE, copy, await self._grant(copy))
        await self._commit(copy, copied)
        await self._source.discard(copy)
        self._copies.append(copy)

    async def _grant(self, copy: str) -> CopyGrant:
        parent = self._copies[-1] if self._copies else ""
        request = OpenWrite(id=new_id(), copy=copy, source=SOURCE, parent=parent)
        return (await self._repository.ask("open_write", request, Granted)).grant

    async def _commit(self, copy: str, copied: Copied) -> None:
        commit = CommitCopy(id=new_id(), copy=copy, copied=copied, moment="bench", level="application")
        await self._repository.run("commit", commit, Committed)

    @asynccontextmanager
    async def restorer(self, place: Path) -> AsyncIterator[Callable[[], Awaitable[Path]]]:
        """A call that restores the latest copy below ``place``."""
        name = f"target{len(self._copies)}"
        target = self._volume(name, place / name)
        await target.start()
        self._targets = [target]

        async def restore() -> Path:
            grant = (await self._repository.ask("open_read", OpenRead(copy=self._copies[-1]), Granted)).grant
            return Path((await target.provision(SERVICE, restore=grant)).resource["path"])

        try:
            yield restore
        finally:
            self._targets = []
            await target.stop()


class Restic:
    """The peer, with a repository and a cache of its own."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self.repository_dir = directory / "restic"
        self._environment = {
            **os.environ,
            "RESTIC_REPOSITORY": str(self.repository_dir),
            "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": str(directory / "restic-cache"),
        }

    async def start(self) -> None:
        """Make the repository."""
        await self._run("init")

    def cpu_seconds(self) -> float:
        """Of all that it ran so far."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    async def look(self) -> None:
        """Nothing but to start and to open the repository."""
        await self._run("cat", "config")

    async def save(self, tree: Path) -> None:
        """A snapshot of the tree."""
        await self._run("backup", str(tree))

    @asynccontextmanager
    async def restorer(self, place: Path) -> AsyncIterator[Callable[[], Awaitable[Path]]]:
        """A call that restores the latest snapshot below ``place``."""

        async def restore() -> Path:
            await self._run("restore", "latest", "--target", str(place / "restic"))
            await asyncio.to_thread(os.sync)  # it does not do that, and ours does
            return place / "restic"

        yield restore

    async def _run(self, *arguments: str) -> None:
        command = (self._program, "--quiet", *arguments)
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, env=self._environment)


async def timed(each: Ours | Restic, work: Callable[[], Awaitable[object]]) -> Spent:
    """What it takes, from a disk that has nothing to do, when nobody has written to the tree for a moment."""
    await asyncio.to_thread(os.sync)
    await asyncio.sleep(PAUSE_SECONDS)
    begun, used = time.perf_counter(), each.cpu_seconds()
    await work()
    return Spent(time.perf_counter() - begun, each.cpu_seconds() - used)


async def one_round(server: BenchServer, tree: Path, *, found: Found, place: Path, scale: Scale, seed: int) -> None:
    """All that is measured, once. The tree is back in its place afterwards."""
    program = shutil.which("restic")
    if program is None:
        raise Skipped("restic is not installed")
    ours, restic = Ours(server, place), Restic(program, place)
    inside = await ours.start(tree)
    await restic.start()
    in_turns: list[Ours | Restic] = [ours, restic] if seed % 2 else [restic, ours]
    try:
        for name in (FIRST, RESTORE, UNCHANGED, AGAIN):
            if name == AGAIN:
                trees.change(inside, files=FILES[scale], share=CHANGED, seed=seed)
            for each in in_turns:
                before = trees.bytes_below(each.repository_dir)
                who = type(each).__name__
                if name == RESTORE:
                    spent = await restored(each, place=place, scale=scale)
                else:
                    spent = await timed(each, partial(each.save, inside))
                found.spent.setdefault((name, who), []).append(spent)
                if name == UNCHANGED and each is restic:
                    found.starts.append((await timed(restic, restic.look)).wall)
                if name == AGAIN:
                    added = trees.bytes_below(each.repository_dir) - before
                    found.added.setdefault(who, []).append(added * 100 / BYTES[scale])
    finally:
        inside.rename(tree)
        await ours.stop()


async def restored(each: Ours | Restic, *, place: Path, scale: Scale) -> Spent:
    """What a restore takes onto a fresh file system."""
    with target_below(place, scale) as target:
        async with each.restorer(target) as restore:
            spent = await timed(each, restore)
            there = sum(1 for path in target.rglob("file-*.bin"))
    if there != FILES[scale]:
        raise AssertionError(f"{there} files were restored, not {FILES[scale]}")
    return spent


@contextmanager
def target_below(place: Path, scale: Scale) -> Iterator[Path]:
    """Where to restore."""
    if trees.can_mount("xfs"):
        with trees.fresh_filesystem("xfs", size=max(1 << 30, 3 * BYTES[scale]), directory=place) as target:
            yield target
    else:
        with TemporaryDirectory(dir=place) as directory:
            yield Path(directory)


async def rounds(server: BenchServer, scale: Scale, *, directory: Path, count: int) -> Found:
    """The rounds, on a tree below ``directory``."""
    tree, found = directory / "tree", Found()
    await asyncio.to_thread(trees.make, tree, files=FILES[scale], size=BYTES[scale])
    for seed in range(count):
        with TemporaryDirectory(dir=directory) as place:
            await one_round(server, tree, found=found, place=Path(place), scale=scale, seed=seed)
    return found


async def run(scale: Scale) -> list[Figure | Curve]:
    """Measure."""
    async with bench_server() as server:
        with TemporaryDirectory(prefix="calque-bench-") as directory:
            found = await rounds(server, scale, directory=Path(directory), count=ROUNDS[scale])
    full = scale is Scale.FULL
    figures: list[Figure | Curve] = []
    for name, bar in BARS.items():
        ours, restic = found.median(name, "Ours"), found.median(name, "Restic")
        figures.append(
            Figure(
                name=f"{name}: the speed of restic",
                value=restic.wall / ours.wall,
                unit="x",
                at_least=bar if full else None,
                kind="ratio",
                detail=f"{ours}; restic {restic}",
            )
        )
    start = median(found.starts)
    for name in (AGAIN, UNCHANGED):
        ours, restic = found.median(name, "Ours"), found.median(name, "Restic")
        figures.append(
            Figure(
                name=f"{name}: the speed of restic, without its start",
                value=(restic.wall - start) / ours.wall,
                unit="x",
                kind="ratio",
                detail=f"its start takes {start:.2f} s",
            )
        )
    added, theirs = (median(found.added[who]) for who in ("Ours", "Restic"))
    figures.append(
        Figure(
            name=ADDED,
            value=added,
            unit="% of the tree",
            at_most=MOST_ADDED if full else None,
            kind="ratio",
            detail=f"restic {theirs:.2f} %",
        )
    )
    return figures
