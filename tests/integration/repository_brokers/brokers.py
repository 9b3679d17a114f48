"""Copy repository brokers of every kind as processes, and what data service brokers and agents ask of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from brokers.sdk.copystream import CopyReader, CopyWriter
from bus.connection import Bus
from schemas.brokers import (
    Collect,
    Collected,
    CommitCopy,
    Committed,
    Copied,
    CopyGrant,
    CopyList,
    CopySource,
    CrbInfo,
    DeleteCopy,
    Done,
    Granted,
    InfoRequest,
    ListCopies,
    OpenRead,
    OpenWrite,
    RepositoryStats,
    StatsRequest,
    TransferCopy,
)
from schemas.ids import new_id
from schemas.values import CopyPart
from tests.integration.broker_process import BrokerProcess
from tests.integration.filesystem.certificates import Authority
from tests.integration.repository_stores.stores import postgres_settings, s3_settings
from tests.servers import NatsServer, RunningPostgres, RunningS3

MODULES = {
    "filesystem": "brokers.filesystem",
    "s3": "brokers.s3_repository",
    "postgres": "brokers.postgres_repository",
}
BLOCK = 1 << 20
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


class CopyBroker(BrokerProcess):
    """One copy repository broker; its repository is its own."""

    async def open_write(self, copy: str, *, parent: str = "", source: CopySource = SOURCE) -> CopyGrant:
        request = OpenWrite(id=new_id(), copy=copy, source=source, parent=parent)
        return (await self.ask("open_write", request, Granted)).grant

    async def open_read(self, copy: str, *, client: str | None = None) -> CopyGrant:
        return (await self.ask("open_read", OpenRead(copy=copy, client_fingerprint=client), Granted)).grant

    async def write(self, copy: str, data: bytes) -> CopyPart:
        """Write its one part, without committing it."""
        return await CopyWriter(await self.open_write(copy)).write_stream("dump", blocks(data))

    async def save(self, copy: str, data: bytes) -> Committed:
        return await self.run("commit", commit_request(copy, await self.write(copy, data)), Committed)

    async def read(self, copy: str) -> bytes:
        reader = CopyReader(await self.open_read(copy))
        return b"".join([bytes(block) async for block in reader.read_stream("dump")])

    async def fetch(self, copy: str, *, source: CopyBroker) -> Committed:
        """Have the copy transferred from another repository."""
        peer = await self.ask("info", InfoRequest(), CrbInfo)
        grant = await source.open_read(copy, client=peer.fingerprint)
        return await self.run("transfer", TransferCopy(id=new_id(), copy=copy, grant=grant), Committed)

    async def copies(self) -> list[str]:
        return [each.copy for each in (await self.ask("list", ListCopies(), CopyList)).copies]

    async def delete(self, copy: str) -> None:
        await self.run("delete", DeleteCopy(id=new_id(), copy=copy), Done)

    async def collect(self) -> Collected:
        return await self.run("collect", Collect(id=new_id()), Collected)

    async def stats(self) -> RepositoryStats:
        return await self.ask("stats", StatsRequest(), RepositoryStats)


class Surroundings:
    """Servers and certificates that brokers are made with."""

    def __init__(
        self, *, directory: Path, nats: NatsServer, bus: Bus, s3: RunningS3, postgres: RunningPostgres
    ) -> None:
        self._directory = directory
        self._nats = nats
        self._bus = bus
        self.s3 = s3
        self.postgres = postgres
        self._authority = Authority(directory)

    def broker(self, kind: str, name: str | None = None, **settings: Any) -> CopyBroker:
        """A broker that is not started yet, with a new repository."""
        own = name or kind
        identity = self._authority.issue(own)
        tls = {"cert": str(identity.certificate), "key": str(identity.key), "ca": str(self._authority.path)}
        return CopyBroker(
            MODULES[kind],
            bus=self._bus,
            nats_url=self._nats.url,
            kind="crb",
            name=own,
            directory=self._directory / own,
            tls=tls,
            **{**self._place(kind, own), **settings},
        )

    def _place(self, kind: str, name: str) -> dict[str, Any]:
        if kind == "s3":
            return {"bucket": s3_settings(self.s3)}
        if kind == "postgres":
            return {"database": postgres_settings(self.postgres)}
        return {"repository_dir": str(self._directory / name / "repository")}


def commit_request(copy: str, *parts: CopyPart) -> CommitCopy:
    copied = Copied(copy_format="postgres-copy-1", parts=parts, engine="postgresql", engine_version="18.4")
    return CommitCopy(id=new_id(), copy=copy, copied=copied, moment="0/123", level="application")


async def blocks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), BLOCK):
        yield data[start : start + BLOCK]
