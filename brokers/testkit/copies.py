"""Copies in memory, served over HTTPS as ``docs/repository-format-0.md`` says: where the data service broker under
test writes to and restores from, and the data path of the reference repository.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from aiohttp import web

from brokers.sdk.copystream import MEDIA_TYPE_HEADER, CopyHead, PartHead
from brokers.sdk.digests import digest_hex
from brokers.sdk.frames import (
    ENTRIES_TYPE,
    KNOWN_TYPE,
    RAW_TYPE,
    STREAM_TYPE,
    End,
    FrameError,
    Layout,
    encode,
    entry_line,
    known_frame,
)
from brokers.testkit.certificate import Certificate, own_certificate
from brokers.testkit.parts import StoredEntry, StoredPart, entries_of, judged, unframed
from schemas.brokers import CopyGrant
from schemas.envelope import timestamp
from schemas.problems import CalqueError, Problem, conflict, forbidden, invalid, not_found
from schemas.secrets import Secret

HOST = "127.0.0.1"
MAX_BODY_BYTES = 64 << 20
Purpose = Literal["read", "write"]
Answering = Callable[[web.Request, str], Awaitable[web.StreamResponse]]
_STATUS = {"invalid": 400, "forbidden": 403, "not_found": 404, "conflict": 409}


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What a token is good for; ``expires`` in seconds of the clock of the day."""

    copy: str
    purpose: Purpose
    expires: float
    parent: str = ""


