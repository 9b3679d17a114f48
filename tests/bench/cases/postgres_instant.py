"""A data service made of a kept database, on an XFS of its own in a file: databases of 1 GiB and 8 GiB, of which clones
are made in turns. Measured is all that the broker does for it, from the request until the first query of a binding.
Their pages are written once and are not compressible by the server; the clones share them.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brokers.postgres.databases import Databases, Mark
from brokers.postgres.instant.kept import REFLINK, KeptDatabases
from brokers.postgres.instant.settings import InstantSection
from brokers.postgres.logins import Login
from brokers.postgres.names import database_of
from brokers.postgres.server import Server
from brokers.sdk.copystream import CopyHead
from schemas.secrets import Secret
from tests.bench.harness import Curve, Figure, Scale, Skipped
from tests.servers import RunningPostgres, run_postgres

TITLE = "PostgreSQL: a data service in an instant"
MIB = 1 << 20
SIZES = {Scale.FULL: (1024, 8192), Scale.SMOKE: (16, 64)}
"""In MiB."""
ROUNDS = {Scale.FULL: 5, Scale.SMOKE: 1}
ROOM_MIB = {Scale.FULL: 13_000, Scale.SMOKE: 2_000}
PAGES_PER_MIB = 128
POLICY = InstantSection(policy="reflink", bytes=1 << 40)


async def run(scale: Scale) -> list[Figure | Curve]:
    """Fill, keep, then clone in turns."""
    with filesystem(mib=ROOM_MIB[scale]) as place:
        async with run_postgres(place) as server:
            bench = _Bench(server)
            small, big = SIZES[scale]
            for mib in (small, big):
                await bench.fill(mib)
            taken: dict[int, list[float]] = {small: [], big: []}
            for number in range(ROUNDS[scale]):
                for mib, seconds in taken.items():
                    seconds.append(await bench.clone(mib, number))
    medians = {mib: statistics.median(seconds) for mib, seconds in taken.items()}
    full = scale is Scale.FULL
    return [
        *(
            Figure(name=f"{_name(mib)}", value=medians[mib], unit="s", at_most=2.0 if full else None)
            for mib in (small, big)
        ),
        Figure(
            name=f"{_name(big)} / {_name(small)}",
            value=medians[big] / medians[small],
            unit="x",
            kind="ratio",
            at_most=1.5 if full else None,
        ),
    ]


@contextmanager
def filesystem(*, mib: int) -> Iterator[Path]:
    """A directory on a fresh XFS in a file; nothing is left of it. Raises :class:`Skipped`."""
    if os.geteuid() != 0:
        raise Skipped("mounting a filesystem in a file takes root")
    with tempfile.TemporaryDirectory(prefix="calque-bench-") as directory:
        image, place = Path(directory) / "image", Path(directory) / "mounted"
        place.mkdir()
        Path(directory).chmod(0o755)
        with image.open("wb") as file:
            file.truncate(mib * MIB)
        for command in (["mkfs.xfs", "-q", str(image)], ["mount", "-o", "loop", str(image), str(place)]):
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
            except (OSError, subprocess.CalledProcessError) as error:
                said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
                raise Skipped(f"{command[0]}: {said}") from None
        try:
            yield place
        finally:
            subprocess.run(["umount", str(place)], check=True, timeout=60)


class _Bench:
    def __init__(self, server: RunningPostgres) -> None:
        address = server.server
        self._login = Login(address.host, address.port, address.user, "postgres", Secret(value=server.password))
        self._server = Server(lambda: self._login)
        self._databases = Databases(self._server)
        self._kept = KeptDatabases(
            self._server, self._databases, POLICY.model_copy(update={"data_dir": address.data_dir})
        )

    async def fill(self, mib: int) -> None:
        """A database of this size, kept; what it was kept of is dropped."""
        service, mark = f"source-{mib}", Mark(service_id=f"source-{mib}")
        await self._databases.create(mark)
        async with self._server.session(database=database_of(service)) as session:
            await session.run(f"SET ROLE {database_of(service)}")
            # without a log: as much again would have to fit on the filesystem, and be written
            await session.run("CREATE UNLOGGED TABLE filled (id bigint, body text STORAGE PLAIN)")
            await session.run(
                "INSERT INTO filled SELECT n, repeat('x', 8000) FROM generate_series(1, %s::bigint) n",
                (mib * PAGES_PER_MIB,),
            )
        await self._databases.finish(mark)
        await self._kept.keep(service, _head(mib))
        await self._databases.drop(service)

    async def clone(self, mib: int, number: int) -> float:
        """How long one took, in seconds."""
        service = f"clone-{mib}-{number}"
        mark = Mark(service_id=service)
        begun = time.perf_counter()
        method = await self._kept.clone(mark, _head(mib))
        if method != REFLINK:
            raise RuntimeError(f"it was made by {method or 'nothing'}")
        await self._databases.finish(mark)
        secret = Secret(value="of the benchmark")
        user = await self._databases.bind(service_id=service, binding_id="b", secret=secret)
        app = Server(lambda: self._login._replace(user=user, password=secret))
        async with app.session(database=database_of(service)) as session:
            if await session.value("SELECT id FROM filled LIMIT 1") is None:
                raise RuntimeError("the clone is empty")
        seconds = time.perf_counter() - begun
        await self._databases.drop(service)
        await asyncio.to_thread(os.sync)
        return seconds


def _head(mib: int) -> CopyHead:
    return CopyHead(copy=f"copy-{mib}", parts=(), merkle_root="root", logical_bytes=mib * MIB)


def _name(mib: int) -> str:
    return f"{mib // 1024} GiB" if mib >= 1024 else f"{mib} MiB"
