"""COPY over the bare socket of a session (PostgreSQL's frontend/backend protocol 3.0, sections "COPY Operations" and
"Message Formats").

A server sends each row as a message of its own. libpq hands them over one by one, which costs more than all else that
happens to a row; here they are read and sent in big blocks that are never looked into. So what a ``COPY ... TO
STDOUT`` gives is a run of CopyData messages, five bytes in front of each row, cut anywhere, and a ``COPY ... FROM
STDIN`` takes such a run as it is.

Where a run ends can't be seen without walking over it. So another statement is sent along with the COPY, and its
answer is a random word: no row can hold it, since it was made up after the snapshot was taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from brokers.sdk.digests import Buffer

BLOCK_BYTES = 1 << 20
RECEIVE_BYTES = 1 << 20
SHORT_BYTES = 128 << 10
PAUSE_SECONDS = 0.002
"""After less than ``SHORT_BYTES`` came, the socket is left to fill for so long: a server sends 8 KiB at a time."""
SILENCE_SECONDS = 1.0
"""Bytes that look like the end of a statement that failed are it when nothing follows for so long."""
TAIL_BYTES = 1024
GIVE_UP_SECONDS = 2.0
"""How long the server may take to say that it has given up a COPY whose source failed."""
_HEADER = struct.Struct(">cI")
_READY = b"Z\0\0\0\x05"
_COPY_DONE = _HEADER.pack(b"c", 4)
_DONE = re.compile(rb"c\0\0\0\x04C\0\0\0.COPY \d+\0", re.DOTALL)


class WireFailed(Exception):
    """The server refused or broke off a COPY. ``state`` is its SQLSTATE, empty when the connection is gone."""

    def __init__(self, message: str, *, state: str = "") -> None:
        super().__init__(message)
        self.state = state


class _Message(NamedTuple):
    kind: bytes
    body: bytes


class CopyWire:
    """The socket of a session that is idle for everybody else. After a failure other than the server's own the
    session can only be closed."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=socket.dup(descriptor))
        self._socket.setblocking(False)
        self._came = bytearray()
        """What came and was not taken yet, outside of rows."""
        self._waiting = 0
        self._closed = False

    def close(self) -> None:
        """Let go of the socket. Who waits for it gets :class:`WireFailed`, and the connection is ended."""
        self._closed = True
        if not self._waiting:
            self._socket.close()
        else:
            self._shut()

    def _let_go(self) -> None:
        self._waiting -= 1
        if self._closed and not self._waiting:
            self._socket.close()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        """While the event loop watches the socket it must not be closed: its number could be another's."""
        if self._closed:
            raise WireFailed("the connection was closed")
        self._waiting += 1
        try:
            yield
        except OSError as error:
            raise WireFailed(f"the connection broke: {error.strerror or error}") from None
        finally:
            self._let_go()

    async def rows(self, statement: str) -> AsyncIterator[bytes]:
        """The messages that ``COPY ... TO STDOUT`` sends, in blocks. Raises :class:`WireFailed`."""
        word = secrets.token_hex(16)
        await self._send(_query(f"{statement}; SELECT '{word}'"))
        await self._begin(b"H")
        run = _Run(word.encode())
        piece, self._came = bytes(self._came), bytearray()
        total = 0
        while True:
            if piece:
                total += len(piece)
                if block := run.add(piece):
                    yield block
                if run.ended:
                    break
                # What is there is received without a pause: others on the event loop must have their turn.
                await asyncio.sleep(PAUSE_SECONDS if len(piece) < SHORT_BYTES < total else 0)
            came = await self._receive(SILENCE_SECONDS if run.looks_failed else None)
            if came is None:
                if refused := run.refusal():
                    raise refused
            elif not came:
                raise run.refusal() or WireFailed("the server closed the connection amid the rows of a table")
            piece = came or b""  # rows that look like an end, and a server that takes its time
        if block := run.rest():
            yield block

    async def send(self, statement: str, messages: AsyncIterator[Buffer]) -> None:
        """Send a run of CopyData messages as the data of a ``COPY ... FROM STDIN``. Raises :class:`WireFailed` with a
        state, after which the session can be used on, or what ``messages`` raises; after that it can if they ended
        with a whole message."""
        await self._send(_query(statement))
        await self._begin(b"G")
        # Listened to meanwhile: a server that can't say what it has to say takes no more rows.
        answer = asyncio.ensure_future(self._until_ready())
        try:
            async for block in messages:
                await self._send(block)
                if answer.done():
                    break
                await asyncio.sleep(0)
            else:
                await self._send(_COPY_DONE)
            early = answer.done()
            refused = await asyncio.shield(answer)
        except WireFailed as failed:
            self._shut()
            await asyncio.wait({answer})
            why = answer.exception()
            raise (why if isinstance(why, WireFailed) and why.state else failed) from None
        except asyncio.CancelledError:
            self._shut()
            raise
        except Exception:
            await self._give_up(answer)
            raise
        finally:
            await asyncio.wait({answer})
            answer.exception()  # looked at, so that what nobody waits for is not told as forgotten
        if refused is not None:
            raise refused
        if early:
            raise WireFailed("the server ended a COPY that was not at its end", state="08P01")

    async def _give_up(self, answer: asyncio.Future[WireFailed | None]) -> None:
        """Have the server forget the rows. Amid a message it does not understand that: the connection is ended."""
        with contextlib.suppress(WireFailed):
            await self._send(_message(b"f", b"the rows can't be read any more\0"))
        await asyncio.wait({answer}, timeout=GIVE_UP_SECONDS)
        if not answer.done():
            self._shut()

    async def _begin(self, kind: bytes) -> None:
        """Wait until the server is ready to copy."""
        while True:
            message = await self._next()
            if message.kind == kind:
                return
            if message.kind == b"E":
                await self._until_ready()
                raise _failure(message.body)

    async def _until_ready(self) -> WireFailed | None:
        """What the server says until it is ready for the next statement: its first error."""
        failure: WireFailed | None = None
        while (message := await self._next()).kind != b"Z":
            if message.kind == b"E" and failure is None:
                failure = _failure(message.body)
        return failure

    async def _next(self) -> _Message:
        while len(self._came) < _HEADER.size:
            await self._more()
        kind, length = _HEADER.unpack_from(self._came)
        while len(self._came) < 1 + length:
            await self._more()
        message = _Message(kind, bytes(self._came[_HEADER.size : 1 + length]))
        del self._came[: 1 + length]
        if message.kind == b"E" and message.body.startswith((b"SFATAL", b"SPANIC")):
            raise _failure(message.body)
        return message

    async def _more(self) -> None:
        piece = await self._receive()
        if not piece:
            raise WireFailed("the server closed the connection")
        self._came += piece

    async def _receive(self, seconds: float | None = None) -> bytes | None:
        """What comes; nothing at the end of the connection, ``None`` when nothing came for ``seconds``."""
        with self._using():
            try:
                async with asyncio.timeout(seconds):
                    return await asyncio.get_running_loop().sock_recv(self._socket, RECEIVE_BYTES)
            except TimeoutError:
                return None

    async def _send(self, block: Buffer) -> None:
        with self._using():
            await asyncio.get_running_loop().sock_sendall(self._socket, block)


