"""What runs on a home, as others see it."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

from hub.stack.running import stop


async def test_a_stack_whose_killed_keeper_is_still_being_taken_apart_by_the_kernel_is_stopped(tmp_path: Path) -> None:
    lock = tmp_path / "run" / "lock"
    lock.parent.mkdir()
    lock.write_text(f"{(1 << 22) + 1} 1\n")  # no process has that number
    descriptor = os.open(lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    asyncio.get_running_loop().call_later(0.2, os.close, descriptor)
    stopped = await stop(tmp_path)
    assert stopped.keeper is None
    assert not stopped.parts
    assert not lock.read_text()
