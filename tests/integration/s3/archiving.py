"""An S3 server with an archive, as Amazon documents one: what no server that runs here has. One bucket with versions;
no signature is checked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import md5
from typing import NamedTuple
from xml.etree import ElementTree as Xml
from xml.sax.saxutils import escape

from aiohttp import web

BUCKET = "archive"
WHEN = datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)


class Asked(NamedTuple):
    """A request to bring an object back, and what was answered."""

    key: str
    days: str
    tier: str
    status: int


@dataclass
class Stored:
    """An object. ``looks`` is how often it has to be looked at until it is back; ``None``: it never will be."""

    body: bytes
    storage_class: str = "STANDARD"
    looks: int | None = 2
    asked: bool = False

    @property
    def back(self) -> bool:
        return self.asked and self.looks == 0

    @property
    def readable(self) -> bool:
        return self.storage_class not in ("GLACIER", "DEEP_ARCHIVE") or self.back

    @property
    def etag(self) -> str:
        return f'"{md5(self.body).hexdigest()}"'


@dataclass
class Archive:
    """The server. ``denied``: nobody may bring anything back."""

    objects: dict[str, Stored]
    denied: bool = False
    asked: list[Asked] = field(default_factory=list)
    endpoint: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        _, _, key = request.match_info["path"].partition("/")
        if not key:
            return self._of_bucket(request)
        stored = self.objects.get(key)
        if stored is None:
            return _error("NoSuchKey", 404)
        if request.method == "POST" and "restore" in request.query:
            return self._restore(key, stored, await request.read())
        if request.method == "GET" and not stored.readable:
            return _error("InvalidObjectState", 403, "The operation is not valid for the object's storage class")
        headers = {"ETag": stored.etag, "x-amz-version-id": f"v-{key}"}
        if stored.storage_class != "STANDARD":
            headers["x-amz-storage-class"] = stored.storage_class
        if stored.asked:
            headers["x-amz-restore"] = self._look(stored)
        return web.Response(body=stored.body, headers={**headers, "Last-Modified": format_datetime(WHEN, usegmt=True)})

    def _look(self, stored: Stored) -> str:
        if stored.looks:
            stored.looks -= 1
        if not stored.back:
            return 'ongoing-request="true"'
        until = format_datetime(datetime.now(UTC) + timedelta(days=7), usegmt=True)
        return f'ongoing-request="false", expiry-date="{until}"'

    def _restore(self, key: str, stored: Stored, body: bytes) -> web.Response:
        said = {each.tag.rpartition("}")[2]: each.text or "" for each in Xml.fromstring(body).iter()}
        status = 403 if self.denied else 200 if stored.back else 409 if stored.asked else 202
        self.asked.append(Asked(key, said["Days"], said["Tier"], status))
        if status == 403:
            return _error("AccessDenied", 403, "not authorized to perform: s3:RestoreObject")
        if status == 409:
            return _error("RestoreAlreadyInProgress", 409)
        stored.asked = True
        return web.Response(status=status)

    def _of_bucket(self, request: web.Request) -> web.Response:
        if "versioning" in request.query:
            return _xml("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
        versions = "versions" in request.query
        line, root = ("Version", "ListVersionsResult") if versions else ("Contents", "ListBucketResult")
        limit = int(request.query.get("max-keys", "1000"))
        lines = "".join(
            f"<{line}><Key>{escape(key)}</Key><VersionId>v-{escape(key)}</VersionId><IsLatest>true</IsLatest>"
            f"<LastModified>2024-02-03T04:05:06.000Z</LastModified><ETag>{escape(stored.etag)}</ETag>"
            f"<Size>{len(stored.body)}</Size><StorageClass>{stored.storage_class}</StorageClass></{line}>"
            for key, stored in sorted(self.objects.items())[:limit]
        )
        return _xml(f"<{root}><Name>{BUCKET}</Name>{lines}<IsTruncated>false</IsTruncated></{root}>")


@asynccontextmanager
async def archive_server(objects: dict[str, Stored]) -> AsyncIterator[Archive]:
    """A server with these objects."""
    made = Archive(objects)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    finally:
        await runner.cleanup()


def _error(code: str, status: int, message: str = "said so") -> web.Response:
    return _xml(f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>", status)


def _xml(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, body=text.encode(), content_type="application/xml")