class _Run:
    """Takes pieces of a run of messages and finds its end."""

    def __init__(self, word: bytes) -> None:
        self._word = word
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._tail = b""
        self.ended = False

    def add(self, piece: bytes) -> bytes:
        """A block that is ready, of which nothing can belong to the end."""
        self._tail = (self._tail + piece)[-TAIL_BYTES:] if len(piece) < TAIL_BYTES else piece[-TAIL_BYTES:]
        self._pieces.append(piece)
        self._size += len(piece)
        if self._word in self._tail:
            self._find_end()
        kept = 0 if self.ended else len(self._pieces[-1])
        if self._size - kept < BLOCK_BYTES or kept < TAIL_BYTES:
            return b""
        last = self._pieces.pop()
        block = b"".join(self._pieces)
        self._pieces.clear()
        self._pieces.append(last)
        self._size = kept
        return block

    @property
    def looks_failed(self) -> bool:
        """Whether what came last may say that the statement has ended, without the word."""
        return self._tail[-6:-1] == _READY

    def rest(self) -> bytes:
        """What came before the end and is in no block yet."""
        return b"".join(self._pieces)

    def refusal(self) -> WireFailed | None:
        """Nothing more comes: what the server said last, if it says that it failed."""
        said = b"".join(self._pieces)
        end = len(said) - 6 if said[-6:-1] == _READY else len(said)
        at = said.rfind(b"E", 0, end)
        while at >= 0:
            if at + 1 + int.from_bytes(said[at + 1 : at + 5], "big") == end and said[at + 5 : at + 6] == b"S":
                return _failure(said[at + 5 : end])
            at = said.rfind(b"E", 0, at)
        return None

    def _find_end(self) -> None:
        """The answer to the COPY, then that to the other statement, then that the server is ready."""
        before = self._tail.rindex(self._word)
        found = list(_DONE.finditer(self._tail, 0, before))
        if not found:
            return
        begin = at = found[-1].start()
        while at + _HEADER.size <= len(self._tail):
            kind, length = _HEADER.unpack_from(self._tail, at)
            at += 1 + length
            if kind == b"Z" and at == len(self._tail):
                self._cut(len(self._tail) - begin)
                return

    def _cut(self, count: int) -> None:
        """Take so many bytes from the end."""
        self.ended = True
        while count > 0:
            last = self._pieces.pop()
            if len(last) > count:
                self._pieces.append(last[: len(last) - count])
            count -= len(last)


def message_of(data: Buffer) -> bytes:
    """What stands in front of ``data`` so that both are a CopyData message."""
    return _HEADER.pack(b"d", 4 + len(data))


class Payloads:
    """Takes the messages off a run again, for who can't send it as it is."""

    def __init__(self) -> None:
        self._have = bytearray()

    def feed(self, block: Buffer) -> bytes:
        """What lies in the messages that ``block`` completes."""
        self._have += block
        found: list[memoryview] = []
        at, end = 0, len(self._have)
        with memoryview(self._have) as view:
            while at + _HEADER.size <= end:
                kind, length = _HEADER.unpack_from(view, at)
                if kind != b"d":
                    raise WireFailed("the copy holds something else than rows", state="08P01")
                if at + 1 + length > end:
                    break
                found.append(view[at + _HEADER.size : at + 1 + length])
                at += 1 + length
            payload = b"".join(found)
            for each in found:
                each.release()
        del self._have[:at]
        return payload


def _query(statement: str) -> bytes:
    return _message(b"Q", statement.encode() + b"\0")


def _message(kind: bytes, body: bytes) -> bytes:
    return _HEADER.pack(kind, 4 + len(body)) + body


def _failure(body: bytes) -> WireFailed:
    """An ErrorResponse (section "Error and Notice Message Fields"); what else it says may hold values of rows."""
    fields = {field[:1]: field[1:].decode(errors="replace") for field in body.split(b"\0") if field}
    return WireFailed(fields.get(b"M", "it did not say why"), state=fields.get(b"C", ""))
