"""One HTTPS request to a copy repository with a grant: authorisation, time limits, and errors as problems."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from brokers.sdk.copystream_tls import pinned_context
from brokers.sdk.near import NearConnector, address, reaches
from schemas.brokers import CopyGrant
from schemas.problems import CalqueError, Problem, permanent, temporary
from schemas.unreadable import UNREADABLE

Session = aiohttp.ClientSession

READ_BUFFER_BYTES = 1 << 20
CONNECT_SECONDS = 15.0
STALL_SECONDS = 120.0
"""How long the other side may take nothing, or send nothing, before the connection counts as dead."""


class CopyStreamError(CalqueError):
    """Writing or reading a copy failed. `problem.temporary` says whether the same may work later: the part then
    has to be written or read again from its beginning."""


def broken(part: str, error: BaseException) -> CopyStreamError:
    """The connection failed or ended early: temporary."""
    reason = str(error) or type(error).__name__
    return CopyStreamError(
        temporary("repository_unreachable", f"the connection to the repository failed: {reason}", field=part)
    )


def damaged(part: str, message: str) -> CopyStreamError:
    """What arrived is not what was stored: permanent."""
    return CopyStreamError(permanent("corrupt", message, field=part))


@contextlib.asynccontextmanager
async def connection(
    grant: CopyGrant, *, certificate: Path | None = None, key: Path | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that talks to the repository of the grant only: on this machine without TLS, where that can be."""
    connector: aiohttp.BaseConnector
    if certificate is None and await reaches(grant.near):
        connector = NearConnector(address(grant.near))
    else:
        context = pinned_context(fingerprint=grant.fingerprint, ca=grant.ca, certificate=certificate, key=key)
        connector = aiohttp.TCPConnector(ssl=context)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        headers={"Authorization": f"Bearer {grant.token.value}"},
        read_bufsize=READ_BUFFER_BYTES,
        auto_decompress=False,
    ) as session:
        yield session


@contextlib.asynccontextmanager
async def request(
    session: aiohttp.ClientSession, method: str, url: str, *, part: str, **options: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The response, if the repository accepts. Raises CopyStreamError, also when the connection breaks while the
    body is read inside the block."""
    try:
        async with session.request(method, url, allow_redirects=False, **options) as response:
            if response.status >= 300:
                raise CopyStreamError(await _problem(response, part=part))
            yield response
    except ssl.SSLCertVerificationError as error:
        raise CopyStreamError(permanent("wrong_certificate", str(error), field=part)) from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise CopyStreamError(permanent("wrong_certificate", str(error), field=part)) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise broken(part, error) from error


async def _problem(response: aiohttp.ClientResponse, *, part: str) -> Problem:
    text = (await response.content.read(64 << 10)).decode(errors="replace")
    try:
        return msgspec.json.decode(text, type=Problem)
    except UNREADABLE:
        message = f"the repository answered {response.status}: {text[:200]}"
        if response.status >= 500:
            return temporary("repository_failed", message, field=part)
        return permanent("repository_refused", message, field=part)


async def send_guarded(blocks: AsyncIterator[bytes], send: Callable[[AsyncIterator[bytes]], Awaitable[Any]]) -> Any:
    """Runs `send(body)` where the body is `blocks`. An error of the source comes out as itself, not as one of the
    connection; a peer that takes no byte for STALL_SECONDS is given up with TimeoutError."""
    failure: BaseException | None = None
    loop = asyncio.get_running_loop()

    async def body(limit: asyncio.Timeout) -> AsyncIterator[bytes]:
        nonlocal failure
        try:
            async for block in blocks:
                limit.reschedule(loop.time() + STALL_SECONDS)
                yield block
                # The source may take as long as it likes.
                limit.reschedule(None)
            limit.reschedule(loop.time() + STALL_SECONDS)
        except Exception as error:
            failure = error
            raise

    try:
        async with asyncio.timeout(None) as limit:
            return await send(body(limit))
    except Exception:
        if failure is not None:
            raise failure from None
        raise
