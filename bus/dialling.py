"""The first connect: bounded by a deadline, quick when the port is not open yet, clear when refused.

nats-py with endless reconnects waits for ever on its first connect, and two seconds after each refusal: so the
port is polled first, and the connect runs inside a timeout of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from nats import errors as nats_errors

from bus.client import BusClient as Client
from bus.errors import refused, unreachable
from schemas.problems import CalqueError, invalid


class _Refused(Exception):
    """The server does not accept the credentials."""


POLL_SECONDS = 0.05
ATTEMPT_SECONDS = 5.0
DEFAULT_PORT = 4222


async def dial(
    servers: Sequence[str],
    *,
    name: str,
    nkey_seed_file: str | None,
    credentials_file: str | None = None,
    inbox_prefix: str,
    deadline_seconds: float,
    on_error: Callable[[Client, Exception], Awaitable[None]],
    on_disconnected: Callable[[Client], Awaitable[None]],
    on_reconnected: Callable[[Client], Awaitable[None]],
    on_closed: Callable[[Client], Awaitable[None]],
) -> Client:
    """A connected client. Raises :class:`schemas.problems.CalqueError`: ``unreachable``, ``forbidden``."""
    check_seed_file(nkey_seed_file)
    check_seed_file(credentials_file, field="credentials_file")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_seconds
    cause = "nothing listens"
    while True:
        if await _some_port_open(servers):
            client = Client()
            seen: list[Exception] = []
            dialled: set[Client] = set()

            async def failed(
                error: Exception,
                client: Client = client,
                seen: list[Exception] = seen,
                dialled: set[Client] = dialled,
            ) -> None:
                seen.append(error)
                del seen[:-10]
                await on_error(client, error)
                if _is_refusal(error) and client not in dialled:
                    raise _Refused  # ends the first connect at once; never the read loop of a standing connection

            async def disconnected(client: Client = client) -> None:
                await on_disconnected(client)

            async def reconnected(client: Client = client) -> None:
                await on_reconnected(client)

            async def closed(client: Client = client) -> None:
                await on_closed(client)

            try:
                # not wait_for: before Python 3.12 it can lose a cancellation
                async with asyncio.timeout(max(min(ATTEMPT_SECONDS, deadline - loop.time()), POLL_SECONDS)):
                    await client.connect(
                        servers=list(servers),
                        name=name,
                        nkeys_seed=nkey_seed_file,
                        user_credentials=credentials_file,
                        inbox_prefix=inbox_prefix,
                        error_cb=failed,
                        disconnected_cb=disconnected,
                        reconnected_cb=reconnected,
                        closed_cb=closed,
                        max_reconnect_attempts=-1,
                        reconnect_time_wait=1,
                        connect_timeout=2,
                        ping_interval=10,
                        max_outstanding_pings=2,
                    )
            except (nats_errors.Error, OSError, TimeoutError, _Refused) as error:
                client.options["allow_reconnect"] = False
                with contextlib.suppress(nats_errors.Error, OSError, TimeoutError):
                    async with asyncio.timeout(1.0):
                        await client.close()
                problems = [*seen, error]
                if any(_is_refusal(problem) for problem in problems):
                    raise refused(servers, name=name) from error
                cause = next((f"{type(p).__name__}: {p}" for p in problems if str(p)), type(error).__name__)
            else:
                dialled.add(client)
                return client
        if loop.time() >= deadline:
            raise unreachable(servers, seconds=deadline_seconds, cause=cause)
        await asyncio.sleep(POLL_SECONDS)


def check_seed_file(path: str | None, *, field: str = "nkey_seed_file") -> None:
    """Raise :class:`CalqueError` when the seed of an nkey, or a file of credentials, can't be read."""
    if path is None:
        return
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise CalqueError(
            invalid(field, f"{path} can't be read ({error.strerror})", "give the path of a seed file")
        ) from None


def _is_refusal(error: Exception) -> bool:
    return "authorization" in str(error).lower()


async def _some_port_open(servers: Sequence[str]) -> bool:
    for server in servers:
        parts = urlsplit(server if "//" in server else f"nats://{server}")
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                _, writer = await asyncio.open_connection(parts.hostname, parts.port or DEFAULT_PORT)
        except (OSError, TimeoutError):
            continue
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True
    return False
