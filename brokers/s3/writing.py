"""Writes entries of a copy into a bucket: small objects many at a time, big ones in parts, and all of them in a fixed
number of bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine, Mapping
from types import TracebackType
from typing import Any

from brokers.s3 import attributes, parts
from brokers.s3.pages import parts_of, upload_id
from brokers.s3.refusals import Refused, Unreachable, refusal
from brokers.s3.wire import Wire
from brokers.sdk.digests import Buffer
from brokers.sdk.errors import permanent_error

REQUESTS = 48
ROW_BYTES = 32 << 20
"""How many bytes wait in memory to be taken by the server; one part always may. More of them cost a server that is
short of memory more than they bring."""
PART_BYTES = 8 << 20
WHOLE_BYTES = 16 << 20
"""Up to here an object travels in one request, unless it was made of parts."""
_UNSENDABLE = re.compile(r"[\0-\x08\n-\x1f]")


class Writing:
    """The objects of one bucket on their way. Leaving the block waits for all of them; what fails surfaces at the next
    call, or there."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._tasks: set[asyncio.Task[str]] = set()
        self._bytes = 0
        self._room = asyncio.Event()
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Writing:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or self._failure is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is None and self._failure is not None:
            raise self._failure

    async def add(self, key: str, metadata: Mapping[str, str], size: int, blocks: AsyncIterator[Buffer]) -> None:
        """Read the entry's bytes and have them written."""
        headers = attributes.to_headers(metadata)
        if any(_UNSENDABLE.search(name) or _UNSENDABLE.search(value) for name, value in headers.items()):
            raise permanent_error("wrong_copy", f"object {key!r} has metadata that no header can hold", field="restore")
        part_size = parts.size_of_parts(size, attributes.etag_of(metadata))
        if part_size or size > WHOLE_BYTES:
            await self._add_parts(key, headers, size, blocks, part_size=part_size or parts.usual(size, PART_BYTES))
            return
        body = await _joined(blocks)
        await self._begin(self._put(key, headers, body), len(body))

    async def _put(self, key: str, headers: Mapping[str, str], body: Buffer) -> str:
        return (await self._wire.ask("PUT", key, headers=headers, body=body)).headers.get("etag", "")

    async def _add_parts(
        self, key: str, headers: Mapping[str, str], size: int, blocks: AsyncIterator[Buffer], *, part_size: int
    ) -> None:
        begun = await self._wire.ask("POST", key, query={"uploads": ""}, headers=headers)
        upload = {"uploadId": upload_id(begun.body)}
        sent: list[asyncio.Task[str]] = []
        try:
            part = bytearray()
            async for block in blocks:
                view = memoryview(block)
                while len(part) + len(view) >= part_size:
                    take = part_size - len(part)
                    part += view[:take]
                    view = view[take:]
                    sent.append(await self._begin(self._part(key, upload, len(sent) + 1, part), len(part)))
                    part = bytearray()
                part += view
            if part:
                sent.append(await self._begin(self._part(key, upload, len(sent) + 1, part), len(part)))
        except BaseException:
            await self._abandon(key, upload, sent)
            raise
        await self._begin(self._complete(key, upload, sent, size), 0)

    async def _part(self, key: str, upload: Mapping[str, str], number: int, body: bytearray) -> str:
        query = {**upload, "partNumber": str(number)}
        return (await self._wire.ask("PUT", key, query=query, body=body)).headers["etag"]

    async def _complete(self, key: str, upload: Mapping[str, str], sent: list[asyncio.Task[str]], size: int) -> str:
        try:
            tags = [await part for part in sent]
            answer = await self._wire.ask("POST", key, query=upload, body=parts_of(tags))
            # It may turn out later than the head of the answer that it can't be done.
            if b"<Error" in answer.body:
                raise refusal(answer, f"completing {key}")
        except Refused as error:
            if error.code == "NoSuchUpload" and await self._is_there(key, size):
                return ""  # it was completed, and the answer to that was lost
            await self._abandon(key, upload, sent)
            raise
        except BaseException:
            await self._abandon(key, upload, sent)
            raise
        return answer.headers.get("etag", "")

    async def _is_there(self, key: str, size: int) -> bool:
        """Nobody but us writes into the bucket, so its size tells."""
        try:
            return (await self._wire.ask("HEAD", key)).headers.get("content-length") == str(size)
        except Refused:
            return False

    async def _abandon(self, key: str, upload: Mapping[str, str], sent: list[asyncio.Task[str]]) -> None:
        for part in sent:
            part.cancel()
        await asyncio.gather(*sent, return_exceptions=True)
        try:
            await self._wire.ask("DELETE", key, query=upload, attempts=1)
        except (Refused, Unreachable):
            return  # the bucket is removed with all uploads in it

    async def _begin(self, work: Coroutine[Any, Any, str], size: int) -> asyncio.Task[str]:
        """Run the work beside the others, once there is room for it."""
        while (
            self._failure is None and self._tasks and (self._bytes + size > ROW_BYTES or len(self._tasks) >= REQUESTS)
        ):
            self._room.clear()
            await self._room.wait()
        if self._failure is not None:
            work.close()
            raise self._failure
        task = asyncio.create_task(work)
        self._tasks.add(task)
        self._bytes += size
        task.add_done_callback(lambda done: self._ended(done, size))
        return task

    def _ended(self, task: asyncio.Task[str], size: int) -> None:
        self._tasks.discard(task)
        self._bytes -= size
        if not task.cancelled() and (error := task.exception()) is not None and self._failure is None:
            self._failure = error
        self._room.set()


async def _joined(blocks: AsyncIterator[Buffer]) -> Buffer:
    found: list[Buffer] = [block async for block in blocks]
    if len(found) == 1:
        return found[0]
    return b"".join(found)
