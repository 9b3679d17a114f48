"""Takes votes over HTTP and sends them on the channel.

POST /votes/<choice>   sends the vote on votes.cast
GET  /counted          what it heard on votes.counted.*
GET  /total            asks the counter
POST /forge/<choice>   tries to send a count, which only the counter may

python -m tally.booth
"""

from __future__ import annotations

import asyncio
import json
import os

from aiohttp import web
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from tally.channel import connect


def application(channel: Client, counted: dict[str, int]) -> web.Application:
    """The routes."""

    async def health(_: web.Request) -> web.Response:
        return web.Response(status=200 if channel.is_connected else 503)

    async def vote(request: web.Request) -> web.Response:
        await channel.publish("votes.cast", request.match_info["choice"].encode())
        await channel.flush()
        return web.Response(status=202)

    async def heard(_: web.Request) -> web.Response:
        return web.json_response(counted)

    async def total(_: web.Request) -> web.Response:
        try:
            answer = await channel.request("votes.total", b"", timeout=2)
        except (Error, TimeoutError) as error:
            return web.Response(status=503, text=f"nobody counts ({type(error).__name__})")
        return web.json_response(json.loads(answer.data))

    async def forge(request: web.Request) -> web.Response:
        await channel.publish(f"votes.counted.{request.match_info['choice']}", b"1000000")
        await channel.flush()
        return web.Response(status=202)

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", health),
            web.post("/votes/{choice}", vote),
            web.get("/counted", heard),
            web.get("/total", total),
            web.post("/forge/{choice}", forge),
        ]
    )
    return app


async def main() -> None:
    """Serve for ever."""
    channel = await connect("booth")
    counted: dict[str, int] = {}

    async def hear(message: Msg) -> None:
        counted[message.subject.rpartition(".")[2]] = int(message.data)

    await channel.subscribe("votes.counted.*", cb=hear)
    await channel.flush()
    runner = web.AppRunner(application(channel, counted), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])).start()
    print("open", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
