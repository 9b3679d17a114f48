"""The HTTPS endpoint of the repository: data service brokers write and read copies through it, and brokers of other
sites fetch from it. Every request carries a token for one copy; see `docs/repository-format.md`, section "HTTP".
"""

import asyncio
import collections
import logging
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
from aiohttp import web

from brokers.repository.bodies import Batches, layout_of
from brokers.repository.endpoint_errors import problems, storage_problem, token_problem
from brokers.repository.errors import CopyNotFound, InvalidPart, KeptGone
from brokers.repository.kept import earlier, keep_whole, known_pieces, unfit_by
from brokers.repository.manifest import Part
from brokers.repository.near import ReceivedFile, ReceivedFiles
from brokers.repository.near_sending import send_part, until_sent
from brokers.repository.opened import ChunkLayout, CopyRepository
from brokers.repository.summaries import copy_part
from brokers.repository.tokens import Claims, Purpose, TokenKey, TokenRefused
from brokers.sdk.copystream import MEDIA_TYPE_HEADER
from brokers.sdk.copystream_tls import certificate_fingerprint
from brokers.sdk.digests import Buffer, is_digest
from brokers.sdk.frames import (
    CHUNKS_TYPE,
    KNOWN_TYPE,
    RAW_TYPE,
    STREAM_TYPE,
    Data,
    End,
    Failure,
    Layout,
    chunk_header,
    data_header,
    encode,
)
from brokers.sdk.near import FILE_HEADER, address, available
from brokers.sdk.pacing import Pace
from schemas.problems import CalqueError
from schemas.unreadable import UNREADABLE

READ_BUFFER_BYTES = 1 << 20
MAX_DIGESTS = 4096
"""The most chunks of one request."""
SHUTDOWN_SECONDS = 0.05
"""What is under way at a stop is cut off: every transfer can be resumed, every part written again."""
_MAX_LIST_BYTES = 1 << 20
_KNOWN_COPIES = 4

T = TypeVar("T")
logger = logging.getLogger(__name__)


