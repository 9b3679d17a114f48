"""What a stage that goes straight into the repository hands on: bytes through a small piece of memory, and what they
are from a thread to the event loop."""

from __future__ import annotations

import asyncio
import mmap
import os
import threading
from collections import deque
from typing import NamedTuple

from brokers.sdk.copystream import KeptRange
from brokers.volume.inventory import Entry
from brokers.volume.survey import Room
from brokers.volume.threads import Stop

RING_BYTES = 24 << 20
MOST_WAITING = 64
_TURN_SECONDS = 0.2
"""How long a thread waits until it looks whether it shall stop."""


class Taken(NamedTuple):
    """Some entries, in order; the pieces of those that were read lie in the ring, of which they take so much."""

    entries: list[Entry]
    room: int


class Piece(NamedTuple):
    """Some bytes of the big file whose entry came before."""

    at: int
    length: int
    room: int


class Ring:
    """Memory in a file without a name, used again and again: room in it is taken in order, and given back in the same
    order, as the repository tells that it has taken in what lay there."""

    def __init__(self, size: int = RING_BYTES) -> None:
        self.size = size
        self.descriptor = os.memfd_create("calque-ahead", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.descriptor, size)
            self._memory = mmap.mmap(self.descriptor, size)
        except BaseException:
            os.close(self.descriptor)
            raise
        self._view = memoryview(self._memory)
        self._freed = threading.Condition()
        self._head = 0
        self._used = 0
        self._spoken = 0
        self._told = 0
        self._waiting: deque[tuple[int, int]] = deque()

    def close(self) -> None:
        """No thread uses it any more."""
        self._view.release()
        self._memory.close()
        os.close(self.descriptor)

    def room(self, size: int) -> tuple[Room, int] | None:
        """Room for ``size`` bytes in one piece, and how much of the ring it takes; None while there isn't any."""
        with self._freed:
            if not self._used:
                self._head = 0
            at, taken = self._head, size
            if at + size > self.size:
                at, taken = 0, size + self.size - at
            if self._used + taken > self.size:
                return None
            self._head = at + size
            self._used += taken
            return Room(at, at + size), taken

    def wait(self, stop: Stop) -> None:
        """Until something was given back, or a little longer than nothing."""
        stop.check()
        with self._freed:
            self._freed.wait(_TURN_SECONDS)

    def view(self, at: int, length: int) -> memoryview:
        """Where bytes are read to."""
        return self._view[at : at + length]

    def speak(self, size: int, taken: int) -> None:
        """The repository is told of ``size`` bytes now, for which so much of the ring was taken: none if they do not
        lie in it."""
        with self._freed:
            self._spoken += size
            self._waiting.append((self._spoken, taken))
            self._give_back()

    def told(self, count: int) -> None:
        """The repository has taken in so many bytes more."""
        with self._freed:
            self._told += count
            self._give_back()

    def _give_back(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._told:
            self._used -= self._waiting.popleft()[1]
        self._freed.notify_all()


Item = KeptRange | Taken | Entry | Piece


class Feed:
    """Hands what a thread found to the event loop, not much ahead of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[Item] = deque()
        self._room = threading.Condition()
        self._come = asyncio.Event()
        self._over = False
        self._failure: BaseException | None = None

    def put(self, item: Item, stop: Stop) -> None:
        """From the thread; waits while too much lies here."""
        with self._room:
            while len(self._items) >= MOST_WAITING:
                stop.check()
                self._room.wait(_TURN_SECONDS)
            self._items.append(item)
        self._loop.call_soon_threadsafe(self._come.set)

    def end(self, failure: BaseException | None = None) -> None:
        """From the thread: nothing more comes."""
        self._failure, self._over = failure, True
        self._loop.call_soon_threadsafe(self._come.set)

    async def next(self) -> Item | None:
        """The next; None at the end. Raises what the thread failed with."""
        while True:
            over = self._over
            if self._items:
                with self._room:
                    item = self._items.popleft()
                    self._room.notify()
                return item
            if over:
                if self._failure is not None:
                    raise self._failure
                return None
            self._come.clear()
            if not self._items and not self._over:
                await self._come.wait()
