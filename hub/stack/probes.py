"""Ready checks: each asks the part itself, again and again, until it answers or the deadline is there.

A deadline is a moment of the event loop's clock (`asyncio.get_running_loop().time()`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from hub.stack.errors import NotReady
from hub.stack.ports import LOOPBACK

ReadyCheck = Callable[[float], Awaitable[None]]
Attempt = Callable[[], Awaitable[str | None]]
"""One look at a part: None when it is ready, else what was seen."""

PAUSE_SECONDS = 0.05
ATTEMPT_SECONDS = 2.0


async def until_ready(attempt: Attempt, deadline: float) -> None:
    """Repeat the attempt until it returns None. Raises `NotReady` with what was seen last."""
    loop = asyncio.get_running_loop()
    seen: str | None = "nothing yet"
    while loop.time() < deadline:
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                seen = await attempt()
        except (OSError, EOFError, TimeoutError) as failure:
            seen = f"{type(failure).__name__}: {failure}" if str(failure) else type(failure).__name__
        if seen is None:
            return
        await asyncio.sleep(PAUSE_SECONDS)
    raise NotReady(f"last seen: {seen}")


def http_ok(port: int, path: str, *, accept: tuple[int, ...] = (200,)) -> ReadyCheck:
    """Ready when a GET of the path at the loopback address is answered with one of the statuses."""

    async def attempt() -> str | None:
        status, _ = await _get(port, path, whole=False)
        return None if status in accept else f"GET {path} at port {port} answered {status or 'nothing'}"

    return _check(attempt)


async def http_body(port: int, path: str) -> bytes:
    """The body of a GET of the path at the loopback address. Raises `OSError`."""
    status, body = await _get(port, path, whole=True)
    if status != 200:
        raise OSError(f"GET {path} at port {port} answered {status or 'nothing'}")
    return body


async def _get(port: int, path: str, *, whole: bool) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        # HTTP/1.0: the body ends where the connection does.
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}:{port}\r\n\r\n".encode())
        await writer.drain()
        line = (await reader.readline()).decode("latin-1").split()
        rest = await reader.read() if whole else b""
    finally:
        writer.close()
    status = int(line[1]) if len(line) > 1 and line[1].isdigit() else 0
    return status, rest.partition(b"\r\n\r\n")[2]


def postgres_accepts(port: int) -> ReadyCheck:
    """Ready when the server asks for a password, which it does only after recovery.

    Protocol 3.0: a StartupMessage is answered with an authentication request ('R'), or with an error
    ('E', code 57P03) while the server starts up.
    """
    body = (196608).to_bytes(4, "big") + b"user\0postgres\0database\0postgres\0\0"
    startup = (len(body) + 4).to_bytes(4, "big") + body

    async def attempt() -> str | None:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        try:
            writer.write(startup)
            await writer.drain()
            kind = await reader.readexactly(1)
        finally:
            writer.close()
        return None if kind == b"R" else "the server is starting up"

    return _check(attempt)


def file_appears(file: Path) -> ReadyCheck:
    """Ready when the part has written its ready file (it is removed before each start)."""

    async def attempt() -> str | None:
        return None if file.exists() else f"{file} is not there yet"

    return _check(attempt)


def _check(attempt: Attempt) -> ReadyCheck:
    async def check(deadline: float) -> None:
        await until_ready(attempt, deadline)

    return check
