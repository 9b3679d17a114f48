"""Takes open files from brokers on the same machine, whose bytes need not be sent then (`brokers.sdk.near`)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import threading
from contextlib import suppress

from brokers.repository.placed import PassedBytes
from brokers.sdk.near import HANDLE_BYTES, count_bytes, files_address

RECEIVE_SECONDS = 10.0
CLAIM_SECONDS = 60.0
"""How long a file waits for the request that speaks of it."""
MOST_WAITING = 64

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


class ReceivedFiles:
    """Files that wait for the requests that speak of them, and connections that wait for what is to be read."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._receiving: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, ReceivedFile | ReceivedStream] = {}

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
        if not isinstance(found, ReceivedFile):
            return None
        del self._waiting[handle]
        return found

    def take_stream(self, handle: str) -> ReceivedStream | None:
        """The connection of this handle, once."""
        found = self._waiting.get(handle)
        if not isinstance(found, ReceivedStream):
            return None
        del self._waiting[handle]
        return found

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:
                logger.warning("no open file could be taken: %s", error)
                await asyncio.sleep(1.0)
                continue
            task = asyncio.create_task(self._receive(connection))
            self._receiving.add(task)
            task.add_done_callback(self._receiving.discard)

    async def _receive(self, connection: socket.socket) -> None:
        found: tuple[str, int | None] | None = None
        receiving = asyncio.ensure_future(asyncio.to_thread(_received, connection))
        try:
            found = await asyncio.shield(receiving)
        except OSError as error:
            logger.info("no open file came: %s", error)
        except asyncio.CancelledError:
            # The thread ends at once when nothing can come any more.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            await asyncio.wait({receiving})
            if not receiving.cancelled() and receiving.exception() is None:
                _forget(receiving.result())
            connection.close()
            raise
        if found is None or len(self._waiting) >= MOST_WAITING or found[0] in self._waiting:
            _forget(found)
            connection.close()
            return
        handle, descriptor = found
        if descriptor is None:
            self._waiting[handle] = ReceivedStream(connection)
        else:
            self._waiting[handle] = ReceivedFile(descriptor, connection)
        asyncio.get_running_loop().call_later(CLAIM_SECONDS, self._drop, handle)
        try:
            connection.send(b"k")
        except OSError:
            self._drop(handle)

    def _drop(self, handle: str) -> None:
        found = self._waiting.pop(handle, None)
        if found is not None:
            found.close()


def _forget(found: tuple[str, int | None] | None) -> None:
    if found is not None and found[1] is not None:
        os.close(found[1])


def _received(connection: socket.socket) -> tuple[str, int | None] | None:
    """The handle and the descriptor, if they are what they should be; none with a connection to be written to."""
    connection.settimeout(RECEIVE_SECONDS)
    said, descriptors, _, _ = socket.recv_fds(connection, HANDLE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    connection.setblocking(False)
    try:
        handle = said.decode("ascii", "replace")
        right = len(handle) == HANDLE_BYTES and handle.isalnum()
        if right and not descriptors:
            return handle, None
        if right and stat.S_ISREG(os.fstat(descriptors[0]).st_mode):
            return handle, descriptors.pop()
        return None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
