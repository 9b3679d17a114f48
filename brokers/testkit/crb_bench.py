"""Means of a check of a copy repository broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import msgspec

from brokers.sdk.copystream import CopyReader, CopyStreamError, CopyWriter
from brokers.sdk.copystream_http import connection
from brokers.sdk.frames import STREAM_TYPE
from brokers.testkit.bench import Bench, name_of
from brokers.testkit.checks import Unmet
from brokers.testkit.conversation import Conversation
from schemas.brokers import (
    AbortCopy,
    Change,
    CommitCopy,
    Committed,
    Copied,
    CopyGrant,
    CopyList,
    CopySource,
    DeleteCopy,
    Done,
    Granted,
    ImageList,
    ListCopies,
    ListImages,
    OpenRead,
    OpenWrite,
    RepositoryStats,
    StatsRequest,
    TransferCopy,
    VerifyCopy,
)
from schemas.ids import new_id
from schemas.problems import CalqueError
from schemas.values import CopyPart, CopySummary, ImageContent

FORMAT = "conformance"
PART = "data"


class Refused(NamedTuple):
    """How the copy endpoint refused: the HTTP status, 0 when the connection broke."""

    status: int


class CrbBench(Bench):
    """Writes copies of its own."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._copies: list[str] = []

    # --- for the checks of all kinds

    async def operation(self) -> tuple[str, Change]:
        copy, part = await self.written()
        return "commit", self.commit_request(copy, part)

    async def stalled(self) -> tuple[str, Change]:
        copy = self.new_copy()
        self.copies.opened(copy).committed = True
        self.stall(copy)
        return "transfer", TransferCopy(id=new_id(), copy=copy, grant=self.copies.grant(copy, "read"))

    async def relieved(self, stalled: Change) -> tuple[str, Change]:
        assert isinstance(stalled, TransferCopy)
        copy, part = await self.written(copy=stalled.copy)
        return "commit", self.commit_request(copy, part)

    def other(self, id: str) -> tuple[str, Change]:
        return "delete", DeleteCopy(id=id, copy=name_of("nobody"))

    async def traces(self, request: Change) -> list[str]:
        copy = getattr(request, "copy", "")
        return [f"copy {each.copy}" for each in await self.list() if each.copy == copy]

    async def forget(self) -> None:
        for copy in self._copies:
            await self.talk.exchange("abort", AbortCopy(id=new_id(), copy=copy))
            await self.talk.finish("delete", DeleteCopy(id=new_id(), copy=copy))

    # --- copies

    def new_copy(self) -> str:
        """The id of a copy that nobody knows yet."""
        copy = name_of("copy")
        self._copies.append(copy)
        return copy

    @property
    def source(self) -> CopySource:
        """Where these copies say that they come from."""
        return CopySource(
            site=self.talk.site,
            instance="conformance",
            instance_name="conformance",
            data_service="notes",
            type="other",
            broker="conformance",
            image="conformance",
        )

    async def open_write(self, copy: str, *, ttl_seconds: float = 600.0, parent: str = "") -> CopyGrant:
        """Begin a copy."""
        request = OpenWrite(id=new_id(), copy=copy, source=self.source, ttl_seconds=ttl_seconds, parent=parent)
        return (await self.talk.ask("open_write", request, Granted)).grant

    async def open_read(self, copy: str, *, ttl_seconds: float = 600.0) -> CopyGrant:
        """Access to a committed copy."""
        return (await self.talk.ask("open_read", OpenRead(copy=copy, ttl_seconds=ttl_seconds), Granted)).grant

    def expect(self, copy: str) -> None:
        """Remove this copy too, when the check is over."""
        self._copies.append(copy)

    def beside(self, talk: Conversation) -> CrbBench:
        """The same means at another repository."""
        return CrbBench(talk, self.surroundings)

    async def written(self, data: bytes = b"", *, copy: str | None = None) -> tuple[str, CopyPart]:
        """A copy that has its part and is not committed."""
        chosen = copy or self.new_copy()
        return chosen, await self.write(await self.open_write(chosen), data or self.data())

    async def committed(self, data: bytes = b"") -> tuple[str, Committed]:
        """A copy that is there."""
        copy, part = await self.written(data)
        return copy, await self.commit(copy, part)

    def data(self) -> bytes:
        """Bytes that no other copy has."""
        return f"conformance {new_id()} ".encode() * 64

    def commit_request(self, copy: str, *parts: CopyPart) -> CommitCopy:
        """Commit with these parts."""
        copied = Copied(copy_format=FORMAT, parts=parts, engine=FORMAT, engine_version="1")
        return CommitCopy(id=new_id(), copy=copy, copied=copied, moment="the moment of the check", level="crash")

    async def commit(self, copy: str, *parts: CopyPart) -> Committed:
        """Commit it."""
        return await self.talk.run("commit", self.commit_request(copy, *parts), Committed)

    async def abort(self, copy: str) -> None:
        """Give it up."""
        await self.talk.ask("abort", AbortCopy(id=new_id(), copy=copy), Done)

    async def delete(self, copy: str) -> None:
        """Delete it."""
        await self.talk.run("delete", DeleteCopy(id=new_id(), copy=copy), Done)

    async def list(self) -> tuple[CopySummary, ...]:
        """What is listed."""
        return (await self.talk.ask("list", ListCopies(), CopyList)).copies

    async def listed(self, copy: str) -> bool:
        """Whether the copy is listed."""
        return any(each.copy == copy for each in await self.list())

    async def images(self) -> dict[str, ImageContent]:
        """All image manifests that are listed."""
        found: dict[str, ImageContent] = {}
        after = ""
        while True:
            page = await self.talk.ask("images", ListImages(after=after), ImageList)
            found.update((each.content.image, each.content) for each in page.images)
            if not page.more or not page.images:
                return found
            after = page.images[-1].content.image

    async def stats(self) -> RepositoryStats:
        """How full it is."""
        return await self.talk.ask("stats", StatsRequest(), RepositoryStats)

    def verify_request(self, copy: str) -> VerifyCopy:
        return VerifyCopy(id=new_id(), copy=copy)

    # --- the copy endpoint

    async def write(self, grant: CopyGrant, data: bytes, *, part: str = PART) -> CopyPart:
        """Write one stream part; fails when it is refused."""
        try:
            return await CopyWriter(grant).write_stream(part, _once(data))
        except CopyStreamError as error:
            raise Unmet(f"PUT of a part with its write grant: {error}") from None

    async def read(self, grant: CopyGrant, *, part: str = PART) -> bytes:
        """One stream part; fails when it is refused or damaged."""
        try:
            return b"".join([bytes(block) async for block in CopyReader(grant).read_stream(part)])
        except CopyStreamError as error:
            raise Unmet(f"GET of a part with a read grant: {error}") from None

    async def put_raw(self, grant: CopyGrant, body: bytes, *, part: str = PART) -> Refused | None:
        """Any body in the place of a part; how it was refused."""
        return await self._call(grant, "PUT", f"parts/{part}", data=body, headers={"Content-Type": STREAM_TYPE})

    async def get_raw(self, grant: CopyGrant, *, part: str = PART) -> Refused | None:
        """Try to read a part; how it was refused."""
        return await self._call(grant, "GET", f"parts/{part}")

    async def _call(self, grant: CopyGrant, method: str, path: str, **options: Any) -> Refused | None:
        try:
            async with (
                connection(grant) as session,
                session.request(method, f"{grant.url}/{path}", **options) as response,
            ):
                await response.read()
                return Refused(response.status) if response.status >= 300 else None
        except (aiohttp.ClientError, CalqueError, OSError, TimeoutError):
            return Refused(0)


def with_token(grant: CopyGrant, token: str) -> CopyGrant:
    """The same access with another token."""
    return msgspec.structs.replace(grant, token=type(grant.token)(value=token))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
