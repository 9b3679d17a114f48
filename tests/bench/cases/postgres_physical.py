"""A copy of a server's files and its restore as another server, ready for queries, against ``pg_dump -Fc |
pg_restore`` into another database of the same server, in turns. One database with indexes, of 1.3 GiB on disk. Ours
goes through a fresh copy repository, a process of its own with a disk of the same machine: hashed, compressed and
encrypted on the way in, checked on the way out, and durable at both ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from brokers.postgres.names import database_of
from brokers.postgres.physical.cluster import Cluster
from brokers.postgres.physical.services import DedicatedServices
from brokers.postgres.physical.settings import DedicatedSection
from brokers.sdk.progress import Reporter
from hub.stack.servers.postgres import postgres_bin_dir
from schemas.brokers import CopyData, CopyGrant, PrepareCopy, Provision, StageCopy
from schemas.ids import new_id
from tests.bench.guard import guarded
from tests.bench.harness import Curve, Figure, Scale, Skipped
from tests.bench.served import ServedRepository

TITLE = "PostgreSQL: a server copied and restored as files"
ROWS = {Scale.FULL: 4_000_000, Scale.SMOKE: 20_000}
ROUNDS = {Scale.FULL: 3, Scale.SMOKE: 1}
MIB = 1 << 20
BIN = postgres_bin_dir()


async def run(scale: Scale) -> list[Figure | Curve]:
    """One source, copied both ways in turns."""
    with contextlib.ExitStack() as scope:
        # Removed by the guard too, when this is killed; whoever comes second finds nothing.
        directory = scope.enter_context(tempfile.TemporaryDirectory(prefix="calque-bench-", ignore_cleanup_errors=True))
        place = Path(directory)
        place.chmod(0o711)
        scope.enter_context(guarded(place))
        services = DedicatedServices(DedicatedSection(directory=place / "servers"), bin_dir=BIN, restores={})
        await services.open()
        if not services.offered:
            raise Skipped("; ".join(services.limits))
        bench = _Bench(services, place)
        try:
            size = await bench.fill(ROWS[scale])
            ours: list[tuple[float, float, float]] = []
            theirs: list[float] = []
            for number in range(ROUNDS[scale]):
                ours.append(await bench.files(number))
                theirs.append(await bench.dump())
        finally:
            await bench.end()
            await services.close()
    total = statistics.median(staged + copied + restored for staged, copied, restored in ours)
    peer = statistics.median(theirs)
    return [
        Figure(
            name="copy and restore / pg_dump -Fc | pg_restore",
            value=peer / total,
            unit="x",
            kind="ratio",
            at_least=3.0 if scale is Scale.FULL else None,
            detail=f"{size / MIB:,.0f} MiB on disk",
        ),
        Figure(name="files staged", value=statistics.median(each[0] for each in ours), unit="s"),
        Figure(name="restore point and copy", value=statistics.median(each[1] for each in ours), unit="s"),
        Figure(name="restore to the first query", value=statistics.median(each[2] for each in ours), unit="s"),
        Figure(name="pg_dump -Fc | pg_restore", value=peer, unit="s"),
    ]


class _Bench:
    def __init__(self, services: DedicatedServices, place: Path) -> None:
        self._services = services
        self._place = place
        self._reporter = Reporter(tell=lambda _: None, clock=time.monotonic)

    async def fill(self, rows: int) -> int:
        """The source; its size on disk in bytes."""
        await self._services.provision(_request("source"), self._reporter)
        cluster = self._source
        async with cluster.server.session(database=database_of("source")) as session:
            await session.run(f"SET ROLE {database_of('source')}")
            await session.run("CREATE TABLE filled (id bigint, at timestamptz, name text, body text)")
            await session.run(
                "INSERT INTO filled SELECT n, '2026-01-01'::timestamptz + n * interval '1 second', "
                "'name ' || n %% 9973, md5(n::text) || repeat(md5((n / 7)::text), 5) "
                "FROM generate_series(1, %s::bigint) n",
                (rows,),
            )
            await session.run("ALTER TABLE filled ADD PRIMARY KEY (id)")
            await session.run("CREATE INDEX ON filled (name, at)")
            await session.run("CREATE INDEX ON filled (at)")
            await session.run("ANALYZE filled")
            return int(await session.value("SELECT pg_database_size(current_database())"))

    async def files(self, number: int) -> tuple[float, float, float]:
        """Seconds of the staging, of the copy, and of the restore."""
        place = self._place / f"repository-{number}"
        place.mkdir()
        try:
            async with ServedRepository.open(place) as repository:
                return await self._files(repository, f"copy-{number}", f"target-{number}")
        finally:
            await asyncio.to_thread(shutil.rmtree, place)

    async def _files(self, repository: ServedRepository, copy: str, target: str) -> tuple[float, float, float]:
        grant = await repository.open_write(copy)
        begun = time.perf_counter()
        await self._services.stage(self._source, StageCopy(id=new_id(), service_id="source", copy=copy), self._reporter)
        staged = time.perf_counter()
        await self._services.prepare(self._source, PrepareCopy(id=new_id(), service_id="source", copy=copy))
        request = CopyData(id=new_id(), service_id="source", copy=copy, grant=grant)
        copied = await self._services.copy(self._source, request, self._reporter)
        await repository.commit(copy)
        done = time.perf_counter()
        await self._services.discard(copy)
        provision = _request(target, await repository.open_read(copy), copied.copy_format)
        begun_again = time.perf_counter()
        await self._services.provision(provision, self._reporter)
        cluster = self._services.find(target)
        if cluster is None:
            raise RuntimeError("it was not restored")
        async with cluster.server.session(database=database_of(target)) as session:
            if await session.value("SELECT name FROM filled WHERE id = 4711") is None:
                raise RuntimeError("the restored database is empty")
        restored = time.perf_counter()
        await self._services.deprovision(cluster)
        return staged - begun, done - staged, restored - begun_again

    async def dump(self) -> float:
        """Seconds of the peer."""
        async with self._source.server.session() as session:
            await session.run("CREATE DATABASE peer TEMPLATE template0")
        environment = self._source.server.program_environment(database=database_of("source"), application="bench")
        begun = time.perf_counter()
        await asyncio.to_thread(_pipe, environment)
        seconds = time.perf_counter() - begun
        async with self._source.server.session() as session:
            await session.run("DROP DATABASE peer")
        return seconds

    async def end(self) -> None:
        """No server is left."""
        for service in ("source", *(f"target-{number}" for number in range(max(ROUNDS.values())))):
            if cluster := self._services.find(service):
                await self._services.deprovision(cluster)

    @property
    def _source(self) -> Cluster:
        cluster = self._services.find("source")
        assert cluster is not None
        return cluster


def _request(service: str, grant: CopyGrant | None = None, copy_format: str | None = None) -> Provision:
    return Provision(
        id=new_id(), service_id=service, type="database", plan="dedicated", restore=grant, copy_format=copy_format
    )


def _pipe(environment: dict[str, str]) -> None:
    with subprocess.Popen([BIN / "pg_dump", "-Fc"], env=environment, stdout=subprocess.PIPE) as dump:
        restore: list[str | Path] = [BIN / "pg_restore", "--no-owner", "--exit-on-error", "--dbname=peer"]
        subprocess.run(restore, env=environment, stdin=dump.stdout, check=True)
        if dump.wait() != 0:
            raise RuntimeError("pg_dump failed")
