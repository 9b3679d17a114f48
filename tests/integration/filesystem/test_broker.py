"""The broker as a process of its own, asked over a real bus."""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from brokers.sdk.copystream import CopyReader, CopyWriter
from bus.connection import Bus, BusSettings
from schemas.brokers import (
    AbortCopy,
    CancelRequest,
    Collect,
    Collected,
    CommitCopy,
    Committed,
    Copied,
    CopyDescription,
    CopyGrant,
    CopyList,
    CopySource,
    CrbInfo,
    DataServiceHealth,
    DeleteCopy,
    DescribeCopy,
    Done,
    ForgetImage,
    Granted,
    Health,
    InfoRequest,
    ListCopies,
    OpenRead,
    OpenWrite,
    Outcome,
    RecordImage,
    Reply,
    RepositoryStats,
    Request,
    StatsRequest,
    StatusRequest,
    TransferCopy,
    Verified,
    VerifyCopy,
)
from schemas.envelope import convert, timestamp, unwrap, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError
from schemas.subjects import broker_request
from schemas.values import CopyPart, ImageContent
from tests.integration.filesystem.certificates import Authority
from tests.integration.filesystem.site import blocks
from tests.servers import NatsServer

BIG = random.Random(11).randbytes(20_000_000)
SOURCE = CopySource(
    site="north",
    instance="i1",
    instance_name="shop",
    data_service="db",
    type="database",
    broker="postgres",
    image="m1",
    data_class="personal",
)
R = TypeVar("R", bound=Reply)


class BrokerProcess:
    """One filesystem broker and the requests that an agent sends it."""

    def __init__(self, site: str, *, directory: Path, authority: Authority, nats: NatsServer, bus: Bus) -> None:
        self.site = site
        self._directory = directory / site
        self._directory.mkdir()
        self._bus = bus
        identity = authority.issue(site)
        self._config = self._directory / "config.json"
        self._config.write_text(
            json.dumps(
                {
                    "bus": {"servers": [nats.url]},
                    "site": site,
                    "kind": "crb",
                    "name": "filesystem",
                    "state_dir": str(self._directory / "state"),
                    "repository_dir": str(self.repository_dir),
                    "tls": {
                        "cert": str(identity.certificate),
                        "key": str(identity.key),
                        "ca": str(authority.path),
                    },
                    "host": "127.0.0.1",
                    "port": 0,
                }
            )
        )
        self._process: asyncio.subprocess.Process | None = None

    @property
    def repository_dir(self) -> Path:
        return self._directory / "repository"

    async def start(self) -> None:
        ready = self._directory / "ready"
        ready.unlink(missing_ok=True)
        environment = {**os.environ, "CALQUE_CONFIG": str(self._config), "CALQUE_READY_FILE": str(ready)}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "brokers.filesystem", env=environment
        )
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert self._process.returncode is None, "the broker ended"
            assert time.monotonic() < deadline, "the broker is not ready"
            await asyncio.sleep(0.02)

    async def stop(self, *, how: int = signal.SIGTERM) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        return await asyncio.wait_for(process.wait(), 60)

    async def ask(self, operation: str, request: Request, reply: type[R]) -> R:
        """Raises CalqueError with the broker's problem."""
        envelope = wrap(request, id=new_id(), source="test", time=timestamp(datetime.now(UTC)))
        subject = broker_request(site=self.site, kind="crb", broker="filesystem", operation=operation)
        return unwrap(await self._bus.request(subject, envelope, timeout_seconds=60), reply)

    async def finish(self, operation: str, request: Request, result: type[R]) -> R:
        """Starts a long operation and follows it to its end. Raises CalqueError if it failed."""
        outcome = await self.ask(operation, request, Outcome)
        deadline = time.monotonic() + 60
        while outcome.state == "running":
            assert time.monotonic() < deadline, f"{operation} is still running"
            await asyncio.sleep(0.02)
            outcome = await self.ask("status", StatusRequest(id=outcome.id), Outcome)
        if outcome.problem is not None:
            raise CalqueError(outcome.problem)
        assert outcome.state == "succeeded"
        return convert(outcome.result, result)

    async def open_write(self, copy: str) -> CopyGrant:
        return (await self.ask("open_write", OpenWrite(id=new_id(), copy=copy, source=SOURCE), Granted)).grant

    async def open_read(self, copy: str, *, client: str | None = None) -> CopyGrant:
        return (await self.ask("open_read", OpenRead(copy=copy, client_fingerprint=client), Granted)).grant

    async def save(self, copy: str, data: bytes) -> Committed:
        part = await CopyWriter(await self.open_write(copy)).write_stream("dump", blocks(data))
        return await self.finish("commit", commit_request(copy, part), Committed)

    async def read(self, copy: str) -> bytes:
        reader = CopyReader(await self.open_read(copy))
        return b"".join([bytes(block) async for block in reader.read_stream("dump")])


def commit_request(copy: str, *parts: CopyPart) -> CommitCopy:
    copied = Copied(copy_format="postgres-copy-1", parts=parts, engine="postgresql", engine_version="18.4")
    return CommitCopy(id=new_id(), copy=copy, copied=copied, moment="0/123", level="application")


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    connected = await Bus.connect(BusSettings(servers=[nats_server.url]))
    yield connected
    await connected.close()


