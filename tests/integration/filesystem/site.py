"""One site's repository, really served, for tests."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import msgspec

from brokers.filesystem.objects import DirectoryStore
from brokers.repository.endpoint import Endpoint, server_context
from brokers.repository.format1.packs import pack_name
from brokers.repository.format1.repository import Options, Repository
from brokers.repository.grants import Grants
from brokers.repository.manifest import CopyInfo
from brokers.repository.opened import CommittedCopy, OpenCopy
from brokers.repository.tokens import TokenKey
from brokers.repository.transfer import Transfer, TransferProgress
from brokers.sdk.copystream import CopyReader, CopyWriter
from schemas.brokers import CopyGrant
from schemas.values import CopyPart
from tests.integration.filesystem.certificates import Authority, Identity


class Site:
    """A repository and its endpoint; `start` and `stop` may be called again, on the same port and state."""

    def __init__(self, name: str, *, directory: Path, authority: Authority, near: bool = False) -> None:
        """``near``: writers and readers come without TLS."""
        self.near = near
        self.told_near = True
        self.directory = directory / name
        self.identity: Identity = authority.issue(name)
        self._authority = authority
        self._port = 0
        self.offset_seconds = 0.0
        self.domain = "shared"
        self.repository: Repository
        self.endpoint: Endpoint
        self.grants: Grants

    def clock(self) -> float:
        return time.time() + self.offset_seconds

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self.repository = self.opened()
        tokens = TokenKey.load_or_create(self.directory / "state" / "tokens")
        context = server_context(certificate=self.identity.certificate, key=self.identity.key, ca=self._authority.path)
        self.endpoint = Endpoint(self.repository, tokens=tokens, tls=context, host="127.0.0.1", clock=self.clock)
        self._port = await self.endpoint.start(self._port)
        self.grants = Grants(
            base_url=f"https://127.0.0.1:{self._port}",
            tokens=tokens,
            certificate=self.identity.certificate,
            ca=self._authority.path,
            clock=self.clock,
            near=await self.endpoint.start_near() if self.near else "",
        )

    def opened(self) -> Repository:
        """All sites of one authority are of one trust domain, unless a test says otherwise."""
        domain = self._authority.path.parent / f"domain-{self.domain}"
        store = DirectoryStore(self.directory / "repository")
        return Repository.open(store, state=self.directory / "state", options=Options(domain_key=domain))

    async def stop(self) -> None:
        await self.endpoint.stop()
        self.repository.close()

    def open_write(self, copy: str, *, parent: str = "") -> CopyGrant:
        self.repository.open_write(copy, CopyInfo()).take_on(parent)
        return self._way(self.grants.issue(copy, "write", seconds=600, parent=parent))

    def open_read(self, copy: str, *, peer: "Site | None" = None, seconds: float = 600) -> CopyGrant:
        fingerprint = peer.grants.fingerprint if peer is not None else None
        return self._way(self.grants.issue(copy, "read", seconds=seconds, client_fingerprint=fingerprint))

    def _way(self, grant: CopyGrant) -> CopyGrant:
        return grant if self.told_near else msgspec.structs.replace(grant, near="")

    async def settled(self, copy: str) -> OpenCopy:
        """The open copy, once the endpoint has noticed that no connection writes it any more."""
        opened = self.repository.writing(copy)
        deadline = time.monotonic() + 60
        while opened.writing:
            assert time.monotonic() < deadline, f"{opened.writing} are still being written"
            await asyncio.sleep(0.01)
        return opened

    def chunks(self, committed: CommittedCopy, part: str) -> list[str]:
        """The chunks of a stream, by name."""
        found = committed.part(part)
        assert found is not None
        assert found.chunks is not None
        return [ref.digest for ref in found.chunks]

    def place(self, chunk: str) -> tuple[Path, int, int]:
        """Where a chunk lies: the file of its pack, offset and length there."""
        place = self.repository.catalog.places(bytes.fromhex(chunk))[0]
        return self.directory / "repository" / pack_name(place.pack), place.blob.offset, place.blob.stored

    def damage(self, chunk: str) -> None:
        """Flips a bit of a chunk."""
        path, offset, length = self.place(chunk)
        content = bytearray(path.read_bytes())
        content[offset + length // 2] ^= 1
        path.write_bytes(content)

    async def write(self, copy: str, part: str, data: bytes) -> CopyPart:
        return await CopyWriter(self.open_write(copy)).write_stream(part, blocks(data))

    async def write_copy(self, copy: str, **parts: bytes) -> CommittedCopy:
        for part, data in parts.items():
            await self.write(copy, part, data)
        return self.repository.commit(copy)

    async def read(self, copy: str, part: str) -> bytes:
        return b"".join([bytes(block) async for block in CopyReader(self.open_read(copy)).read_stream(part)])

    def transfer(self, grant: CopyGrant, *, progress: TransferProgress | None = None) -> Transfer:
        return Transfer(
            self.repository,
            grant,
            certificate=self.identity.certificate,
            key=self.identity.key,
            progress=progress,
        )


async def blocks(data: bytes, *, size: int = 100_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]
