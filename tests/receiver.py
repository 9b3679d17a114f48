"""A receiver of webhooks as somebody would write it: verifies signatures, answers as a test wants it to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiohttp import web


class Got(NamedTuple):
    """One request as it came."""

    id: str
    type: str
    event: dict[str, Any]
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """``answers`` are given one after the other, then ``always``: a status, or a response, or a function for one."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    answers: deque[int | web.Response] = field(default_factory=deque)
    always: int = 200
    hold: asyncio.Event | None = None

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.got]

    @property
    def types(self) -> list[str]:
        return [each.type.removeprefix("calque.event.").removesuffix(".v1") for each in self.got]

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        event = json.loads(body)
        self.got.append(Got(request.headers["webhook-id"], event["type"], event, dict(request.headers), body))
        if self.hold is not None:
            await self.hold.wait()
        answer = self.answers.popleft() if self.answers else self.always
        return answer if isinstance(answer, web.Response) else web.Response(status=answer, text=f"answer {answer}")


def signed_by(secret: str, got: Got) -> bool:
    """Whether one of the signatures is by this secret (Standard Webhooks)."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    headers = {name.lower(): value for name, value in got.headers.items()}
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + got.body
    expected = "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return any(hmac.compare_digest(expected, each) for each in headers["webhook-signature"].split())


@asynccontextmanager
async def receiving(change: Callable[[Receiver], None] | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a port of its own."""
    receiver = Receiver()
    if change is not None:
        change(receiver)
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield receiver
    finally:
        if receiver.hold is not None:
            receiver.hold.set()
        await runner.cleanup()
