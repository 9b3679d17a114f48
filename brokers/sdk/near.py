"""The short way from a broker to a copy repository on the same machine: Unix sockets without a name in the file system
(Linux), in place of TLS. ADR 100.

`<name>` takes the same HTTP requests as the HTTPS endpoint. `<name>.files` takes open files, so that what lies in one
need not be sent: the client sends 32 hex digits of its choice together with the descriptor and gets one byte back; it
names the digits in the header `Calque-File` of the request whose body speaks of the file; and it is told how many bytes
were taken in since the last time, eight bytes (big endian) each.

Who listens at such a name is told by the kernel: only one that runs as root or as ourselves could look into this
process anyway, so nobody else gets a token or a byte.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
from aiohttp.client_proto import ResponseHandler

FILE_HEADER = "Calque-File"
HANDLE_BYTES = 32
AHEAD_BYTES = 64 << 20
"""How much may be spoken of before the other side has taken it in."""
_BUFFER_BYTES = 4 << 20
_CONNECT_SECONDS = 5.0
_CREDENTIALS = struct.Struct("3i")
_COUNT = struct.Struct(">Q")


def available() -> bool:
    """Whether this system has such sockets."""
    return sys.platform == "linux"


def address(name: str) -> str:
    """Where requests go."""
    return f"\0{name}"


def files_address(name: str) -> str:
    """Where open files go."""
    return f"\0{name}.files"


def count_bytes(count: int) -> bytes:
    """How the client is told that so many more bytes were taken in."""
    return _COUNT.pack(count)


def user_of(connection: socket.socket) -> int:
    """Who runs the process at the other end, as the kernel says."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(raw)
    return int(user)


def trusted(connection: socket.socket) -> bool:
    """Whether the process at the other end runs as root or as we do."""
    return user_of(connection) in (0, os.geteuid())


class NearConnector(aiohttp.UnixConnector):
    """Connects to a repository on this machine, and to nobody who is not trusted."""

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[aiohttp.tracing.Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        handler = await super()._create_connection(req, traces, timeout)
        transport = handler.transport
        connection = transport.get_extra_info("socket") if transport is not None else None
        if connection is None or not trusted(connection):
            handler.close()
            raise PermissionError("somebody else listens in the place of the repository")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        return handler


async def reaches(name: str) -> bool:
    """Whether a repository that is trusted answers at this name on this machine."""
    if not name or not available():
        return False
    try:
        await asyncio.to_thread(_look, address(name))
    except OSError:
        return False
    return True


def _look(where: str) -> None:
    _connect(where).close()


def _connect(where: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_CONNECT_SECONDS)
        connection.connect(where)
        if not trusted(connection):
            raise PermissionError("somebody else listens in the place of the repository")
    except BaseException:
        connection.close()
        raise
    return connection


class PassedFile:
    """A file that the repository reads for itself. ``handle`` is how requests name it."""

    def __init__(self, connection: socket.socket, handle: str, progress: Callable[[int], None]) -> None:
        self.handle = handle
        self._connection = connection
        self._progress = progress
        self._ahead = 0
        self._over = False
        self._moved = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether there is no room just now."""
        return self._ahead >= AHEAD_BYTES

    async def room(self, size: int) -> None:
        """Returns when ``size`` bytes more may be spoken of; also when nobody listens any more, which the request
        tells better."""
        while self._ahead >= AHEAD_BYTES and not self._over:
            self._moved.clear()
            await self._moved.wait()
        self._ahead += size

    def spoke(self, size: int) -> None:
        """So many bytes more were sent or spoken of, and will be told as taken in."""
        self._ahead += size

    async def listen(self) -> None:
        """Take in what the other side tells, until it is through with the file."""
        loop, rest = asyncio.get_running_loop(), b""
        # When the connection breaks the request fails too, and says why.
        with suppress(OSError):
            while block := await loop.sock_recv(self._connection, 4096):
                rest += block
                whole = len(rest) - len(rest) % _COUNT.size
                count = sum(number for (number,) in _COUNT.iter_unpack(rest[:whole]))
                rest = rest[whole:]
                self._ahead -= count
                self._progress(count)
                self._moved.set()
        self._over = True
        self._moved.set()


@asynccontextmanager
async def passed_file(name: str, descriptor: int, *, progress: Callable[[int], None]) -> AsyncIterator[PassedFile]:
    """The file, passed to the repository at this name. ``progress`` is told how many bytes of it, and of what else was
    sent in the same request, were taken in. Raises ``OSError``."""
    handle, connection = await _connected(name, descriptor)
    file = PassedFile(connection, handle, progress)
    listening = asyncio.create_task(file.listen())
    # Not here: whoever waits below may be cancelled, and while somebody listens its number must not be another's.
    listening.add_done_callback(lambda _: connection.close())
    try:
        yield file
        # What is still on its way to us is read: it is the end of the progress.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_SECONDS):
                await asyncio.shield(listening)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


@asynccontextmanager
async def stream_from(name: str) -> AsyncIterator[tuple[str, socket.socket]]:
    """A connection on which the repository at this name can send a part, and the handle that requests name it by. It is
    read from threads; whoever leaves has to know that none reads any more. Raises ``OSError``."""
    handle, connection = await _connected(name, None)
    try:
        yield handle, connection
    finally:
        connection.close()


def _close(passed: asyncio.Future[socket.socket]) -> None:
    """Nobody wants it any more."""
    if not passed.cancelled() and passed.exception() is None:
        passed.result().close()


async def _connected(name: str, descriptor: int | None) -> tuple[str, socket.socket]:
    """A connection to the repository at this name, that brought the file along if there is one, and the handle that
    requests name it by. Raises ``OSError``."""
    handle = secrets.token_hex(HANDLE_BYTES // 2)
    # Of its own: when we are cancelled the thread goes on, and by then the caller's number may be another file's.
    own = None if descriptor is None else os.dup(descriptor)
    passing = asyncio.ensure_future(asyncio.to_thread(_pass, files_address(name), handle, own))
    try:
        return handle, await asyncio.shield(passing)
    except asyncio.CancelledError:
        passing.add_done_callback(_close)
        raise


def _pass(where: str, handle: str, descriptor: int | None) -> socket.socket:
    """Closes the descriptor."""
    try:
        connection = _connect(where)
        try:
            socket.send_fds(connection, [handle.encode()], [] if descriptor is None else [descriptor])
            if not connection.recv(1):
                raise ConnectionResetError("the repository took no file")
            connection.setblocking(False)
        except BaseException:
            connection.close()
            raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return connection
