"""A link that can be cut: a TCP relay that stops listening and hangs up, or goes on and carries nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LOOPBACK = "127.0.0.1"
PIECE_BYTES = 1 << 16


class Relay:
    """Carries connections to ``target``. ``port`` is where it listens."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._carries = asyncio.Event()
        self._carries.set()

    async def start(self) -> None:
        """Listen, at the same port as before if there was one."""
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Hang up and listen no more, until :meth:`start`."""
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def swallow(self) -> None:
        """Carry nothing any more: neither end is told anything."""
        self._carries.clear()

    def carry(self) -> None:
        """Carry again. What was swallowed meanwhile is delivered, as TCP does after an outage."""
        self._carries.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.ExitStack() as ends:
            ends.callback(writer.close)
            with contextlib.suppress(OSError):
                await self._carries.wait()
                there, back = await asyncio.open_connection(LOOPBACK, self._target)
                ends.callback(back.close)
                ways = [
                    asyncio.create_task(self._one_way(reader, back)),
                    asyncio.create_task(self._one_way(there, writer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE_BYTES):
            await self._carries.wait()
            writer.write(piece)
            await writer.drain()


@asynccontextmanager
async def relay(target: int) -> AsyncIterator[Relay]:
    """A relay that is up; it hangs up at the end."""
    found = Relay(target)
    await found.start()
    try:
        yield found
    finally:
        await found.cut()
