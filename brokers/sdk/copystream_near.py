"""Reads a part with entries from a repository on the same machine, in a thread (`brokers.sdk.near_frames`)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress

from brokers.sdk.copystream_events import failure_of
from brokers.sdk.copystream_http import CopyStreamError, broken, connection, damaged, request
from brokers.sdk.digests import Hasher, digest_hex
from brokers.sdk.frames import Data, End, EntryBegin, EntryEnd, Event, Failure, FrameError, entry_line
from brokers.sdk.near import FILE_HEADER, available, stream_from
from brokers.sdk.near_frames import STALL_SECONDS, Whole, receive
from schemas.brokers import CopyGrant

Received = Whole | EntryBegin | Data | EntryEnd
Take = Callable[[Iterator[Received]], None]
_ANSWER_SECONDS = 10.0


def check(part: str, whole: Whole) -> None:
    """Whether the bytes of the entries are those that were stored. Raises CopyStreamError."""
    for entry, data in zip(whole.entries, whole.data, strict=True):
        if digest_hex(data) != entry.digest:
            raise damaged(part, f"entry {entry.key!r} did not arrive as it was stored")


async def take_in_thread(grant: CopyGrant, part: str, take: Take, *, progress: Callable[[int], None]) -> bool:
    """Calls ``take`` in a thread with all that the part holds, if the repository can be reached without TLS; whether it
    can. Small entries have to be checked by who takes them, all else is. When cancelled, ``take`` has ended once this
    returns. Raises CopyStreamError, and what ``take`` raises."""
    if not grant.near or not available() or grant.bytes_per_second:
        return False
    loop = asyncio.get_running_loop()

    def tell(count: int) -> None:
        loop.call_soon_threadsafe(progress, count)

    async with AsyncExitStack() as stack:
        try:
            handle, stream = await stack.enter_async_context(stream_from(grant.near))
        except OSError:
            return False
        stream.settimeout(STALL_SECONDS)
        asking = asyncio.create_task(_ask(grant, part, handle))
        taking = asyncio.create_task(asyncio.to_thread(lambda: take(_checked(part, receive(stream), tell))))
        try:
            await asyncio.wait({asking, taking}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done() and asking.exception() is not None:
                asking.result()
            try:
                await asyncio.shield(taking)
            except CopyStreamError:
                # Why nothing more came, the answer to the request says best.
                await asyncio.wait({asking}, timeout=_ANSWER_SECONDS)
                if asking.done() and asking.exception() is not None:
                    asking.result()
                raise
            await asking
        finally:
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            asking.cancel()
            await _ended({asking, taking})
    return True


async def _ended(tasks: set[asyncio.Task[None]]) -> None:
    """Returns when all have ended, however often we are cancelled meanwhile: a thread that still read would do so from
    a descriptor that is closed, or another's by then."""
    cancelled = False
    while any(not task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            cancelled = True
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at: what is wrong is told already
    if cancelled:
        raise asyncio.CancelledError


async def _ask(grant: CopyGrant, part: str, handle: str) -> None:
    async with (
        connection(grant) as session,
        request(session, "GET", f"{grant.url}/parts/{part}", part=part, headers={FILE_HEADER: handle}) as response,
    ):
        await response.read()


def _checked(part: str, events: Iterator[Whole | Event], tell: Callable[[int], None]) -> Iterator[Received]:
    part_hasher, hasher = Hasher(), Hasher()
    total, count, size = 0, 0, 0
    begun: EntryBegin | None = None
    ended = False
    while (event := _next(part, events)) is not None:
        if isinstance(event, Whole):
            part_hasher.update(event.lines)
            passed = sum(entry.size for entry in event.entries)
            total += passed
            count += len(event.entries)
            yield event
            tell(passed)
        elif isinstance(event, EntryBegin):
            begun, hasher, size = event, Hasher(), 0
            yield event
        elif isinstance(event, Data):
            hasher.update(event.data)
            size += len(event.data)
            yield event
            tell(len(event.data))
        elif isinstance(event, EntryEnd) and begun is not None:
            if (event.size, event.digest) != (size, hasher.hex()) or begun.size != size:
                raise damaged(part, f"entry {begun.key!r} did not arrive as it was stored")
            line = entry_line(key=begun.key, size=begun.size, metadata=begun.metadata, digest=event.digest)
            part_hasher.update(line)
            total += size
            count += 1
            yield event
        elif isinstance(event, End):
            if (event.size, event.digest, event.entries) != (total, part_hasher.hex(), count):
                raise damaged(part, "the part did not arrive as it was stored: its size or digest differs")
            ended = True
        elif isinstance(event, Failure):
            raise CopyStreamError(failure_of(part, event))
        else:
            raise damaged(part, "the part came in frames of another layout")
    if not ended:
        raise broken(part, FrameError("the body was cut short: it ended before its END frame"))


def _next(part: str, events: Iterator[Whole | Event]) -> Whole | Event | None:
    try:
        return next(events, None)
    except (FrameError, OSError) as error:
        raise broken(part, error) from error
