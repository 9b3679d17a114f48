"""The demo's receiver of webhooks: verifies what comes, as a stranger's program would, and keeps it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from typing import Any, Self

from aiohttp import web

TOLERANCE_SECONDS = 300.0
LOOPBACK = "127.0.0.1"


class Receiver:
    """Listens on a port of its own. Until it knows the secret it answers 503, so that deliveries come again."""

    def __init__(self) -> None:
        self._secret: bytes | None = None
        self._events: dict[str, dict[str, Any]] = {}
        self._came = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.refused = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_post("/hooks/calque", self._take)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, 0)
        await site.start()
        self.url = f"http://{LOOPBACK}:{self._runner.addresses[0][1]}/hooks/calque"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def trust(self, secret: str) -> None:
        """The secret that deliveries are signed with (``whsec_...``)."""
        self._secret = base64.b64decode(secret.removeprefix("whsec_"))

    async def event(self, type: str, *, subject: str, deadline: float) -> dict[str, Any]:
        """The first event of this type about ``subject`` that came, signed; raises ``TimeoutError`` at the deadline
        (of ``time.monotonic``)."""
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()), self._came:
            while True:
                for event in self._events.values():
                    if event["type"] == type and subject in event.get("subject", ""):
                        return event
                await self._came.wait()

    async def _take(self, request: web.Request) -> web.Response:
        if self._secret is None:
            return web.Response(status=503)
        body = await request.read()
        if not self._signed(request, body, self._secret):
            self.refused += 1
            return web.Response(status=401)
        async with self._came:
            self._events.setdefault(request.headers["webhook-id"], json.loads(body))
            self._came.notify_all()
        return web.Response(status=204)

    def _signed(self, request: web.Request, body: bytes, secret: bytes) -> bool:
        id, sent = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
        if not sent.isdecimal() or abs(time.time() - int(sent)) > TOLERANCE_SECONDS:
            return False
        digest = hmac.digest(secret, f"{id}.{sent}.".encode() + body, hashlib.sha256)
        expected = b"v1," + base64.b64encode(digest)
        given = request.headers.get("webhook-signature", "").split()
        return any(hmac.compare_digest(expected, each.encode()) for each in given)
