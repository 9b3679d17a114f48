"""Keeps the projections up to date, and lets others wait until they have seen a certain event."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple, Protocol

from bus.events import Recorded
from hub.projections.quick import QuickFold, no_collection
from hub.projections.state import Projections
from schemas.problems import CalqueError, temporary
from schemas.subjects import HUB

logger = logging.getLogger(__name__)

REMEMBERED = 4096
SEEN_SECONDS = 2.0


class Feed(Protocol):
    """A reader of ``EVENTS``. ``position`` also counts the events that were left out of the batches."""

    position: int

    def read(self, *, after: int = 0) -> AsyncIterator[list[Recorded]]:
        """Batches in order, without gaps and repeats, endlessly."""

    async def last_sequence(self) -> int:
        """The sequence of the last event stored now. Raises :class:`CalqueError` (temporary)."""


class Drain(Protocol):
    """Has all that is stored now behind a sequence taken in, in another thread, as far as it comes."""

    def __call__(
        self, take: Callable[[list[tuple[int, str, bytes]]], Iterable[Recorded]], *, after: int
    ) -> Awaitable[None]: ...


class Place(NamedTuple):
    """An event as it lies in ``EVENTS``."""

    sequence: int
    id: str


class Begin(NamedTuple):
    """A state to begin with, and the last event that is in it."""

    state: Projections
    place: Place | None


class Projector:
    """One reader of ``EVENTS``. ``state`` is what it has made of it; ``start`` gives it a state to begin with."""

    def __init__(
        self, feed: Feed, *, start: Callable[[], Awaitable[Begin]] | None = None, drain: Drain | None = None
    ) -> None:
        self.state = Projections()
        self._feed = feed
        self._start = start
        self._drain = drain
        self._still = asyncio.Lock()
        self._place: Place | None = None
        self._recent: deque[str] = deque(maxlen=REMEMBERED)
        self._awaited: list[tuple[int, int, asyncio.Future[None]]] = []
        """Who waits for a sequence: a heap of them."""
        self._awaited_ids: dict[str, list[asyncio.Future[None]]] = {}
        """Who waits for an event of the hub, by its id."""
        self._numbers = count()

    async def run(self) -> None:
        """Read for ever."""
        if self._start is not None:
            self.state, self._place = await self._start()
            self._tell()
        await self._catch_up()
        async for batch in self._feed.read(after=self.state.position):
            async with self._still:
                try:
                    self.state.apply(batch)
                    self.state.position = self._feed.position
                except Exception:
                    # A table that fell over would be wrong from here on: the process starts anew and reads again.
                    logger.exception("projecting events after %d failed", self.state.position)
                    raise
                if batch:
                    self._place = Place(batch[-1].sequence, batch[-1].envelope.id)
            own = [each.envelope.id for each in batch if each.writer == HUB]
            self._recent.extend(own)
            self._tell(own)

    async def _catch_up(self) -> None:
        """Take in what is stored now the quick way, as far as that goes. Nobody may ask the state meanwhile."""
        if self._drain is None:
            return
        fold = QuickFold(self.state)
        begun, before = time.monotonic(), self.state.position
        async with self._still:
            try:
                with no_collection():
                    await self._drain(fold.take, after=before)
            except Exception:
                logger.exception("projecting events after %d failed", self.state.position)
                raise
            if fold.last is not None:
                self._place = Place(*fold.last)
        if self.state.position > before:
            seconds = time.monotonic() - begun
            logger.info("took in the events %d to %d in %.1f s", before + 1, self.state.position, seconds)
        self._tell()

    def _tell(self, own: Iterable[str] = ()) -> None:
        """Those who waited for what is in the tables now; ``own`` are the ids of events of the hub."""
        while self._awaited and self._awaited[0][0] <= self.state.position:
            _arrived(heappop(self._awaited)[2])
        for id in own:
            for waiting in self._awaited_ids.get(id, ()):
                _arrived(waiting)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[tuple[Projections, Place | None]]:
        """The state while nothing is taken in, and the last event that was (``None``: none yet)."""
        async with self._still:
            yield self.state, self._place

    async def reached(self, sequence: int, *, timeout_seconds: float) -> None:
        """Return when the event with this sequence is in the tables. Raises :class:`CalqueError` (temporary)."""
        if self.state.position >= sequence:
            return
        there: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._awaited, (sequence, next(self._numbers), there))
        try:
            async with asyncio.timeout(timeout_seconds):
                await there
        except TimeoutError:
            raise CalqueError(
                temporary("lagging", f"the hub has read its events up to {self.state.position}, not to {sequence} yet")
            ) from None
        finally:
            if not there.done() or there.cancelled():
                self._awaited = [each for each in self._awaited if each[2] is not there]
                heapify(self._awaited)

    async def caught_up(self, *, timeout_seconds: float) -> None:
        """Return when everything that is stored now is in the tables. Raises :class:`CalqueError` (temporary)."""
        await self.reached(await self._feed.last_sequence(), timeout_seconds=timeout_seconds)

    async def seen(self, appended: Sequence[Recorded]) -> None:
        """Wait a little until the hub's own events are in the tables, so that who is answered can ask for them.

        An answer is not held back for a reader that lags: after ``SEEN_SECONDS`` it goes without.
        """
        if not appended:
            return
        last = appended[-1].envelope.id
        if last in self._recent:
            return
        there: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited_ids.setdefault(last, []).append(there)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SEEN_SECONDS):
                    await there
        finally:
            waiting = self._awaited_ids[last]
            waiting.remove(there)
            if not waiting:
                del self._awaited_ids[last]


def _arrived(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
