"""The gate that every write passes, and that the quiesce hook closes.

While the gate is closed new writes are *held*, not refused; reads never see the gate. ``quiesce`` returns
when no write is in flight any more: from then until the thaw the data does not change. The gate opens by
itself at its own deadline, so that whoever closed it may die without hanging the application.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass


class StoppingError(Exception):
    """The application is stopping while the write was held; the write had no effect."""


class NotQuiescedError(Exception):
    """The gate opened (by deadline or thaw) before the writes in flight had finished."""


@dataclass(frozen=True, kw_only=True)
class GateState:
    """A moment of the gate: seconds left are ``None`` while it is open.

    ``hold`` names the newest closing; ``held`` says whether it has kept writes out without a break, from the
    acknowledged quiesce until now or until the thaw that ended it. A deadline that passed breaks it.
    """

    hold: str | None
    held: bool
    quiesced: bool
    closed: bool
    in_flight: int
    waiting: int
    seconds_left: float | None


class WriteGate:
    """One per process; used from one event loop."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._held_back = 0
        self._hold: str | None = None
        self._unbroken = False
        self._stopping = False
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[None]:
        """Pass the gate for one write; waits while it is closed.

        Raises:
            StoppingError: the application stops while this write is held.
        """
        self._held_back += 1
        try:
            await self._until(lambda: self._deadline is None or self._stopping)
        finally:
            self._held_back -= 1
        if self._deadline is not None:
            raise StoppingError
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._announce()

    async def quiesce(self, deadline_seconds: float) -> None:
        """Close the gate and wait until no write is in flight. A repetition only moves the deadline on.

        Raises:
            NotQuiescedError: the gate opened before the writes in flight had finished.
        """
        loop = asyncio.get_running_loop()
        if self._deadline is None:
            self._hold, self._unbroken = uuid.uuid4().hex, False
        hold = self._hold
        self._deadline = max(loop.time() + deadline_seconds, self._deadline or 0.0)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._deadline, self._expire)
        await self._until(lambda: self._in_flight == 0 or self._hold != hold or self._deadline is None)
        if self._deadline is None or self._hold != hold:
            raise NotQuiescedError
        self._unbroken = True

    def thaw(self) -> None:
        """Open the gate; held writes go on. Without effect on an open gate, so ``held`` stays what it was."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._deadline = None
        self._announce()

    def stop(self) -> None:
        """Let held writes fail with :class:`StoppingError` rather than slip into a quiesced copy."""
        self._stopping = True
        self._announce()

    def state(self) -> GateState:
        left = None if self._deadline is None else self._deadline - asyncio.get_running_loop().time()
        return GateState(
            hold=self._hold,
            held=self._unbroken,
            quiesced=self._deadline is not None and self._in_flight == 0,
            closed=self._deadline is not None,
            in_flight=self._in_flight,
            waiting=self._held_back,
            seconds_left=None if left is None else max(0.0, round(left, 3)),
        )

    def _expire(self) -> None:
        self._unbroken = False
        self.thaw()

    async def _until(self, holds: Callable[[], bool]) -> None:
        # The condition is checked again after every wake-up, and nothing is awaited between the check and
        # the return: what the caller does next still sees it true.
        while not holds():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)

    def _announce(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
