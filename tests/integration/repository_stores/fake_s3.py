"""An S3 endpoint in this process that can be told to misbehave as no real one can: endpoints that keep no conditions,
archives, clocks that differ, answers that break off. No signature is checked."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from aiohttp import web

BUCKET = "fake-bucket"
WHEN = datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)


@dataclass
class Behaviour:
    """How it answers. ``refusals`` are (code, status) given once each, to whatever comes next; ``always``
    is given to all that comes."""

    conditions: str = "kept"
    archived: set[str] = field(default_factory=set)
    restores: list[str] = field(default_factory=list)
    refusals: list[tuple[str, int]] = field(default_factory=list)
    always: tuple[str, int] | None = None
    broken_answers: int = 0
    date: datetime = WHEN
    seen: list[str] = field(default_factory=list)
    classes: dict[str, str] = field(default_factory=dict)


class FakeS3:
    """Serves one bucket from a thread of its own, so that blocking callers find it too."""

    def __init__(self, directory: Path) -> None:
        self.behaviour = Behaviour()
        self._objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._runner: web.AppRunner | None = None
        self._port = 0
        for name in ("access", "secret"):
            (directory / name).write_text(f"{name}-of-nobody\n")
        self._directory = directory

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "endpoint": f"http://127.0.0.1:{self._port}",
            "name": BUCKET,
            "access_key_file": str(self._directory / "access"),
            "secret_key_file": str(self._directory / "secret"),
        }

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)

    def stop(self) -> None:
        assert self._runner is not None
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        bucket, _, key = request.match_info["path"].partition("/")
        if request.host.startswith(f"{BUCKET}."):
            bucket, key = BUCKET, request.match_info["path"]
        told = self.behaviour
        told.seen.append(f"{request.method} {key}")
        if told.refusals:
            return self._error(*told.refusals.pop(0))
        if told.always:
            return self._error(*told.always)
        if bucket != BUCKET:
            return self._error("NoSuchBucket", 404)
        if not key:
            return self._listing(request)
        if request.method == "PUT":
            return await self._put(request, key)
        if request.method == "POST" and "restore" in request.query:
            again = key in told.restores
            told.restores.append(key)
            return self._error("RestoreAlreadyInProgress", 409) if again else self._reply(status=202)
        if request.method == "DELETE":
            self._objects.pop(key, None)
            return self._reply(status=204)
        if key not in self._objects:
            return self._error("NoSuchKey", 404)
        return await self._get(request, key)

    async def _put(self, request: web.Request, key: str) -> web.Response:
        if "If-None-Match" in request.headers:
            if self.behaviour.conditions == "refused":
                return self._error("NotImplemented", 501)
            if self.behaviour.conditions == "kept" and key in self._objects:
                return self._error("PreconditionFailed", 412)
        metadata = {name: value for name, value in request.headers.items() if name.lower().startswith("x-amz-meta-")}
        self.behaviour.classes[key] = request.headers.get("x-amz-storage-class", "")
        self._objects[key] = (await request.read(), metadata)
        return self._reply(headers={"ETag": '"etag"'})

    async def _get(self, request: web.Request, key: str) -> web.StreamResponse:
        if request.method == "GET" and key in self.behaviour.archived:
            return self._error("InvalidObjectState", 403)
        content, metadata = self._objects[key]
        headers = {**metadata, "Last-Modified": format_datetime(WHEN, usegmt=True), "ETag": '"etag"'}
        if request.method == "GET" and self.behaviour.broken_answers:
            self.behaviour.broken_answers -= 1
            response = web.StreamResponse(headers={**headers, "Content-Length": str(len(content))})
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
            assert request.transport is not None
            request.transport.close()
            return response
        if (asked := request.http_range) != slice(None, None, 1):
            return self._reply(status=206, body=content[asked], headers=headers)
        return self._reply(body=content, headers=headers)

    def _listing(self, request: web.Request) -> web.Response:
        if request.method != "GET" or "uploads" in request.query:
            return self._error("NotImplemented", 501)
        prefix = request.query.get("prefix", "")
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2024-02-03T04:05:06.000Z</LastModified>"
            f"<Size>{len(self._objects[key][0])}</Size></Contents>"
            for key in sorted(self._objects)
            if key.startswith(prefix)
        )
        return self._reply(body=f"<ListBucketResult>{found}</ListBucketResult>".encode())

    def _error(self, code: str, status: int) -> web.Response:
        return self._reply(status=status, body=f"<Error><Code>{code}</Code><Message>said so</Message></Error>".encode())

    def _reply(self, *, status: int = 200, body: bytes = b"", headers: dict[str, str] | None = None) -> web.Response:
        date = format_datetime(self.behaviour.date, usegmt=True)
        return web.Response(status=status, body=body, headers={"Date": date, **(headers or {})})
