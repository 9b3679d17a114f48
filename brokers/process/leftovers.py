"""Stopping services without their broker: what a stop of the broker did not get to."""

from __future__ import annotations

import asyncio
import fcntl
import os

from brokers.process.layout import ServiceFiles, StateLayout
from brokers.process.processes import ServiceProcesses

_GRACE_SECONDS = 0.5


async def end_leftovers(layout: StateLayout) -> None:
    """Stop all services of the state directory, unless another broker has it; they start with the next broker."""
    try:
        lock = os.open(layout.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # no broker was ever here
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        await asyncio.gather(*(_end(files) for files in layout.all_services()))
    finally:
        os.close(lock)


async def _end(files: ServiceFiles) -> None:
    await ServiceProcesses(leader=None, home=str(files.home)).end(grace_seconds=_GRACE_SECONDS)
    files.run.unlink(missing_ok=True)
