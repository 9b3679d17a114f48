"""Ending tasks, for certain.

Until Python 3.12 ``asyncio.wait_for`` drops a cancellation that arrives just when what it waits for is there: the task
goes on as if nobody had said a word, and whoever waits for its end waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_SECONDS = 0.2


async def end(tasks: Iterable[asyncio.Task[Any]], *, again_seconds: float = AGAIN_SECONDS) -> None:
    """Cancel ``tasks`` until they have ended. What they raised meanwhile is left to whoever holds them."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=again_seconds)
