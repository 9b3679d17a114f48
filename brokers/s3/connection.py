"""One HTTP/1.1 connection to an S3 server, made for many small answers: the head is parsed in place, and a body is
received into the buffer in which it is handed on. Requests go one after another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

HEAD_BYTES = 64 << 10
"""The longest head of an answer, and how much is read at once while it isn't known how long a body is."""
BODY_BYTES = 64 << 20
"""The longest body of an answer: whoever asks for more asks for ranges."""
SLICE_BYTES = 256 << 10
_NO_BODY = frozenset({204, 304})


class Answer(NamedTuple):
    """What a server answered. Header names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytearray


class Broken(ConnectionError):
    """The connection ended, or is not what HTTP says."""


class Connection(asyncio.BufferedProtocol):
    """Send with :meth:`ask`; then wait for the answer before the next one is asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._scratch = bytearray(HEAD_BYTES)
        self._view = memoryview(self._scratch)
        self._have = 0
        self._answer: asyncio.Future[Answer] | None = None
        self._without_body = False
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body: bytearray | None = None
        self._room: memoryview | None = None
        self._filled = 0
        self._chunked = False
        self._until_close = False
        self._resumed: asyncio.Future[None] | None = None
        self.active = loop.time()
        """When something arrived or was sent last, by the loop's clock."""
        self.keep = True
        """Whether another request may be sent after this one."""

    @property
    def waiting(self) -> bool:
        """Whether an answer is awaited."""
        return self._answer is not None

    def close(self, reason: BaseException | None = None) -> None:
        """End the connection; who waits for an answer gets :class:`Broken`."""
        self.keep = False
        if self._transport is not None:
            self._transport.abort()
        self._fail(Broken(str(reason or "the connection was closed")))

    def ask(self, head: bytes, *, without_body: bool = False) -> asyncio.Future[Answer]:
        """Send a request that has no body; its answer comes. ``without_body``: as to HEAD."""
        if self._transport is None or self._answer is not None:
            raise Broken("the connection is not free")
        self._answer = self._loop.create_future()
        self._without_body = without_body
        self.active = self._loop.time()
        self._transport.write(head)
        return self._answer

    async def send(self, head: bytes, body: bytes | bytearray | memoryview) -> Answer:
        """Send a request with a body, and wait for its answer."""
        view = memoryview(body)
        answer = self.ask(head + view[:SLICE_BYTES])
        for at in range(SLICE_BYTES, len(view), SLICE_BYTES):
            if answer.done() or self._transport is None:
                self.keep = False  # the server did not want the rest
                break
            self._transport.write(view[at : at + SLICE_BYTES])
            self.active = self._loop.time()
            if self._resumed is not None:
                await self._resumed
        return await answer

    # --- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a transport of a stream is needed")
        self._transport = transport
        transport.set_write_buffer_limits(high=2 * SLICE_BYTES)

    def connection_lost(self, error: Exception | None) -> None:
        self.keep = False
        self._transport = None
        if self._until_close and error is None and self._body is not None:
            self._done(self._body)
        self._fail(Broken(str(error) if error else "the server closed the connection"))
        self.resume_writing()

    def pause_writing(self) -> None:
        if self._resumed is None:
            self._resumed = self._loop.create_future()

    def resume_writing(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None and not resumed.done():
            resumed.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's
        if self._room is not None:
            return self._room[self._filled :]
        return self._view[self._have :]

    def buffer_updated(self, nbytes: int) -> None:
        self.active = self._loop.time()
        try:
            self._arrived(nbytes)
        except (ValueError, Broken) as error:
            self.close(error)

    def eof_received(self) -> bool:
        return False

    # --- what arrives

    def _arrived(self, count: int) -> None:
        if self._room is not None:
            self._filled += count
            if self._filled == len(self._room):
                self._done(self._body or bytearray())
            return
        self._have += count
        if self._body is None:
            self._head()
        elif self._chunked or self._until_close:
            self._more()

    def _head(self) -> None:
        end = self._scratch.find(b"\r\n\r\n", 0, self._have)
        if end < 0:
            if self._have == HEAD_BYTES:
                raise Broken("the head of an answer is too long")
            return
        lines = bytes(self._view[:end]).split(b"\r\n")
        status = int(lines[0].split(b" ", 2)[1])
        rest = end + 4
        if status < 200:  # 100 Continue and the like
            self._shift(rest)
            self._head()
            return
        if self._answer is None:
            raise Broken("an answer came that nobody asked for")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            known = name.strip().lower().decode("latin-1")
            text = _text(value.strip())
            headers[known] = f"{headers[known]},{text}" if known in headers else text
        self._status, self._headers = status, headers
        if headers.get("connection", "").lower() == "close":
            self.keep = False
        if self._without_body or status in _NO_BODY:
            self._shift(rest)
            self._done(bytearray())
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            self._body, self._chunked = bytearray(), True
            self._shift(rest)
            self._more()
        elif "content-length" in headers:
            self._receive(int(headers["content-length"]), rest)
        else:
            self._body, self._until_close = bytearray(), True
            self.keep = False
            self._shift(rest)
            self._more()

    def _receive(self, length: int, at: int) -> None:
        if not 0 <= length <= BODY_BYTES:
            raise Broken(f"an answer of {length} bytes was not asked for")
        body, here = bytearray(length), self._have - at
        if here > length:
            raise Broken("more came than was announced")
        body[:here] = self._view[at : self._have]
        self._have = 0
        if here == length:
            self._done(body)
            return
        self._body, self._room, self._filled = body, memoryview(body), here

    def _more(self) -> None:
        """Takes what is in the scratch buffer into a body whose length is not announced."""
        if self._body is None:
            return
        if self._until_close:
            self._body += self._view[: self._have]
            self._have = 0
        else:
            while self._chunk():
                pass
        if self._body is not None and len(self._body) > BODY_BYTES:
            raise Broken("an answer is longer than was asked for")

    def _chunk(self) -> bool:
        """Takes one chunk, or a part of one; whether there may be another."""
        if self._filled > 0:  # still missing of the chunk, with its line end
            take = min(self._filled, self._have)
            content = min(take, max(0, self._filled - 2))
            if self._body is not None:
                self._body += self._view[:content]
            self._filled -= take
            self._shift(take)
            return self._have > 0 and self._filled == 0
        end = self._scratch.find(b"\r\n", 0, self._have)
        if end < 0:
            return False
        size = int(bytes(self._view[:end]).partition(b";")[0], 16)
        if size == 0:
            last = self._scratch.find(b"\r\n\r\n", end, self._have)
            if last < 0:
                return False
            self._shift(last + 4)
            self._done(self._body or bytearray())
            return False
        self._shift(end + 2)
        self._filled = size + 2
        return self._have > 0

    def _shift(self, count: int) -> None:
        left = self._have - count
        if left:
            self._scratch[:left] = self._scratch[count : self._have]
        self._have = left

    def _done(self, body: bytearray) -> None:
        answer, self._answer = self._answer, None
        found = Answer(self._status, self._headers, body)
        self._body, self._room, self._filled = None, None, 0
        self._chunked = self._until_close = False
        if self._have:
            self.keep = False  # what is this?
        if answer is not None and not answer.done():
            answer.set_result(found)

    def _fail(self, error: Broken) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
