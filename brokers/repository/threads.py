"""Blocking work of the repository, run in threads."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Runs `call` in a thread. When cancelled, it waits until the thread is through, so that whoever cleans up
    afterwards is alone. Calls must be short, or ask whether they were cancelled."""
    task = asyncio.ensure_future(asyncio.to_thread(call, *arguments, **named))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            # Looked at, so that a failure of work that nobody wants any more isn't reported as forgotten.
            task.exception()
        raise
