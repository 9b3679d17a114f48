"""One connection to an S3 server, made for many small answers. Requests go one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from brokers.s3.answers import Answer, AnswerReader, Malformed
from brokers.sdk.digests import Buffer

SLICE_BYTES = 256 << 10


class Broken(ConnectionError):
    """The connection ended, or is not what HTTP says."""


class Connection(asyncio.BufferedProtocol):
    """Send with :meth:`ask`; then wait for the answer before the next one is asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._reader = AnswerReader()
        self._answer: asyncio.Future[Answer] | None = None
        self._resumed: asyncio.Future[None] | None = None
        self._given_up = False
        self.active = loop.time()
        """When something arrived or was sent last, by the loop's clock."""

    @property
    def keep(self) -> bool:
        """Whether another request may be sent after this one: nothing is left over from it, in either direction."""
        return (
            self._transport is not None
            and not self._given_up
            and self._reader.keep
            and self._reader.clean
            and not self._transport.get_write_buffer_size()
        )

    @property
    def waiting(self) -> bool:
        """Whether an answer is awaited."""
        return self._answer is not None

    def close(self, reason: BaseException | None = None) -> None:
        """End the connection; who waits for an answer gets :class:`Broken`."""
        self._given_up = True
        if self._transport is not None:
            self._transport.abort()
        self._fail(Broken(str(reason or "the connection was closed")))

    def ask(self, head: bytes, *, without_body: bool = False) -> asyncio.Future[Answer]:
        """Send a request that has no body, or the one that stands behind its head; its answer comes.
        ``without_body``: as to HEAD."""
        if self._transport is None or self._answer is not None or not self.keep:
            raise Broken("the connection is not free")
        self._answer = self._loop.create_future()
        self._reader.expect(without_body=without_body)
        self.active = self._loop.time()
        self._transport.write(head)
        return self._answer

    async def send(self, head: bytes, pieces: Sequence[Buffer]) -> Answer:
        """Send a request with a body, which is the pieces, and wait for its answer."""
        if len(pieces) == 1 and len(pieces[0]) <= SLICE_BYTES:
            return await self.ask(b"".join((head, pieces[0])))
        answer = self.ask(head)
        for piece in pieces:
            view = memoryview(piece)
            for at in range(0, len(view), SLICE_BYTES):
                if answer.done() or self._transport is None:
                    self._given_up = True  # the server did not want the rest
                    return await answer
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
        self._transport = None
        if error is None and not self._given_up and (answer := self._reader.ended()) is not None:
            self._done(answer)
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
        return self._reader.room() if not self._given_up else memoryview(bytearray(SLICE_BYTES))

    def buffer_updated(self, nbytes: int) -> None:
        self.active = self._loop.time()
        if self._given_up:
            return
        try:
            answer = self._reader.arrived(nbytes)
        except Malformed as error:
            self.close(error)
            return
        if answer is not None:
            self._done(answer)

    def eof_received(self) -> bool:
        return False

    def _done(self, found: Answer) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(found)

    def _fail(self, error: Broken) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)
