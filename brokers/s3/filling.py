"""Fills a bucket with the entries of a copy whose repository is on the same machine: they come in a thread, small ones
together (:mod:`brokers.sdk.near_frames`), so that the event loop has little to do but requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from brokers.s3.uploading import Upload
from brokers.s3.writing import Small, Writing, is_small
from brokers.sdk.copystream import CopyReader
from brokers.sdk.copystream_near import Received, check
from brokers.sdk.digests import Buffer
from brokers.sdk.frames import Data, EntryBegin, EntryEnd
from brokers.sdk.near_frames import Whole

T = TypeVar("T")


async def fill(writing: Writing, reader: CopyReader, part: str) -> None:
    """Have every entry of the part written. When cancelled, nothing more is begun once this returns."""
    loop = asyncio.get_running_loop()
    taking = asyncio.create_task(reader.take_entries(part, lambda events: _Filling(writing, loop).take(part, events)))
    try:
        near = await asyncio.shield(taking)
    except asyncio.CancelledError as cancelled:
        writing.give_up(cancelled)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        raise
    if not near:
        async for head, blocks in reader.read_entries(part):
            await writing.add(head.key, head.metadata, head.size, blocks)


class _Filling:
    """What the thread does."""

    def __init__(self, writing: Writing, loop: asyncio.AbstractEventLoop) -> None:
        self._writing = writing
        self._loop = loop
        self._head: EntryBegin | None = None
        self._upload: Upload | None = None
        self._blocks: list[Buffer] = []

    def take(self, part: str, events: Iterator[Received]) -> None:
        """Have all of them written, as far as there is room for."""
        try:
            for event in events:
                if isinstance(event, Whole):
                    check(part, event)
                    self._whole(event)
                elif isinstance(event, EntryBegin):
                    self._head, self._blocks = event, []
                    self._upload = self._wait(self._writing.begin(event.key, event.metadata, event.size))
                elif isinstance(event, Data):
                    if self._upload is None:
                        self._blocks.append(event.data)
                    else:
                        self._wait(self._upload.take(event.data))
                elif isinstance(event, EntryEnd):
                    self._end()
        except BaseException:
            if self._upload is not None:
                self._wait(self._upload.abandon())
            raise

    def _whole(self, whole: Whole) -> None:
        sent = _Countdown(len(whole.entries), whole.release)
        small: list[Small] = []
        for entry, data in zip(whole.entries, whole.data, strict=True):
            if is_small(entry.metadata, entry.size):
                small.append(Small(entry.key, entry.metadata, data, sent))
                continue
            content = bytes(data)  # sent when the buffer is another's
            self._loop.call_soon_threadsafe(sent)
            if (upload := self._wait(self._writing.begin(entry.key, entry.metadata, entry.size))) is None:
                self._wait(self._writing.put(entry.key, entry.metadata, content))
                continue
            self._wait(upload.take(content))
            self._wait(upload.finish())
        self._wait(self._writing.put_small(small))

    def _end(self) -> None:
        head, upload = self._head, self._upload
        if upload is not None:
            self._upload = None
            self._wait(upload.finish())
        elif head is not None:
            self._wait(self._writing.put(head.key, head.metadata, tuple(self._blocks)))
        self._blocks = []

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _Countdown:
    """Calls back when it was called so many times."""

    def __init__(self, count: int, over: Callable[[], None]) -> None:
        self._left = count
        self._over = over

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._over()
