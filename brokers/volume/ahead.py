"""A stage that goes straight into the repository: the bytes of files are read once, into a small piece of memory that
the repository on the same machine reads them from, and nothing of them is kept here.

What was sent so is no part of the copy. The inventory of the stage says which entry it is by its number; when the
moment is fixed, what is still the same refers to that, and what changed since is kept in the content file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from functools import partial

from brokers.sdk.copystream import CopyStreamError, CopyWriter, KeptRange, PlacedBatch, PlacedEntry, PlacedPieces
from brokers.sdk.near import reaches
from brokers.volume.inventory import Entry, Origin
from brokers.volume.ring import Feed, Item, Piece, Ring, Taken
from brokers.volume.survey import untold
from brokers.volume.threads import Stop, in_thread
from schemas.brokers import CopyGrant
from schemas.problems import temporary
from schemas.values import CopyPart

RANGE_ENTRIES = 10_000


class Ahead:
    """Where a stage may send to: the repository of a grant, if that is on this machine."""

    def __init__(self, grant: CopyGrant, part: str, *, progress: Callable[[int], None] = untold) -> None:
        """``progress`` is told how many bytes were taken in, all together, on the event loop."""
        self.grant = grant
        self._part = part
        self._progress = progress

    async def reached(self) -> bool:
        """Whether it can be sent to at all."""
        return self.grant.bytes_per_second == 0 and await reaches(self.grant.near)

    async def send(self, walk: Callable[[Ring, Feed, Stop], None]) -> CopyPart | None:
        """Sends what ``walk`` puts into the feed, from a thread; the part that came of it, if there was anything.
        Raises :class:`CopyStreamError`, and what the walk raises."""
        ring, feed = Ring(), Feed(asyncio.get_running_loop())
        walking = asyncio.create_task(in_thread(partial(_walked, walk, ring, feed)))
        try:
            part = await self._send(ring, feed)
            await walking
            return part
        finally:
            # Whatever went wrong here, it has to end before the ring goes.
            walking.cancel()
            await asyncio.wait({walking})
            if not walking.cancelled():
                walking.exception()
            ring.close()

    async def _send(self, ring: Ring, feed: Feed) -> CopyPart | None:
        first = await feed.next()
        if first is None:
            return None
        done = 0

        def told(count: int) -> None:
            nonlocal done
            done += count
            ring.told(count)
            self._progress(done)

        writer = CopyWriter(self.grant, progress=told)
        async with writer.passing(ring.descriptor) as placed:
            if not placed:
                raise CopyStreamError(temporary("repository_unreachable", "the repository took no memory"))
            async with aclosing(body(first, feed, ring)) as entries:
                return await writer.write_ahead(self._part, entries)


def _walked(walk: Callable[[Ring, Feed, Stop], None], ring: Ring, feed: Feed, stop: Stop) -> None:
    try:
        walk(ring, feed, stop)
    except BaseException as error:
        feed.end(error)
        raise
    feed.end()


class Numbering:
    """Puts what a walk found into the feed, and numbers it: what is the same as in the copy before goes as ranges of
    that, and all of it alone is not sent."""

    def __init__(self, feed: Feed, stop: Stop, *, origin: Origin | None) -> None:
        self._feed = feed
        self._stop = stop
        self._origin = origin
        self._held: list[KeptRange] | None = []
        self._first = 0
        self._kept = 0
        self._size = 0
        self.count = 0

    def entries(self, found: Iterable[Taken | Entry | Piece]) -> Iterator[Entry]:
        """The entries as they stand in the inventory of the stage."""
        for each in found:
            if isinstance(each, Piece):
                self._feed.put(each, self._stop)
            elif isinstance(each, Entry):
                self._put(each)
                yield self._numbered(each)
            else:
                yield from self._taken(each)
        self._end_range()
        origin = self._origin
        if self._held and not (origin is not None and self.count == origin.entries == self._held_entries()):
            self._put(Taken([], 0))

    @property
    def same(self) -> bool:
        """Whether all of it is the copy before, and nothing was sent."""
        return self._held is not None

    def _taken(self, taken: Taken) -> Iterator[Entry]:
        fresh: list[Entry] = []
        for entry in taken.entries:
            if entry.origin < 0:
                self._end_range()
                fresh.append(entry)
            else:
                if fresh:
                    self._put(Taken(fresh, 0))
                    fresh = []
                self._keep(entry)
            yield self._numbered(entry)
        if fresh or taken.room:
            self._put(Taken(fresh, taken.room))

    def _numbered(self, entry: Entry) -> Entry:
        self.count += 1
        deferred = entry.metadata["type"] == "file"
        return Entry(
            entry.key, entry.metadata, entry.size, (), entry.signature, deferred=deferred, origin=self.count - 1
        )

    def _keep(self, entry: Entry) -> None:
        if self._kept and (entry.origin != self._first + self._kept or self._kept >= RANGE_ENTRIES):
            self._end_range()
        if not self._kept:
            self._first = entry.origin
        self._kept += 1
        self._size += entry.size

    def _end_range(self) -> None:
        if not self._kept or self._origin is None:
            return
        kept = KeptRange(self._first, self._kept, self._size, self._origin.digest)
        self._kept = self._size = 0
        if self._held is None:
            self._feed.put(kept, self._stop)
        else:
            self._held.append(kept)

    def _put(self, item: Item) -> None:
        self._end_range()
        held, self._held = self._held or [], None
        for kept in held:
            self._feed.put(kept, self._stop)
        self._feed.put(item, self._stop)

    def _held_entries(self) -> int:
        """How many entries are held back, if they are the first ones of the copy before, one behind the other."""
        at = 0
        for kept in self._held or ():
            if kept.first != at:
                return -1
            at += kept.count
        return at


async def body(first: Item, feed: Feed, ring: Ring) -> AsyncGenerator[KeptRange | PlacedBatch | PlacedPieces, None]:
    """What comes through the feed as entries of a part."""
    item: Item | None = first
    while item is not None:
        if isinstance(item, KeptRange):
            ring.speak(item.size, 0)
            yield item
        elif isinstance(item, Taken):
            size = sum(entry.size for entry in item.entries)
            ring.speak(size, item.room)
            if item.entries:
                placed = [PlacedEntry(entry.key, entry.size, entry.metadata, entry.pieces) for entry in item.entries]
                yield PlacedBatch(placed, size)
        elif isinstance(item, Entry):
            yield PlacedPieces(item.key, item.size, item.metadata, _pieces(item.size, feed, ring))
        item = await feed.next()


async def _pieces(size: int, feed: Feed, ring: Ring) -> AsyncIterator[tuple[int, int]]:
    done = 0
    while done < size:
        item = await feed.next()
        if not isinstance(item, Piece):
            raise EOFError("a file was not read to its end")
        ring.speak(item.length, item.room)
        done += item.length
        yield item.at, item.length
