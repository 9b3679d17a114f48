"""The kit's app in this process, for the reference platform: what ``app.py`` says of itself, without a process."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import Mapping

from aiohttp import web

HOST = "127.0.0.1"


class FakeApp:
    """One run of the app. While ``going`` is not set it answers nothing."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.run = uuid.uuid4().hex
        self.environment = dict(environment)
        self.well = environment.get("CONFORM_HEALTH") != "never"
        self.log = [line for line in environment.get("CONFORM_SAY", "").split("|") if line]
        self.called: list[list[object]] = []
        self.going = asyncio.Event()
        self.going.set()
        self.ended = asyncio.Event()
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._starting: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        """Listen. Cancelling ends the waiting only: a server that is cancelled while it begins to listen leaves its
        descriptor known to the loop, and who gets the same one next is never served."""
        self._starting = asyncio.create_task(self._listen())
        await asyncio.shield(self._starting)

    async def _listen(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.01)
        self._runner = runner
        await runner.setup()
        site = web.SockSite(runner, socket.create_server((HOST, 0)))
        await site.start()
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Be gone."""
        if self._starting is not None:
            await asyncio.wait({self._starting})
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    def call(self, path: str, body: object) -> int:
        """What a POST does; the status."""
        if path in ("/ill", "/well"):
            self.well = path == "/well"
        self.called.append([path, body])
        return 409 if path == "/refuse" else 200

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await self.going.wait()
        if request.method == "POST":
            if request.path == "/exit":
                self.ended.set()
                return web.json_response("bye")
            body = await request.json() if request.can_read_body else None
            return web.json_response("done", status=self.call(request.path, body))
        if request.path == "/health":
            return web.json_response("health", status=200 if self.well else 500)
        return web.json_response({"run": self.run, "environment": self.environment, "called": self.called})
