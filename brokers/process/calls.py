"""Calls into a service on its own port: health probes and hooks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

import aiohttp

from brokers.process.ports import HOST
from brokers.sdk.errors import permanent_error, temporary_error
from brokers.sdk.masking import Mask
from schemas.problems import CalqueError, invalid
from schemas.values import HealthCheck, Hook

_HOOK = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (/\S*)")
_SHOWN_CHARACTERS = 200


class ServiceCalls:
    """One HTTP client for all services. ``close`` when done."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            # A kept connection would break with every restart of the service behind it.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def probe(self, check: HealthCheck | None, *, port: int) -> str | None:
        """``None`` when the service is well, else what is wrong: GET of the path answers 2xx, or the port listens."""
        timeout = check.timeout_seconds if check else HealthCheck().timeout_seconds
        path = check.path if check else None
        try:
            async with asyncio.timeout(timeout):
                if path is None:
                    _, writer = await asyncio.open_connection(HOST, port)
                    writer.close()
                    return None
                async with self._session.get(f"http://{HOST}:{port}{path}", allow_redirects=False) as response:
                    if 200 <= response.status < 300:
                        return None
                    return f"GET {path} answered {response.status}{_excerpt(await response.text(errors='replace'))}"
        except TimeoutError:
            return f"no answer to the health check within {timeout:g} s"
        except (OSError, aiohttp.ClientError) as error:
            return f"the health check could not connect: {_cause(error)}"

    async def hook(self, hook: Hook, body: Mapping[str, float | str], *, port: int, phase: str, mask: Mask) -> None:
        """Call a hook and wait for its 2xx; ``mask`` is for what the service answers.

        Raises ``hook_refused`` (permanent), or the temporary problems ``hook_timeout`` and ``hook_unreachable``.
        """
        method, path = parse_hook(hook, phase=phase)
        try:
            async with (
                asyncio.timeout(hook.timeout_seconds),
                self._session.request(
                    method, f"http://{HOST}:{port}{path}", json=dict(body), allow_redirects=False
                ) as response,
            ):
                if not 200 <= response.status < 300:
                    excerpt = mask(_excerpt(await response.text(errors="replace")))
                    raise permanent_error(
                        "hook_refused",
                        f"the {phase} hook {hook.http!r} answered {response.status}{excerpt}",
                        field=f"hooks.{phase}",
                        remedy="see the log of the service",
                    )
        except TimeoutError:
            raise temporary_error(
                "hook_timeout",
                f"the {phase} hook did not answer within {hook.timeout_seconds:g} s",
                field=f"hooks.{phase}",
            ) from None
        except (OSError, aiohttp.ClientError) as error:
            raise temporary_error(
                "hook_unreachable", f"the {phase} hook could not be called: {_cause(error)}", field=f"hooks.{phase}"
            ) from None


def parse_hook(hook: Hook, *, phase: str) -> tuple[str, str]:
    """Method and path; raises ``invalid``."""
    if found := _HOOK.fullmatch(hook.http):
        return found[1], found[2]
    raise CalqueError(invalid(f"hooks.{phase}.http", f"{hook.http!r} is no hook", "write it as 'POST /path'"))


def _excerpt(text: str) -> str:
    shown = " ".join(text.split())
    if not shown:
        return ""
    return f": {shown[:_SHOWN_CHARACTERS]}{'...' if len(shown) > _SHOWN_CHARACTERS else ''}"


def _cause(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__ if not str(error) else str(error)
