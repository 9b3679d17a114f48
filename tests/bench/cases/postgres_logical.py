"""A database of 2 GiB on disk, with wide and narrow tables, indexes and foreign keys: copied into a fresh repository
(hashed, compressed, encrypted, committed) and restored from it into a new data service. Beside it, in turns,
``pg_dump -Fd -j2`` with the lightest compression, the fastest one that stores little, and ``pg_restore -j2`` of its
files; once, for comparison, ``pg_dump -Fc`` (with more compression both take two to three times as long).

The PostgreSQL broker and the filesystem repository are processes of their own, asked over the bus, as the stack runs
them; a copy counts from its prepare to its commit. Stored sizes are those of the files on the disk.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from brokers.postgres.names import database_of
from hub.stack.servers.postgres import postgres_bin_dir
from schemas.brokers import Committed, Copied, Provisioned
from tests.bench.harness import Curve, Figure, Scale
from tests.bench.servers import bench_server
from tests.integration.filesystem.certificates import Authority
from tests.integration.postgres.services import Postgres
from tests.integration.repository_brokers.brokers import CopyBroker, commit_request
from tests.servers import run_postgres

TITLE = "PostgreSQL: a database copied and restored as tables"
THOUSANDS = {Scale.FULL: 1200, Scale.SMOKE: 20}
"""The database is made of so many times a thousand orders."""
RUNS = {Scale.FULL: 3, Scale.SMOKE: 1}
PATIENCE_SECONDS = 1200.0
MIB = 1 << 20
BIN = postgres_bin_dir()
DUMPS = {
    "pg_dump -Fd -j2 -Z1": ("-Fd", "-j2", "-Z1"),
    "pg_dump -Fc -Z1": ("-Fc", "-Z1"),
}
PARALLEL = "pg_dump -Fd -j2 -Z1"
SCHEMA = (
    "CREATE TABLE customers (id int, name text, mail text, since date, score float8)",
    "INSERT INTO customers SELECT n, 'customer ' || md5(n::text), md5((n * 3)::text) || '@example.org', "
    "'2010-01-01'::date + n % 5000, n / 7.0 FROM generate_series(1, {thousands} * 100) n",
    "CREATE TABLE orders (id bigint, customer int, at timestamptz, state text, note text)",
    "INSERT INTO orders SELECT n, 1 + (n::bigint * 7919) % ({thousands} * 100), '2020-01-01'::timestamptz + n * "
    "interval '37 seconds', (ARRAY['new', 'paid', 'sent', 'back'])[1 + n % 4], "
    "repeat('a note of order ' || n || ' ', 6) || md5(n::text) FROM generate_series(1, {thousands} * 1000) n",
    'CREATE TABLE lines ("order" bigint, position int, article int, amount numeric(10, 2), tag uuid, what jsonb)',
    "INSERT INTO lines SELECT 1 + n / 5, n % 5, (n::bigint * 104729) % 50000, (n % 99999) / 100.0, md5(n::text)::uuid, "
    "jsonb_build_object('size', n % 40, 'colour', (ARRAY['red', 'green', 'blue'])[1 + n % 3], 'gift', n % 9 = 0) "
    "FROM generate_series(0, {thousands} * 5000 - 1) n",
    "CREATE TABLE events (id bigint, at timestamptz, kind int, payload text)",
    "INSERT INTO events SELECT n, '2021-01-01'::timestamptz + n * interval '3 seconds', n % 17, "
    "md5(n::text) || md5((n / 50)::text) || md5((n / 3)::text) FROM generate_series(1, {thousands} * 3000) n",
    "ALTER TABLE customers ADD PRIMARY KEY (id)",
    "ALTER TABLE orders ADD PRIMARY KEY (id)",
    "CREATE INDEX ON orders (customer, at)",
    'ALTER TABLE lines ADD PRIMARY KEY ("order", position)',
    "CREATE INDEX ON lines (article)",
    "ALTER TABLE events ADD PRIMARY KEY (id)",
    "CREATE INDEX ON events (kind, at)",
    "ALTER TABLE orders ADD FOREIGN KEY (customer) REFERENCES customers",
    'ALTER TABLE lines ADD FOREIGN KEY ("order") REFERENCES orders',
    "ANALYZE",
)


class Stored(NamedTuple):
    """How long a copy took, and what it takes on the disk."""

    seconds: float
    stored: int


async def run(scale: Scale) -> list[Figure | Curve]:
    """Measure."""
    with TemporaryDirectory(prefix="calque-bench-") as directory:
        home = Path(directory)
        home.chmod(0o711)
        async with bench_server() as nats, run_postgres(home / "server") as server:
            Postgres.flags = CopyBroker.flags = ()
            broker = Postgres(
                server,
                bus=nats.bus,
                nats_url=nats.url,
                directory=home / "broker",
                name="postgres",
                instant={"policy": "off"},
            )
            authority = Authority(home)
            identity = authority.issue("repository")
            repository = CopyBroker(
                "brokers.filesystem",
                bus=nats.bus,
                nats_url=nats.url,
                kind="crb",
                name="filesystem",
                directory=home / "repository",
                tls={"cert": str(identity.certificate), "key": str(identity.key), "ca": str(authority.path)},
                repository_dir=str(home / "repository" / "repository"),
            )
            await broker.start()
            await repository.start()
            try:
                return await Measuring(broker, repository, home, scale).run()
            finally:
                await repository.stop()
                await broker.stop()


class Measuring:
    """One run."""

    def __init__(self, broker: Postgres, repository: CopyBroker, home: Path, scale: Scale) -> None:
        self._broker = broker
        self._repository = repository
        self._store = home / "repository" / "repository"
        self._dumps = home / "dumps"
        self._scale = scale
        self._numbers = itertools.count()

    async def run(self) -> list[Figure | Curve]:
        full = self._scale is Scale.FULL
        size = await self._fill()
        ours: list[Stored] = []
        dumps: dict[str, list[Stored]] = {name: [] for name in DUMPS}
        restores: list[float] = []
        theirs: list[float] = []
        for number in range(RUNS[self._scale]):
            ours.append(await self._save())
            for name, found in dumps.items():
                if name == PARALLEL or number == 0:
                    found.append(await asyncio.to_thread(self._dump, name))
            restores.append(await self._restore())
            theirs.append(await self._pg_restore())
        seconds = {name: statistics.median(each.seconds for each in found) for name, found in dumps.items()}
        best = min(seconds, key=seconds.__getitem__)
        copy, stored = statistics.median(each.seconds for each in ours), ours[-1].stored
        restore, peer = statistics.median(restores), statistics.median(theirs)
        return [
            Figure(name="copy", value=copy, unit="s", detail=f"{size / MIB:,.0f} MiB on disk"),
            *(
                Figure(name=name, value=value, unit="s", detail=f"{dumps[name][-1].stored / MIB:,.0f} MiB")
                for name, value in seconds.items()
            ),
            Figure(
                name=f"copy: speed against {best}",
                value=seconds[best] / copy,
                unit="x",
                at_least=1.0 if full else None,
                kind="ratio",
            ),
            Figure(
                name=f"stored / that of {best}",
                value=stored / dumps[best][-1].stored,
                unit="x",
                at_most=1.0 if full else None,
                kind="ratio",
                detail=f"{stored / MIB:,.0f} MiB",
            ),
            Figure(name="restore", value=restore, unit="s"),
            Figure(name="pg_restore -j2", value=peer, unit="s"),
            Figure(
                name="restore: speed against pg_restore -j2",
                value=peer / restore,
                unit="x",
                at_least=1.2 if full else None,
                kind="ratio",
            ),
        ]

    async def _fill(self) -> int:
        await self._broker.provision("source")
        async with await self._broker.connect("source") as app:
            for statement in SCHEMA:
                await app.execute(statement.format(thousands=THOUSANDS[self._scale]).encode())
            found = await (await app.execute("SELECT pg_database_size(current_database())")).fetchone()
            assert found is not None
            return int(found[0])

    async def _save(self) -> Stored:
        for copy in await self._repository.copies():
            await self._repository.delete(copy)
        await self._repository.collect()
        before, copy = _size(self._store), f"copy-{next(self._numbers)}"
        begun = time.perf_counter()
        await self._broker.prepare("source", copy, hold_seconds=600)
        request = self._broker.copy_request("source", copy, await self._repository.open_write(copy))
        copied = await self._broker.run("copy", request, Copied, seconds=PATIENCE_SECONDS)
        await self._repository.run("commit", commit_request(copy, *copied.parts), Committed)
        seconds = time.perf_counter() - begun
        await self._broker.discard(copy)
        return Stored(seconds, _size(self._store) - before)

    async def _restore(self) -> float:
        (copy,), service = await self._repository.copies(), f"restored-{next(self._numbers)}"
        begun = time.perf_counter()
        request = self._broker.provision_request(service, restore=await self._repository.open_read(copy))
        await self._broker.run("provision", request, Provisioned, seconds=PATIENCE_SECONDS)
        seconds = time.perf_counter() - begun
        await self._broker.deprovision(service)
        return seconds

    def _dump(self, name: str) -> Stored:
        target = self._dumps / name.replace(" ", "_")
        target.parent.mkdir(exist_ok=True)
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        begun = time.perf_counter()
        self._program("pg_dump", *DUMPS[name], f"--file={target}", f"--dbname={database_of('source')}")
        return Stored(time.perf_counter() - begun, _size(target))

    async def _pg_restore(self) -> float:
        dump = self._dumps / PARALLEL.replace(" ", "_")
        begun = time.perf_counter()
        async with await self._broker.admin() as admin:
            await admin.execute("CREATE DATABASE peer TEMPLATE template0")
        options = ("-j2", "--no-owner", "--exit-on-error", "--dbname=peer", str(dump))
        await asyncio.to_thread(self._program, "pg_restore", *options)
        seconds = time.perf_counter() - begun
        async with await self._broker.admin() as admin:
            await admin.execute("DROP DATABASE peer")
        return seconds

    def _program(self, name: str, *arguments: str) -> None:
        server = self._broker.server
        environment = {
            **os.environ,
            "PGHOST": server.server.host,
            "PGPORT": str(server.server.port),
            "PGUSER": server.server.user,
            "PGPASSWORD": server.password,
        }
        ended = subprocess.run([BIN / name, *arguments], env=environment, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise RuntimeError(f"{name}: {ended.stderr[-2000:]}")


def _size(path: Path) -> int:
    """Of a file, or of all files below a directory, in bytes."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
