"""A server that answers as it is told, byte for byte: what no real one can be made to do."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from brokers.s3.places import Keys, Place
from schemas.secrets import Secret


class Seen(NamedTuple):
    """A request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


class Scripted:
    """Answers the requests, whichever connection they come on, with ``script`` in order. A piece ``None`` ends the
    connection; an answer of several pieces is sent piece by piece."""

    def __init__(self, script: Sequence[Sequence[bytes | None]]) -> None:
        self._script = list(script)
        self.seen: list[Seen] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.place = Place("", "us-east-1", lambda: Keys("KEY", Secret(value="secret")))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *lines = head.strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.seen.append(Seen(line, headers, body))
                self.asked.set()
                for piece in self._script.pop(0):
                    if piece is None:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def scripted(
    *script: Sequence[bytes | None], tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Scripted]:
    """A server on a free port."""
    told = Scripted(script)
    server = await asyncio.start_server(told.serve, host, 0, ssl=tls)
    port, named = server.sockets[0].getsockname()[1], f"[{host}]" if ":" in host else host
    told.place = told.place._replace(endpoint=f"{'https' if tls else 'http'}://{named}:{port}")
    async with server:
        yield told


class Tunnels:
    """A proxy that makes tunnels to one server, whatever it is asked for. ``asked`` are the requests."""

    def __init__(self, endpoint: str, answer: bytes) -> None:
        self._port = int(endpoint.rpartition(":")[2])
        self._answer = answer
        self.asked: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self._answer)
        if b" 200 " in self._answer:
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
            await asyncio.gather(_passed_on(reader, back), _passed_on(there, writer))
        writer.close()


async def _passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while block := await reader.read(1 << 16):
            writer.write(block)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()


@asynccontextmanager
async def tunnels(
    endpoint: str, *, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"
) -> AsyncIterator[Tunnels]:
    """A proxy on a free port."""
    made = Tunnels(endpoint, answer)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield made


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """An answer of known length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
