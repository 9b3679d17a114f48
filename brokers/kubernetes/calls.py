"""Calls into pods: through the API server's proxy, or straight to the pod where the broker reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp

from brokers.kubernetes.checks import parse_hook
from brokers.kubernetes.cluster import Answer, Cluster
from brokers.kubernetes.failures import Unreachable
from brokers.kubernetes.settings import KubernetesSettings
from brokers.sdk.errors import permanent_error, temporary_error
from brokers.sdk.masking import Mask
from schemas.values import Hook

Object = dict[str, Any]

_SHOWN_CHARACTERS = 200
_BEYOND_SECONDS = 5.0


class Calls:
    """One HTTP client for all pods. ``close`` when done."""

    def __init__(self, settings: KubernetesSettings, cluster: Cluster) -> None:
        self._cluster = cluster
        self._session: aiohttp.ClientSession | None = None
        self._direct = settings.calls == "direct"

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def hook(
        self, namespace: str, pod: Object, hook: Hook, body: Mapping[str, Any], *, port: int, phase: str, mask: Mask
    ) -> str:
        """Call a hook and wait for its 2xx; ``mask`` is for what the service answers. A call has no output.

        Raises ``hook_refused`` (permanent), or the temporary problems ``hook_timeout`` and ``hook_unreachable``.
        """
        method, path = parse_hook(hook, phase=phase)
        field = f"hooks.{phase}"
        try:
            async with asyncio.timeout(hook.timeout_seconds):
                if self._direct:
                    answer = await self._straight(pod, method, path, body, port=port)
                else:
                    answer = await self._cluster.call(
                        namespace,
                        pod["metadata"]["name"],
                        port=port,
                        method=method,
                        path=path,
                        body=body,
                        timeout_seconds=hook.timeout_seconds + _BEYOND_SECONDS,
                    )
        except TimeoutError:
            message = f"the {phase} hook did not answer within {hook.timeout_seconds:g} s"
            raise temporary_error("hook_timeout", message, field=field) from None
        except (Unreachable, OSError, aiohttp.ClientError) as error:
            raise temporary_error(
                "hook_unreachable", f"the {phase} hook could not be called: {error}", field=field
            ) from None
        if not 200 <= answer.status < 300:
            raise permanent_error(
                "hook_refused",
                f"the {phase} hook {hook.http!r} answered {answer.status}{mask(_excerpt(answer.body))}",
                field=field,
                remedy="see the log of the service",
            )
        return ""

    async def _straight(self, pod: Object, method: str, path: str, body: Mapping[str, Any], *, port: int) -> Answer:
        if self._session is None:
            # A kept connection would break with every restart of the pod behind it.
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise Unreachable("its pod has no address")
        host = f"[{address}]" if ":" in address else address
        async with self._session.request(
            method, f"http://{host}:{port}{path}", json=body, allow_redirects=False
        ) as response:
            return Answer(response.status, await response.read())


def _excerpt(said: bytes) -> str:
    shown = " ".join(said.decode(errors="replace").split())
    if not shown:
        return ""
    return f": {shown[:_SHOWN_CHARACTERS]}{'...' if len(shown) > _SHOWN_CHARACTERS else ''}"
