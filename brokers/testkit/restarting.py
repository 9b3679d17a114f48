"""The restart in the middle: every check that needs one waits for the same one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from brokers.testkit.checks import NotApplicable

Restart = Callable[[], Awaitable[None]]


class RestartGate:
    """Opens when all that take part have come to it, or have gone: then the broker was restarted once."""

    def __init__(self, restart: Restart | None, *, parties: int) -> None:
        self._restart = restart
        self._expected = parties
        self._waiting = 0
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def possible(self) -> bool:
        """Whether anybody can restart the broker."""
        return self._restart is not None

    async def pass_through(self) -> None:
        """Wait until the broker was restarted. Raises what the restart raised."""
        if self._restart is None:
            raise NotApplicable("the kit can't restart this broker; give --restart-command")
        self._waiting += 1
        await self._open_when_complete()
        await asyncio.shield(self._opened)

    async def leave(self) -> None:
        """Don't wait for me: I failed before I came to the gate."""
        self._expected -= 1
        if self._waiting:
            await self._open_when_complete()

    async def _open_when_complete(self) -> None:
        if self._waiting < self._expected or self._opened.done() or self._restart is None:
            return
        try:
            await self._restart()
        except Exception as error:
            self._opened.set_exception(error)
            self._opened.exception()
        else:
            self._opened.set_result(None)


def restart_by_command(command: str) -> Restart:
    """Run a shell command that ends when the broker was stopped and started again."""

    async def restart() -> None:
        process = await asyncio.create_subprocess_shell(command, stdin=asyncio.subprocess.DEVNULL)
        code = await process.wait()
        if code != 0:
            raise NotApplicable(f"the restart command ended with exit code {code}")

    return restart
