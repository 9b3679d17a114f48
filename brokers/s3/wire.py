"""Requests to one bucket of an S3 server: signed, over connections that are kept, tried again where that may help.

What moves objects and lists them. Thousands of small objects spend their time here, so a request costs little more
than its signature and two system calls (docs/adr/0086). Everything rare goes through :mod:`brokers.s3.control`.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
from collections.abc import Mapping
from types import TracebackType
from urllib.parse import urlsplit

from brokers.s3.connection import Answer, Broken, Connection
from brokers.s3.pages import error_of
from brokers.s3.places import Place
from brokers.s3.signing import EMPTY_SHA256, Signer, query_of, quoted
from schemas.problems import Problem, permanent, temporary

ATTEMPTS = 5
CONNECT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""How long a server may neither send nor take anything."""
WATCH_SECONDS = 5.0
BACKOFF_SECONDS = 0.2
RETRY_SECONDS = 2.0
BUSY = frozenset({429, 500, 502, 503, 504})
_KEYS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403", "Forbidden"})
_REGION = frozenset({"PermanentRedirect", "301", "AuthorizationHeaderMalformed"})

Body = bytes | bytearray | memoryview


class Refused(Exception):
    """An error answer: the code of S3 (the status where there is no body), the status, and what was asked."""

    def __init__(self, code: str, status: int, message: str, *, asked: str) -> None:
        super().__init__(f"{asked}: {message or code}")
        self.code = code
        self.status = status
        self.message = message or code
        self.asked = asked


class Unreachable(Exception):
    """No answer came, several times in a row."""


class Wire:
    """Connections to the server of a place, for one bucket. As many requests run at once as are asked for. Use it
    as a context: leaving it closes the connections."""

    def __init__(self, place: Place, bucket: str) -> None:
        access_key, secret = place.keys()
        parts = urlsplit(place.endpoint)
        self.address = parts.hostname or ""
        """Where connections go: the host of the endpoint, or below it that of the bucket."""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._host, self._root = parts.netloc.rpartition("@")[2], f"/{bucket}/"
        if place.virtual:
            self._host, self.address, self._root = f"{bucket}.{self._host}", f"{bucket}.{self.address}", "/"
        self._signer = Signer(access_key=access_key, secret=secret, region=place.region)
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._watch: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Wire:
        self._watch = self._loop.call_later(WATCH_SECONDS, self._look_after)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for connection in self._all:
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
        sha256 = hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256
        given = dict(headers) if headers else {}
        for attempt in range(1, attempts + 1):
            try:
                connection = self._idle.pop() if self._idle else await self._connect()
                head = self._signer.head(
                    method, path, words, host=self._host, headers=given, sha256=sha256, length=len(body)
                )
                answer = await self._exchange(connection, method, head, body)
            except (OSError, TimeoutError) as error:
                if attempt == attempts:
                    raise Unreachable(str(error) or type(error).__name__) from error
            else:
                if answer.status < 300:
                    return answer
                if answer.status not in BUSY or attempt == attempts:
                    raise refusal(answer, f"{method} {key}".strip())
            await asyncio.sleep(BACKOFF_SECONDS * 2**attempt * random.random())  # noqa: S311 - no secret
        raise Unreachable("it was not tried")

    def begin(self, key: str, *, query: str, headers: Mapping[str, str]) -> asyncio.Future[Answer] | None:
        """Send a GET on a connection that is free: the cheap way for the many. ``None`` when none is free; what comes
        may be an error, or raise :class:`Broken`: then ask again with :meth:`ask`."""
        if not self._idle:
            return None
        connection = self._idle.pop()
        head = self._signer.head(
            "GET", self._path(key), query, host=self._host, headers=headers, sha256=EMPTY_SHA256, length=0
        )
        try:
            answer = connection.ask(head)
        except Broken:
            connection.close()
            return None
        answer.add_done_callback(lambda done: self._free(connection, done))
        return answer

    def _free(self, connection: Connection, done: asyncio.Future[Answer]) -> None:
        if not done.cancelled() and done.exception() is None and connection.keep:
            self._idle.append(connection)
            return
        connection.close()
        self._all.discard(connection)

    async def _exchange(self, connection: Connection, method: str, head: bytes, body: Body) -> Answer:
        try:
            if body:
                answer = await connection.send(head, body)
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
        async with asyncio.timeout(CONNECT_SECONDS):
            _, connection = await self._loop.create_connection(
                lambda: Connection(self._loop),
                self.address,
                self._port,
                ssl=self._tls,
                server_hostname=self.address if self._tls else None,
            )
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


def refusal(answer: Answer, asked: str) -> Refused:
    """What an error answer says."""
    code, message = error_of(answer.body)
    return Refused(code or str(answer.status), answer.status, message, asked=asked)


def explain(error: BaseException) -> Problem | None:
    """The problem that an error of a request stands for."""
    if isinstance(error, Unreachable):
        return temporary("unavailable", "S3 does not answer", retry_after_seconds=RETRY_SECONDS)
    if not isinstance(error, Refused):
        return None
    if error.status in BUSY:
        return temporary("unavailable", f"S3: {error.message}", retry_after_seconds=RETRY_SECONDS)
    if error.code in _KEYS:
        return permanent(
            "unauthorised",
            f"S3 refuses the broker: {error.message}",
            remedy="check access_key_file and secret_key_file",
        )
    if error.code in _REGION:
        return permanent("wrong_region", f"S3: {error.message}", remedy="set the region to the bucket's own")
    if error.code == "InvalidObjectState":
        return permanent(
            "archived", f"{error.asked}: it lies in an archive", remedy="bring the object back, then copy again"
        )
    return permanent("s3", f"S3: {error}")
