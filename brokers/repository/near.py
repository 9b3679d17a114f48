"""Takes open files from brokers on the same machine, whose bytes need not be sent then (`brokers.sdk.near`)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import threading
from contextlib import suppress
from typing import NamedTuple

from brokers.repository.placed import PassedBytes
from brokers.sdk.near import HANDLE_BYTES, count_bytes, files_address, user_of

RECEIVE_SECONDS = 10.0
CLAIM_SECONDS = 60.0
"""How long a file waits for the request that speaks of it."""
MOST_WAITING = 64
"""Of one user: anybody on this machine may connect, and nobody takes the place of others."""

logger = logging.getLogger(__name__)


class ReceivedFile:
    """A regular file that a writer passed. Close it in the end."""

    def __init__(self, descriptor: int, connection: socket.socket) -> None:
        self.bytes = PassedBytes(descriptor)
        self._connection = connection
        self._lock = threading.Lock()
        self._untold = 0

    def told(self, count: int) -> None:
        """Tell the writer that so many bytes more were taken in. Never blocks: what can't be told now is told with the
        next. One caller at a time."""
        self._untold += count
        if not self._untold:
            return
        # That a writer is gone is noticed by its request.
        with self._lock, suppress(OSError):
            self._connection.send(count_bytes(self._untold))
            self._untold = 0

    def close(self) -> None:
        self.bytes.close()
        with self._lock:
            self._connection.close()


class ReceivedStream:
    """A connection that a reader wants a part on. Close it in the end, when nobody sends on it any more."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def end(self) -> None:
        """Whoever sends on it fails."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.connection.close()


class _Waiting(NamedTuple):
    """What came, and the user who sent it."""

    user: int
    what: ReceivedFile | ReceivedStream


class ReceivedFiles:
    """Files that wait for the requests that speak of them, and connections that wait for what is to be read."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._receiving: dict[asyncio.Task[None], int] = {}
        self._waiting: dict[str, _Waiting] = {}

    def start(self, name: str) -> None:
        """Listens below the name. Raises OSError."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(files_address(name))
            listening.listen(MOST_WAITING)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
        self._socket = listening
        self._accepting = asyncio.create_task(self._accept(listening), name="take open files")

    async def stop(self) -> None:
        tasks = [*self._receiving, *([self._accepting] if self._accepting is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._accepting = None
        for handle in list(self._waiting):
            self._drop(handle)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def take(self, handle: str) -> ReceivedFile | None:
        """The file of this handle, once."""
        found = self._waiting.get(handle)
        if found is None or not isinstance(found.what, ReceivedFile):
            return None
        del self._waiting[handle]
        return found.what

    def take_stream(self, handle: str) -> ReceivedStream | None:
        """The connection of this handle, once."""
        found = self._waiting.get(handle)
        if found is None or not isinstance(found.what, ReceivedStream):
            return None
        del self._waiting[handle]
        return found.what

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
                user = user_of(connection)
            except OSError as error:
                logger.warning("no open file could be taken: %s", error)
                await asyncio.sleep(1.0)
                continue
            users = [*self._receiving.values(), *(each.user for each in self._waiting.values())]
            if users.count(user) >= MOST_WAITING:
                connection.close()
                continue
            task = asyncio.create_task(self._receive(connection, user))
            self._receiving[task] = user
            task.add_done_callback(self._receiving.pop)

    async def _receive(self, connection: socket.socket, user: int) -> None:
        """On the event loop: whoever connects and sends nothing holds no thread."""
        found: tuple[str, int | None] | None = None
        try:
            async with asyncio.timeout(RECEIVE_SECONDS):
                while found is None:
                    await _readable(connection)
                    with suppress(BlockingIOError):
                        found = _received(connection)
        except OSError as error:
            logger.info("no open file came: %s", error)
        finally:
            if found is None:
                connection.close()
        if found is None:
            return
        handle, descriptor = found
        if handle in self._waiting:
            if descriptor is not None:
                os.close(descriptor)
            connection.close()
            return
        what = ReceivedStream(connection) if descriptor is None else ReceivedFile(descriptor, connection)
        self._waiting[handle] = _Waiting(user, what)
        asyncio.get_running_loop().call_later(CLAIM_SECONDS, self._drop, handle)
        try:
            connection.send(b"k")
        except OSError:
            self._drop(handle)

    def _drop(self, handle: str) -> None:
        found = self._waiting.pop(handle, None)
        if found is not None:
            found.what.close()


async def _readable(connection: socket.socket) -> None:
    """Waits until something came, or the other end is closed."""
    loop = asyncio.get_running_loop()
    came = loop.create_future()
    loop.add_reader(connection, lambda: None if came.done() else came.set_result(None))
    try:
        await came
    finally:
        loop.remove_reader(connection)


def _received(connection: socket.socket) -> tuple[str, int | None]:
    """The handle and the descriptor; none with a connection to be written to. Raises BlockingIOError while nothing
    came, another OSError when it is not what it should be."""
    said, descriptors, _, _ = socket.recv_fds(connection, HANDLE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    try:
        handle = said.decode("ascii", "replace")
        if len(handle) != HANDLE_BYTES or not handle.isalnum():
            raise ConnectionError("what was said is no handle")
        if not descriptors:
            return handle, None
        if not stat.S_ISREG(os.fstat(descriptors[0]).st_mode):
            raise ConnectionError("what was passed is no regular file")
        return handle, descriptors.pop()
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
