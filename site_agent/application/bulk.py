"""How many copies are made, fetched and restored at once at a site: the others wait for their turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Bulk:
    """The turns of one site's agent. Without a limit nobody waits."""

    def __init__(self, at_once: int) -> None:
        """0 is no limit."""
        self._turns = asyncio.Semaphore(at_once) if at_once else None

    @asynccontextmanager
    async def turn(self, *, needed: bool = True) -> AsyncIterator[None]:
        """Holds a turn; what moves no bulk data needs none."""
        if self._turns is None or not needed:
            yield
            return
        async with self._turns:
            yield
