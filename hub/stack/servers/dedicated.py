"""PostgreSQL servers that a broker started for single data services. They are no parts of a stack and outlive their
broker; a stack that stops stops them too, by the process id in the data directory of each.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from hub.stack.layout import HomeLayout
from hub.stack.processes import ProcessIdentity, gone, identify, send

FAST_SECONDS = 20.0
KILLED_SECONDS = 5.0
_FAST, _AT_ONCE = signal.SIGINT, signal.SIGQUIT


async def stop_dedicated(layout: HomeLayout) -> list[Path]:
    """Stop all of a home, whoever started them; the data directories of those that ran. One that does not stop in time
    is told to stop at once, which its log makes good at the next start."""
    running = await asyncio.to_thread(_running, layout)
    loop = asyncio.get_running_loop()
    for signaled, seconds in ((_FAST, FAST_SECONDS), (_AT_ONCE, KILLED_SECONDS)):
        left = []
        for identity in running.values():
            send(identity, signaled)
        deadline = loop.time() + seconds
        for identity in running.values():
            if not await gone(identity, deadline=deadline):
                left.append(identity)
        if not left:
            break
    return list(running)


def _running(layout: HomeLayout) -> dict[Path, ProcessIdentity]:
    """By data directory, the processes that work in it and that it names. Blocking."""
    found: dict[Path, ProcessIdentity] = {}
    for record in layout.home.glob("sites/*/servers/*/data/postmaster.pid"):
        try:
            number = int(record.read_text().split("\n", 1)[0])
            there = Path(f"/proc/{number}/cwd").samefile(record.parent)
        except (OSError, ValueError):
            continue
        if there and (identity := identify(number)) is not None:
            found[record.parent] = identity
    return found
