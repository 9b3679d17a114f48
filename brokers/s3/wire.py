"""Requests to one bucket of an S3 server: signed, over connections that are kept, tried again where that may help.

What moves objects and lists them. Thousands of small objects spend their time here, so a request costs little more
than its signature and two system calls (docs/adr/0086). Everything rare goes through :mod:`brokers.s3.control`.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Mapping, Sequence
from types import TracebackType

from brokers.s3.answers import Answer
from brokers.s3.connection import SLICE_BYTES, Broken, Connection
from brokers.s3.places import Place
from brokers.s3.refusals import BUSY, Unreachable, refusal
from brokers.s3.route import route_to
from brokers.s3.signing import EMPTY_SHA256, UNSIGNED, Signer, query_of, quoted
from brokers.sdk.digests import Buffer

ATTEMPTS = 5
BUSY_ATTEMPTS = 8
"""How often a server that says it has too much to do is asked."""
SILENT_SECONDS = 60.0
"""How long a server may neither send nor take anything."""
WATCH_SECONDS = 5.0
BACKOFF_SECONDS = 0.2
MOST_BACKOFF_SECONDS = 20.0
_SLOW_DOWN = frozenset({429, 503})
_RENEWED = frozenset({"ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "TokenRefreshRequired"})
"""What keys are refused with that were replaced meanwhile."""
_NOT_UNSIGNED = frozenset({400, 403, 501})
"""Statuses with which a body is refused that is not signed."""

Body = Buffer | tuple[Buffer, ...]
"""What is sent: one piece or several, one behind the other."""


class Wire:
    """Connections to the server of a place, for one bucket. As many requests run at once as are asked for. Use it
    as a context: leaving it closes the connections."""

    def __init__(self, place: Place, bucket: str) -> None:
        self.route = route_to(place, bucket)
        self._place = place
        self._root = "/" if place.virtual else f"/{bucket}/"
        self._signer = Signer(place.keys(), region=place.region)
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._slow_until = 0.0
        self._signs_bodies = not self.route.guarded

    async def __aenter__(self) -> Wire:
        self._watch = self._loop.call_later(WATCH_SECONDS, self._look_after)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for connection in list(self._all):
            connection.close()
        self._all.clear()
        self._idle.clear()

    async def ask(
        self,
        method: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        attempts: int = ATTEMPTS,
    ) -> Answer:
        """A good answer (2xx). Raises :class:`Refused`, and :class:`Unreachable` when none came."""
        path, words = self._path(key), query_of(query) if query else ""
        pieces = body if isinstance(body, tuple) else (body,) if body else ()
        sha256, length = self._digest(pieces, method), sum(map(len, pieces))
        given, attempt, busy = dict(headers) if headers else {}, 0, 0
        while True:
            if (wait := self._slow_until - self._loop.time()) > 0:
                await asyncio.sleep(wait)
            signer, connection = self._signer, self._kept()
            fresh = connection is None
            try:
                if connection is None:
                    connection = await self._connect()
                head = self._head(method, path, words, given, sha256, length)
                answer = await self._exchange(connection, method, head, pieces)
            except (OSError, TimeoutError) as error:
                if not fresh and isinstance(error, Broken):
                    continue  # the server had ended it; the next one is another, or new
                attempt += 1
                if attempt >= attempts:
                    raise Unreachable(str(error) or type(error).__name__) from error
                await self._back_off(attempt)
                continue
            if answer.status < 300:
                return answer
            refused = refusal(answer, f"{method} {key}".strip())
            if answer.status in BUSY:
                busy += 1
                slow = answer.status in _SLOW_DOWN
                if busy >= (BUSY_ATTEMPTS if slow and attempts == ATTEMPTS else attempts):
                    raise refused
                if slow:
                    self._slow_down(answer, busy)
                await self._back_off(busy)
            elif sha256 == UNSIGNED and refused.status in _NOT_UNSIGNED:
                self._signs_bodies = True  # a rule may ask for it
                sha256 = self._digest(pieces, method)
            elif refused.code not in _RENEWED or not self._renew(signer):
                raise refused

    def begin(
        self, key: str, *, query: str = "", headers: Mapping[str, str], body: Buffer | None = None
    ) -> asyncio.Future[Answer] | None:
        """Send a GET, or with a body a PUT, on a connection that is free: the cheap way for the many. ``None`` when
        none is free, or the body is no small one; what comes may be an error, or raise :class:`Broken`: then ask again
        with :meth:`ask`. The body is not looked at any more once this returns."""
        if body is not None and len(body) > SLICE_BYTES:
            return None
        if self._slow_until > self._loop.time() or (connection := self._kept()) is None:
            return None
        path = self._path(key)
        if body is None:
            answer = connection.ask(self._head("GET", path, query, headers, EMPTY_SHA256, 0))
        else:
            head = self._head("PUT", path, query, headers, self._digest((body,), "PUT"), len(body))
            answer = connection.ask(b"".join((head, body)))
        answer.add_done_callback(lambda done: self._free(connection, done))
        return answer

    def _digest(self, pieces: Sequence[Buffer], method: str) -> str:
        """What is signed of a body: nothing of content that is guarded on its way."""
        if not any(pieces):
            return EMPTY_SHA256
        if method == "PUT" and not self._signs_bodies:
            return UNSIGNED
        hasher = hashlib.sha256()
        for piece in pieces:
            hasher.update(piece)
        return hasher.hexdigest()

    def _head(self, method: str, path: str, query: str, headers: Mapping[str, str], sha256: str, length: int) -> bytes:
        route = self.route
        head = self._signer.head(
            method, path, query, host=route.host, headers=headers, sha256=sha256, length=length, prefix=route.prefix
        )
        if route.authorization:
            head = head[:-2] + f"Proxy-Authorization: {route.authorization}\r\n\r\n".encode()
        return head

    def _kept(self) -> Connection | None:
        """A connection that is free; those that the server has ended meanwhile are let go."""
        while self._idle:
            connection = self._idle.pop()
            if connection.keep:
                return connection
            self._all.discard(connection)
            connection.close()
        return None

    def _renew(self, refused: Signer) -> bool:
        """Whether there are other keys by now than those that were refused."""
        if self._signer is not refused:
            return True
        keys = self._place.keys()
        if keys == refused.keys:
            return False
        self._signer = Signer(keys, region=self._place.region)
        return True

    def _slow_down(self, answer: Answer, times: int) -> None:
        """The server has too much to do: nothing new is asked for a while, or for as long as it says."""
        told = answer.headers.get("retry-after", "")
        seconds = float(told) if told.isdecimal() and len(told) < 4 else BACKOFF_SECONDS * 2**times
        self._slow_until = max(self._slow_until, self._loop.time() + min(seconds, MOST_BACKOFF_SECONDS))

    async def _back_off(self, times: int) -> None:
        most = min(BACKOFF_SECONDS * 2**times, MOST_BACKOFF_SECONDS)
        await asyncio.sleep(most * random.random())  # noqa: S311 - no secret

    def _free(self, connection: Connection, done: asyncio.Future[Answer]) -> None:
        if not done.cancelled() and done.exception() is None and connection.keep:
            self._idle.append(connection)
            return
        connection.close()
        self._all.discard(connection)

    async def _exchange(self, connection: Connection, method: str, head: bytes, pieces: Sequence[Buffer]) -> Answer:
        try:
            if pieces:
                answer = await connection.send(head, pieces)
            else:
                answer = await connection.ask(head, without_body=method == "HEAD")
        except BaseException:
            connection.close()
            self._all.discard(connection)
            raise
        if connection.keep:
            self._idle.append(connection)
        else:
            connection.close()
            self._all.discard(connection)
        return answer

    async def _connect(self) -> Connection:
        connection = await self.route.connect(self._loop)
        self._all.add(connection)
        return connection

    def _look_after(self) -> None:
        """Gives up connections on which nothing moves."""
        oldest = self._loop.time() - SILENT_SECONDS
        for connection in [each for each in self._all if each.waiting and each.active < oldest]:
            connection.close(TimeoutError(f"nothing came for {SILENT_SECONDS:.0f} s"))
        self._watch = self._loop.call_later(WATCH_SECONDS, self._look_after)

    def _path(self, key: str) -> str:
        return self._root + quoted(key) if key else self._root.rstrip("/") or "/"
