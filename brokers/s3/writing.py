"""Writes entries of a copy into a bucket: small objects many at a time, big ones in parts, and all of them in a fixed
number of bytes."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

from brokers.s3 import attributes, parts
from brokers.s3.answers import Answer
from brokers.s3.connection import SLICE_BYTES
from brokers.s3.uploading import Upload
from brokers.s3.wire import Body, Wire
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


class Small(NamedTuple):
    """An object that is sent in one piece. ``sent`` is called when its bytes are needed no more."""

    key: str
    metadata: Mapping[str, str]
    body: Buffer
    sent: Callable[[], None]


def is_small(metadata: Mapping[str, str], size: int) -> bool:
    """Whether an object may be :class:`Small`."""
    return size <= SLICE_BYTES and not parts.size_of_parts(size, attributes.etag_of(metadata))


class Writing:
    """The objects of one bucket on their way. Leaving the block waits for all of them; what fails surfaces at the next
    call, or there."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._tasks: set[asyncio.Task[str]] = set()
        self._waiting: deque[Small] = deque()
        self._flying = 0
        self._bytes = 0
        self._room = asyncio.Event()
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Writing:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.give_up(error)
        try:
            while self._failure is None and (self._waiting or self._flying or self._tasks):
                await self._some_room()
        except BaseException as cancelled:
            self.give_up(cancelled)
            raise
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is None and self._failure is not None:
            raise self._failure

    def give_up(self, why: BaseException) -> None:
        """Begin nothing more; whoever waits for room gets the reason."""
        if self._failure is None:
            self._failure = why
        self._room.set()

    async def add(self, key: str, metadata: Mapping[str, str], size: int, blocks: AsyncIterator[Buffer]) -> None:
        """Read the entry's bytes and have them written."""
        upload = await self.begin(key, metadata, size)
        if upload is None:
            await self.put(key, metadata, tuple([block async for block in blocks]))
            return
        try:
            async for block in blocks:
                await upload.take(block)
        except BaseException:
            await upload.abandon()
            raise
        await upload.finish()

    async def begin(self, key: str, metadata: Mapping[str, str], size: int) -> Upload | None:
        """An object that is written in parts; ``None`` where :meth:`put` has to write it."""
        part_size = parts.size_of_parts(size, attributes.etag_of(metadata))
        if not part_size and size <= WHOLE_BYTES:
            return None
        headers = _headers(key, metadata)
        return await Upload.begin(self, key, headers, size, part_size=part_size or parts.usual(size, PART_BYTES))

    async def put(self, key: str, metadata: Mapping[str, str], body: Body) -> None:
        """Have an object written in one request."""
        size = sum(map(len, body)) if isinstance(body, tuple) else len(body)
        await self.start(self._put(key, _headers(key, metadata), body), size)

    async def put_small(self, objects: Iterable[Small]) -> None:
        """Have small objects written, each with little more than its two system calls. Returns when the last of them
        are under way, or soon will be."""
        self._waiting.extend(objects)
        self._launch()
        while self._failure is None and len(self._waiting) > REQUESTS:
            await self._some_room()
        self._raise()

    async def start(self, work: Coroutine[Any, Any, str], size: int) -> asyncio.Task[str]:
        """Run the work beside the others, once there is room for it."""
        while self._failure is None and (self._flying or self._tasks) and not self._fits(size):
            await self._some_room()
        if self._failure is not None:
            work.close()
            raise self._failure
        return self._run(work, size, lambda: None)

    def _fits(self, size: int) -> bool:
        return self._bytes + size <= ROW_BYTES and len(self._tasks) + self._flying < REQUESTS

    async def _some_room(self) -> None:
        self._room.clear()
        await self._room.wait()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _launch(self) -> None:
        """Send what there is room for."""
        while self._waiting and self._failure is None:
            size = len(self._waiting[0].body)
            if (self._flying or self._tasks) and not self._fits(size):
                break
            small = self._waiting.popleft()
            try:
                headers = _headers(small.key, small.metadata)
                answer = self.wire.begin(small.key, headers=headers, body=small.body)
            except Exception as error:
                self.give_up(error)
                return
            if answer is None:
                self._run(self._put(small.key, headers, small.body), size, small.sent)
                continue
            self._flying += 1
            self._bytes += size
            answer.add_done_callback(partial(self._landed, small, headers))
        if len(self._waiting) <= REQUESTS:
            self._room.set()

    def _landed(self, small: Small, headers: Mapping[str, str], done: asyncio.Future[Answer]) -> None:
        self._flying -= 1
        self._bytes -= len(small.body)
        if self._failure is not None or done.cancelled():
            self._room.set()
            return
        if done.exception() is None and done.result().status < 300:
            small.sent()
        else:
            self._run(self._put(small.key, headers, small.body), len(small.body), small.sent)
        self._launch()

    async def _put(self, key: str, headers: Mapping[str, str], body: Body) -> str:
        return (await self.wire.ask("PUT", key, headers=headers, body=body)).headers.get("etag", "")

    def _run(self, work: Coroutine[Any, Any, str], size: int, sent: Callable[[], None]) -> asyncio.Task[str]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        self._bytes += size
        task.add_done_callback(lambda done: self._ended(done, size, sent))
        return task

    def _ended(self, task: asyncio.Task[str], size: int, sent: Callable[[], None]) -> None:
        self._tasks.discard(task)
        self._bytes -= size
        if not task.cancelled() and (error := task.exception()) is not None:
            self.give_up(error)
        else:
            sent()
        self._room.set()
        self._launch()


def _headers(key: str, metadata: Mapping[str, str]) -> dict[str, str]:
    headers = attributes.to_headers(metadata)
    if any(_UNSENDABLE.search(name) or _UNSENDABLE.search(value) for name, value in headers.items()):
        raise permanent_error("wrong_copy", f"object {key!r} has metadata that no header can hold", field="restore")
    return headers