def server_context(*, certificate: Path, key: Path, ca: Path) -> ssl.SSLContext:
    """TLS 1.3 with our certificate; a client may show one, which must then be of `ca`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


class Endpoint:
    """Serves one repository. `start`, then `stop`; what is under way is cut off, and can be resumed."""

    def __init__(
        self,
        repository: CopyRepository,
        *,
        tokens: TokenKey,
        tls: ssl.SSLContext,
        host: str,
        clock: Callable[[], float] = time.time,
        bytes_per_second: int = 0,
    ) -> None:
        """`bytes_per_second`: how fast bytes come and go at most, all together; 0 for no limit."""
        self.pace = Pace(bytes_per_second)
        self._repository = repository
        self._tokens = tokens
        self._tls = tls
        self._host = host
        self._clock = clock
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="repository")
        self._digests: collections.OrderedDict[str, Container[bytes]] = collections.OrderedDict()
        self._runner: web.AppRunner | None = None
        self._files = ReceivedFiles()
        self.unfit: set[str] = set()
        """Copies that turned out damaged or gone when a writer kept entries of them: no parents any more."""
        self.served_bytes = 0
        """Bytes of stored chunks given to peers since the start."""

    async def start(self, port: int) -> int:
        """Listens; returns the port (one that is free, if port 0 was asked for). Raises OSError."""
        application = web.Application(middlewares=[problems])
        path = "/v0/copies/{copy}"
        application.router.add_put(f"{path}/parts/{{part}}", self._put_part, expect_handler=self._expect)
        ahead = partial(self._put_part, ahead=True)
        application.router.add_put(f"{path}/parts/{{part}}/ahead", ahead, expect_handler=self._expect)
        application.router.add_get(f"{path}/parts/{{part}}", self._get_part, allow_head=False)
        application.router.add_get(f"{path}/parts/{{part}}/known", self._get_known, allow_head=False)
        application.router.add_post(f"{path}/parts/{{part}}/keep", self._keep_part)
        application.router.add_get(f"{path}/manifest", self._get_manifest, allow_head=False)
        application.router.add_get(f"{path}/layout", self._get_layout, allow_head=False)
        application.router.add_post(f"{path}/chunks", self._post_chunks)
        runner = web.AppRunner(
            application,
            access_log=None,
            read_bufsize=READ_BUFFER_BYTES,
            shutdown_timeout=SHUTDOWN_SECONDS,
            auto_decompress=False,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, port, ssl_context=self._tls).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        return int(runner.addresses[0][1])

    async def start_near(self) -> str:
        """Listens for brokers on this machine too, after `start`; the name that they know it by. Empty when that can't
        be had."""
        if self._runner is None or not available():
            return ""
        name = f"calque-{secrets.token_hex(12)}"
        try:
            await web.UnixSite(self._runner, address(name)).start()
            if not self.pace.limited:
                self._files.start(name)  # what is read from files, and sent from threads, has no pace
        except OSError as error:
            logger.warning("brokers on this machine go the long way, over TLS: %s", error)
            return ""
        return name

    async def stop(self) -> None:
        await self._files.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def _run(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def _authorize(self, request: web.Request, purpose: Purpose) -> str:
        """The copy that the request may touch. Raises TokenRefused."""
        return self._claims(request, purpose).copy

    def _claims(self, request: web.Request, purpose: Purpose) -> Claims:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenRefused("a bearer token is needed", known=False)
        copy = request.match_info["copy"]
        transport = request.transport
        tls = transport.get_extra_info("ssl_object") if transport is not None else None
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        client = certificate_fingerprint(der) if der else None
        return self._tokens.check(token, copy=copy, purpose=purpose, client=client, now=self._clock())

    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        # Refused before the writer sends its first byte.
        try:
            self._authorize(request, "write")
        except TokenRefused as error:
            return token_problem(error)
        if request.version == aiohttp.HttpVersion11 and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    async def _put_part(self, request: web.Request, *, ahead: bool = False) -> web.StreamResponse:
        """What comes ahead of a part is none of the copy: a later body of the part may refer to it."""
        claims = self._claims(request, "write")
        copy = claims.copy
        name = request.match_info["part"]
        layout, framed = layout_of(request, copy=copy, part=name)
        media_type = request.headers.get(MEDIA_TYPE_HEADER, RAW_TYPE)[:200]
        opened = await self._run(self._repository.writing, copy)
        before = await self._run(partial(earlier, self._repository, opened, parent=claims.parent, name=name))
        file = self._passed(request, copy=copy, part=name)
        try:
            writer = opened.begin_part(
                name,
                layout=layout,
                media_type=media_type,
                framed=framed,
                earlier=before,
                progress=file.told if file is not None else None,
                file=file.bytes if file is not None else None,
            )
        except BaseException:
            if file is not None:
                file.close()
            raise
        try:
            try:
                # The reader's buffer fills while a block is hashed, compressed and written; then it stops reading.
                while block := await request.content.readany():
                    await self.pace.take(len(block))
                    await self._run(writer.feed, block)
            except (aiohttp.ClientPayloadError, aiohttp.http_exceptions.HttpProcessingError, ConnectionError) as error:
                raise InvalidPart("the body was cut short", copy=copy, part=name) from error
            if not request.content.is_eof():
                raise InvalidPart("the body was cut short", copy=copy, part=name)
            part = await self._run(writer.seal)
            await self._run(opened.seal_ahead if ahead else opened.seal_part, part)
        except KeptGone as error:
            self.unfit |= unfit_by(error, parent=claims.parent)
            raise
        finally:
            opened.end_part(name)
            if before is not None:
                before.close()
            if file is not None:
                file.close()
        return web.Response(body=msgspec.json.encode(copy_part(part)), status=201, content_type="application/json")

    def _passed(self, request: web.Request, *, copy: str, part: str) -> ReceivedFile | None:
        """The file that the body speaks of, if it does. Raises InvalidPart."""
        handle = request.headers.get(FILE_HEADER)
        if handle is None:
            return None
        file = self._files.take(handle)
        if file is None:
            raise InvalidPart("the file that its body speaks of was not passed", copy=copy, part=part)
        return file

    async def _keep_part(self, request: web.Request) -> web.StreamResponse:
        claims = self._claims(request, "write")
        opened = await self._run(self._repository.writing, claims.copy)
        try:
            keep = partial(keep_whole, self._repository, opened, claims.parent, of=request.query.get("of", ""))
            part = await self._run(keep, request.match_info["part"])
        except KeptGone as error:
            self.unfit |= unfit_by(error, parent=claims.parent)
            raise
        return web.Response(body=msgspec.json.encode(copy_part(part)), status=201, content_type="application/json")

    async def _get_part(self, request: web.Request) -> web.StreamResponse:
        copy = self._authorize(request, "read")
        name = request.match_info["part"]
        part = (await self._run(self._repository.committed, copy)).part(name)
        if part is None:
            raise CopyNotFound("has no such part", copy=copy, part=name)
        if FILE_HEADER in request.headers:
            return await self._send_near(request, copy=copy, part=part)
        layout = Layout.ENTRIES if part.is_entries else Layout.STREAM
        framed = part.is_entries or STREAM_TYPE in request.headers.get("Accept", "")
        response = web.StreamResponse(headers={"Calque-Digest": part.digest, "Calque-Size": str(part.size)})
        response.content_type = layout.media_type if framed else RAW_TYPE
        if not framed:
            response.content_length = part.size
        return await self._stream(request, response, self._part_pieces(copy, part, framed=framed), framed=framed)

    async def _send_near(self, request: web.Request, *, copy: str, part: Part) -> web.StreamResponse:
        """Sends the part on the connection that the reader gave; the answer comes when it was sent."""
        stream = self._files.take_stream(request.headers[FILE_HEADER])
        if stream is None or not part.is_entries:
            if stream is not None:
                stream.close()
            raise InvalidPart("there is no connection for it, or it has no entries", copy=copy, part=part.name)
        sending = partial(send_part, self._repository, stream.connection, copy=copy, part=part)
        await until_sent(stream, self._run(sending))
        return web.Response(status=204)

    async def _get_known(self, request: web.Request) -> web.StreamResponse:
        claims = self._claims(request, "write")
        response = web.StreamResponse()
        response.content_type = KNOWN_TYPE
        pieces = self._known_pieces(claims.parent, request.match_info["part"])
        return await self._stream(request, response, pieces, framed=True)

    def _known_pieces(self, parent: str, name: str) -> Iterator[Buffer]:
        try:
            yield from known_pieces(self._repository, parent=parent, name=name)
        except KeptGone:
            self.unfit.add(parent)
            raise

    async def _get_manifest(self, request: web.Request) -> web.StreamResponse:
        copy = self._authorize(request, "read")
        committed = await self._run(self._repository.committed, copy)
        return web.Response(body=committed.raw, content_type="application/json")

    async def _get_layout(self, request: web.Request) -> web.StreamResponse:
        copy = self._authorize(request, "read")
        committed = await self._run(self._repository.committed, copy)
        layout = ChunkLayout(self._repository.domain, committed.parts)
        return web.Response(body=msgspec.json.encode(layout), content_type="application/json")

    async def _post_chunks(self, request: web.Request) -> web.StreamResponse:
        copy = self._authorize(request, "read")
        body = bytearray()
        while block := await request.content.readany():
            body += block
            if len(body) > _MAX_LIST_BYTES:
                raise InvalidPart("the list of chunks is too long", copy=copy)
        try:
            wanted = msgspec.json.decode(body, type=list[str])
        except UNREADABLE as error:
            raise InvalidPart(f"a JSON list of digests is needed: {error}", copy=copy) from error
        if len(wanted) > MAX_DIGESTS:
            raise InvalidPart(f"at most {MAX_DIGESTS} chunks at once", copy=copy)
        known = await self._run(self._digests_of, copy)
        # A token for one copy gives the chunks of that copy and no others.
        for digest in wanted:
            if not is_digest(digest) or bytes.fromhex(digest) not in known:
                raise CopyNotFound("has no such chunk", copy=copy, chunk=digest[:64])
        response = web.StreamResponse()
        response.content_type = CHUNKS_TYPE
        return await self._stream(request, response, self._chunk_pieces(copy, wanted), framed=True)

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, pieces: Iterator[Buffer], *, framed: bool
    ) -> web.StreamResponse:
        batches = Batches(pieces)
        batch = await self._run(batches.next)
        await response.prepare(request)
        try:
            async for ready in self._ahead(batch, batches):
                for piece in ready:
                    await self.pace.take(len(piece))
                    await response.write(piece)
        except CalqueError as error:
            await self._break_off(request, response, error, framed=framed)
        except ConnectionError as error:
            logger.info("%s: the reader went away: %s", request.path, error)
        except OSError as error:
            await self._break_off(request, response, storage_problem(error), framed=framed)
        return response

    async def _ahead(self, batch: list[Buffer], batches: "Batches") -> AsyncIterator[list[Buffer]]:
        while batch:
            following = asyncio.ensure_future(self._run(batches.next))
            try:
                yield batch
            except BaseException:
                following.cancel()
                raise
            batch = await following

    async def _break_off(
        self, request: web.Request, response: web.StreamResponse, error: CalqueError, *, framed: bool
    ) -> None:
        """Ends an answer whose head was sent: never in a way that looks like its end."""
        problem = error.problem
        if framed:
            await response.write(encode(Failure(problem.code, problem.message, problem.temporary)))
        transport = request.transport
        if transport is not None:
            # Closed before the last chunk of the transfer encoding: no client takes it for the end.
            transport.close() if framed else transport.abort()

    def _part_pieces(self, copy: str, part: Part, *, framed: bool) -> Iterator[Buffer]:
        for event in self._repository.read_part(copy, part):
            if isinstance(event, Data):
                if framed:
                    yield data_header(len(event.data))
                yield event.data
            elif framed:
                yield encode(event)

    def _chunk_pieces(self, copy: str, wanted: Iterable[str]) -> Iterator[Buffer]:
        size, count = 0, 0
        for digest in wanted:
            stored = self._repository.packed_chunk(digest, copy=copy)
            yield chunk_header(bytes.fromhex(digest), len(stored))
            yield stored
            size += len(stored)
            count += 1
            self.served_bytes += len(stored)
        yield encode(End(size, "", count))

    def _digests_of(self, copy: str) -> Container[bytes]:
        committed = self._repository.committed(copy)
        known = self._digests.get(committed.manifest_digest)
        if known is None:
            known = self._repository.chunk_names(copy)
            self._digests[committed.manifest_digest] = known
            while len(self._digests) > _KNOWN_COPIES:
                self._digests.popitem(last=False)
        return known