class HeldCopy:
    """A copy: open, or committed with the moment it was."""

    def __init__(self, copy: str) -> None:
        self.copy = copy
        self.parts: dict[str, StoredPart] = {}
        self.committed = False

    @property
    def size(self) -> int:
        """Bytes of plaintext."""
        return sum(stored.part.size for stored in self.parts.values())

    @property
    def root(self) -> str:
        """One digest over all parts."""
        lines = sorted(f"{name} {stored.part.digest} {stored.part.size}" for name, stored in self.parts.items())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class CopyServer:
    """Serves ``copies``. A copy in ``stalled`` is answered when it is in there no more; ``waiting`` are
    those of them that were asked for.

    ``lenient`` says which rule is not kept, for brokers that are broken on purpose.
    """

    def __init__(self, directory: Path, *, lenient: Callable[[str], bool] = lambda _: False) -> None:
        self.copies: dict[str, HeldCopy] = {}
        self.tokens: dict[str, Token] = {}
        self.stalled: set[str] = set()
        self.waiting: set[str] = set()
        self._lenient = lenient
        self._directory = directory
        self._runner: web.AppRunner | None = None
        self._certificate: Certificate | None = None
        self._port = 0
        self._ending = asyncio.Event()

    @property
    def certificate(self) -> Certificate:
        """Made at the start."""
        if self._certificate is None:
            raise RuntimeError("the copies are not served yet")
        return self._certificate

    async def start(self) -> None:
        """Listen; again on the same port."""
        self._ending = asyncio.Event()
        if self._certificate is None:
            self._certificate = await asyncio.to_thread(own_certificate, self._directory)
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        path = "/v0/copies/{copy}"
        application.router.add_put(f"{path}/parts/{{part}}", self._handler("write", self._put))
        application.router.add_get(f"{path}/parts/{{part}}", self._handler("read", self._get), allow_head=False)
        known = f"{path}/parts/{{part}}/known"
        application.router.add_get(known, self._handler("write", self._known), allow_head=False)
        application.router.add_get(f"{path}/manifest", self._handler("read", self._manifest), allow_head=False)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.05)
        await runner.setup()
        await web.TCPSite(runner, HOST, self._port, ssl_context=self._certificate.context).start()
        self._port = int(runner.addresses[0][1])
        self._runner = runner

    async def stop(self) -> None:
        """Listen no more."""
        self._ending.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def opened(self, copy: str) -> HeldCopy:
        """The copy, made when it is new."""
        return self.copies.setdefault(copy, HeldCopy(copy))

    def grant(self, copy: str, purpose: Purpose, *, seconds: float = 600.0, parent: str = "") -> CopyGrant:
        """Access to one copy; for writing with the ``parent`` of which entries may be kept."""
        token = secrets.token_urlsafe(24)
        expires = time.time() + seconds
        self.tokens[token] = Token(copy=copy, purpose=purpose, expires=expires, parent=parent)
        return CopyGrant(
            copy=copy,
            purpose=purpose,
            url=f"https://{HOST}:{self._port}/v0/copies/{copy}",
            token=Secret(value=token),
            fingerprint=self.certificate.fingerprint,
            ca=self.certificate.pem,
            expires_at=timestamp(datetime.fromtimestamp(expires, UTC)),
            parent=parent,
        )

    # --- requests

    def _handler(self, purpose: Purpose, answer: Answering) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            copy = request.match_info["copy"]
            try:
                self._authorize(request, copy, purpose)
                if copy in self.stalled:
                    self.waiting.add(copy)
                while copy in self.stalled and not self._ending.is_set():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await self._ending.wait()
                return await answer(request, copy)
            except CalqueError as error:
                return _refusal(error.problem)

        return handle

    def _authorize(self, request: web.Request, copy: str, purpose: Purpose) -> None:
        if self._lenient("crb.token.none"):
            return
        _, _, given = request.headers.get("Authorization", "").partition(" ")
        token = self.tokens.get(given)
        if token is None and given and self._lenient("crb.token.forged"):
            return
        if token is None:
            raise CalqueError(forbidden("a token of this repository is needed"))
        if token.copy != copy and not self._lenient("crb.token.other_copy"):
            raise CalqueError(forbidden("the token is for another copy"))
        if token.purpose != purpose and not self._lenient("crb.token.purpose"):
            raise CalqueError(forbidden(f"the token is not for {purpose}"))
        if token.expires < time.time() and not self._lenient("crb.token.expired"):
            raise CalqueError(forbidden("the token is expired"))

    async def _put(self, request: web.Request, copy: str) -> web.StreamResponse:
        name = request.match_info["part"]
        body = await request.read()
        layout = Layout.ENTRIES if request.content_type == ENTRIES_TYPE else Layout.STREAM
        framed = request.content_type in (STREAM_TYPE, ENTRIES_TYPE)
        media_type = request.headers.get(MEDIA_TYPE_HEADER, RAW_TYPE)
        held = self.copies.get(copy)
        if held is None:
            raise CalqueError(not_found("copy", f"{copy} is not open"))
        if held.committed and not self._lenient("crb.commit.sealed"):
            raise CalqueError(conflict("copy", f"{copy} is committed"))
        parent = self._parent(request, name)
        try:
            stored = judged(
                name, body if framed else unframed(body), layout=layout, media_type=media_type, parent=parent
            )
        except FrameError as error:
            lenient = "cut short" in str(error) and self._lenient("crb.part.cut_short")
            if not lenient and not self._lenient("crb.part.damaged"):
                raise CalqueError(invalid("part", str(error))) from None
            stored = judged(name, unframed(body), layout=Layout.STREAM, media_type=media_type)
        if name in held.parts and self._lenient("crb.part.again"):
            stored = held.parts[name]
        held.parts[name] = stored
        return web.Response(status=201, body=msgspec.json.encode(stored.part), content_type="application/json")

    def _parent(self, request: web.Request, part: str) -> dict[str, StoredEntry]:
        """The entries that the token lets the writer of a part refer to."""
        _, _, given = request.headers.get("Authorization", "").partition(" ")
        token = self.tokens.get(given)
        held = self.copies.get(token.parent) if token is not None and token.parent else None
        seen = [held] if held is not None and held.committed else []
        if self._lenient("crb.kept.other"):
            seen = list(self.copies.values())
        found: dict[str, StoredEntry] = {}
        for copy in seen:
            stored = copy.parts.get(part)
            if stored is not None and stored.layout is Layout.ENTRIES:
                found = {**entries_of(stored), **found}
        return found

    async def _known(self, request: web.Request, _copy: str) -> web.StreamResponse:
        lines, size, count = bytearray(), 0, 0
        for each in self._parent(request, request.match_info["part"]).values():
            entry = each.entry
            digest = "0" * 64 if self._lenient("crb.kept.known") else entry.digest
            lines += entry_line(key=entry.key, size=entry.size, metadata=entry.metadata, digest=digest)
            size += entry.size
            count += 1
        body = (known_frame(lines) if lines else b"") + encode(End(size, digest_hex(lines), count))
        return web.Response(body=body, content_type=KNOWN_TYPE)

    async def _get(self, request: web.Request, copy: str) -> web.StreamResponse:
        stored = self._readable(copy).parts.get(request.match_info["part"])
        if stored is None:
            raise CalqueError(not_found("part", "there is no such part"))
        framed = stored.layout is Layout.ENTRIES or STREAM_TYPE in request.headers.get("Accept", "")
        body, kind = (stored.body, stored.layout.media_type) if framed else (stored.data, RAW_TYPE)
        if self._lenient("crb.read.same"):
            body = body.replace(b"conformance", b"conformancf")
        headers = {"Calque-Digest": stored.part.digest, "Calque-Size": str(stored.part.size)}
        return web.Response(body=body, content_type=kind, headers=headers)

    async def _manifest(self, _request: web.Request, copy: str) -> web.StreamResponse:
        held = self._readable(copy)
        parts = tuple(
            PartHead(
                name=name,
                layout=stored.layout.value,
                media_type=stored.part.media_type,
                size=stored.part.size,
                digest=stored.part.digest,
                entries=stored.part.entries if stored.layout is Layout.ENTRIES else None,
            )
            for name, stored in sorted(held.parts.items())
        )
        head = CopyHead(copy=copy, parts=parts, merkle_root=held.root, logical_bytes=held.size)
        return web.Response(body=msgspec.json.encode(head), content_type="application/json")

    def _readable(self, copy: str) -> HeldCopy:
        held = self.copies.get(copy)
        if held is None or not held.committed:
            raise CalqueError(not_found("copy", f"there is no committed copy {copy}"))
        return held


def _refusal(problem: Problem) -> web.Response:
    return web.Response(
        status=_STATUS.get(problem.code, 500), body=msgspec.json.encode(problem), content_type="application/json"
    )
