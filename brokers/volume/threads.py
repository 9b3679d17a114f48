"""Work on the disk beside the event loop, that a cancellation ends and never leaves behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

R = TypeVar("R")


class Stopped(Exception):
    """The work was told to stop."""


class Stop:
    """Tells work in a thread that nobody wants it any more."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        """Raises :class:`Stopped` once it was told."""
        if self._event.is_set():
            raise Stopped


async def in_thread(work: Callable[[Stop], R]) -> R:
    """Run ``work`` in a thread. When cancelled, the work is told to stop and has ended when this returns."""
    stop = Stop()
    task = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # it was told to stop: how it ended is nobody's business any more
        raise