@pytest.fixture
async def pair(
    tmp_path: Path, authority: Authority, nats_server: NatsServer, bus: Bus
) -> AsyncIterator[tuple[BrokerProcess, BrokerProcess]]:
    north, south = (
        BrokerProcess(site, directory=tmp_path, authority=authority, nats=nats_server, bus=bus)
        for site in ("north", "south")
    )
    try:
        await asyncio.gather(north.start(), south.start())
        yield north, south
    finally:
        await asyncio.gather(north.stop(), south.stop())


async def test_a_copy_is_written_committed_moved_and_deleted(pair: tuple[BrokerProcess, BrokerProcess]) -> None:
    north, south = pair
    committed = await north.save("c1", BIG)
    assert committed.summary.size == len(BIG)
    assert (await north.save("c1x", b"x")).summary.size == 1

    found = await north.ask("describe", DescribeCopy(copy="c1"), CopyDescription)
    assert (found.source, found.moment, found.level) == (SOURCE, "0/123", "application")
    assert found.copied.copy_format == "postgres-copy-1"
    listed = await north.ask("list", ListCopies(), CopyList)
    assert [summary.copy for summary in listed.copies] == ["c1", "c1x"]

    peer = await south.ask("info", InfoRequest(), CrbInfo)
    grant = await north.open_read("c1", client=peer.fingerprint)
    moved = await south.finish("transfer", TransferCopy(id=new_id(), copy="c1", grant=grant), Committed)
    assert moved.summary == committed.summary
    assert await south.read("c1") == BIG
    assert await south.finish("verify", VerifyCopy(id=new_id(), copy="c1"), Verified) == Verified(copy="c1")
    assert (await south.ask("health", DataServiceHealth(), Health)).healthy

    await north.finish("delete", DeleteCopy(id=new_id(), copy="c1"), Done)
    await north.finish("delete", DeleteCopy(id=new_id(), copy="c1x"), Done)
    await north.finish("collect", Collect(id=new_id()), Collected)
    stats = await north.ask("stats", StatsRequest(), RepositoryStats)
    assert (stats.copies, stats.chunks, stats.stored, stats.staging) == (0, 0, 0, 0)
    assert not [path for path in north.repository_dir.joinpath("packs").rglob("*") if path.is_file()]
    assert await south.read("c1") == BIG


async def test_commit_compares_parts_and_gives_the_same_answer_for_ever(
    pair: tuple[BrokerProcess, BrokerProcess],
) -> None:
    north, _ = pair
    part = await CopyWriter(await north.open_write("c1")).write_stream("dump", blocks(b"data"))
    wrong = CopyPart(name="dump", media_type=part.media_type, size=part.size, digest="0" * 64)
    with pytest.raises(CalqueError) as caught:
        await north.finish("commit", commit_request("c1", wrong), Committed)
    assert caught.value.problem.code == "parts_differ"
    assert (await north.ask("list", ListCopies(), CopyList)).copies == ()
    first = await north.finish("commit", commit_request("c1", part), Committed)
    await north.stop()
    await north.start()
    assert await north.finish("commit", commit_request("c1", part), Committed) == first
    with pytest.raises(CalqueError) as caught:
        await north.ask("abort", AbortCopy(id=new_id(), copy="c1"), Done)
    assert caught.value.problem.code == "conflict"


async def test_kill_9_in_the_middle_of_a_transfer_loses_nothing(pair: tuple[BrokerProcess, BrokerProcess]) -> None:
    north, south = pair
    await north.save("c1", BIG)
    request = TransferCopy(id=new_id(), copy="c1", grant=await north.open_read("c1"))
    await south.ask("transfer", request, Outcome)
    packs = south.repository_dir / "packs"
    deadline = time.monotonic() + 60
    while not packs.is_dir() or not any(packs.iterdir()):
        if (south.repository_dir / "copies" / "c1").exists():
            break
        assert time.monotonic() < deadline
        await asyncio.sleep(0)
    await south.stop(how=signal.SIGKILL)
    await south.start()
    await south.finish("transfer", request, Committed)
    assert await south.read("c1") == BIG


async def test_a_cancelled_transfer_is_cleaned_up(pair: tuple[BrokerProcess, BrokerProcess]) -> None:
    north, south = pair
    await north.save("c1", BIG)
    request = TransferCopy(id=new_id(), copy="c1", grant=await north.open_read("c1"))
    await south.ask("transfer", request, Outcome)
    outcome = await south.ask("cancel", CancelRequest(id=request.id), Outcome)
    assert outcome.state == "cancelled"
    stats = await south.ask("stats", StatsRequest(), RepositoryStats)
    assert (stats.copies, stats.chunks, stats.staging) == (0, 0, 0)


async def test_image_manifests_lie_beside_the_copies(pair: tuple[BrokerProcess, BrokerProcess]) -> None:
    north, _ = pair
    content = ImageContent(image="m1", site="north", level="application", instances=())
    await north.ask("record_image", RecordImage(id=new_id(), content=content), Done)
    assert (await north.ask("stats", StatsRequest(), RepositoryStats)).images == 1
    await north.ask("forget_image", ForgetImage(id=new_id(), image="m1"), Done)
    assert (await north.ask("stats", StatsRequest(), RepositoryStats)).images == 0
