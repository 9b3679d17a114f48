"""Bytes go on no faster than a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

_LEAST_BYTES = 4096
AHEAD_SECONDS = 0.25
"""How much may go at once after a time when less went than was allowed."""


class Pace:
    """Shared by all whose bytes count together, on one event loop. Without a limit it costs nothing."""

    def __init__(self, bytes_per_second: int) -> None:
        """0 is no limit."""
        self._rate = bytes_per_second
        self._due = 0.0

    @property
    def limited(self) -> bool:
        return self._rate > 0

    def pieces(self, block: bytes) -> Iterable[bytes]:
        """The block, cut into what may go at once."""
        most = max(_LEAST_BYTES, int(self._rate * AHEAD_SECONDS))
        if self._rate <= 0 or len(block) <= most:
            return (block,)
        return (block[at : at + most] for at in range(0, len(block), most))

    async def take(self, count: int) -> None:
        """Returns when so many bytes more may have passed."""
        if self._rate <= 0 or count <= 0:
            return
        loop = asyncio.get_running_loop()
        self._due = max(self._due, loop.time() - AHEAD_SECONDS) + count / self._rate
        delay = self._due - loop.time()
        if delay > 0:
            await asyncio.sleep(delay)
