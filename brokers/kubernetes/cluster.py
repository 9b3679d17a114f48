"""The API server, with objects as the plain JSON that it speaks. The only module that knows the vendor's client.

Calls that may be repeated are: after a busy or failing server (429, 5xx) or a lost connection, a few times.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.aio.stream import WsApiClient

from brokers.kubernetes.failures import ApiError, Unreachable
from brokers.kubernetes.kinds import POD, Kind
from brokers.kubernetes.settings import KubernetesSettings

logger = logging.getLogger(__name__)

Object = dict[str, Any]
C = TypeVar("C", bound=ApiClient)
FIELD_MANAGER = "calque"

_TIMEOUT = aiohttp.ClientTimeout(total=15.0, sock_connect=4.0)
_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 4.0
_BUSY = frozenset({429, 500, 502, 503, 504})
_WATCH_SECONDS = 240
_OUTPUT_BYTES = 1 << 16


class Answer(NamedTuple):
    """What came back from a service behind the API server's proxy."""

    status: int
    body: bytes


class Executed(NamedTuple):
    """How a command ended; ``None`` when it could not be started, and ``output`` says why."""

    exit_code: int | None
    output: str


class Cluster:
    """One API server. ``close`` when done. All calls raise :class:`ApiError` or :class:`Unreachable`."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings
        self._clients: dict[type[ApiClient], ApiClient] = {}
        self._configuration: Configuration | None = None
        self._making = asyncio.Lock()

    async def close(self) -> None:
        """Let go of the connections."""
        for client in self._clients.values():
            await client.close()  # type: ignore[no-untyped-call]
        self._clients.clear()

    # --- objects

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object as it is now, or ``None``."""
        try:
            return await self._json("GET", kind.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: Kind, namespace: str, *, labels: str = "", fields: str = "") -> tuple[list[Object], str]:
        """All that match, and the version of the list."""
        found: list[Object] = []
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": "500"}
        while True:
            page = await self._json("GET", kind.path(namespace), query=query)
            found += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return found, str(metadata.get("resourceVersion", ""))
            query = {**query, "continue": metadata["continue"]}

    async def create(self, kind: Kind, namespace: str, body: Object) -> Object:
        """Make it. Raises the ``ApiError`` 409 when there is one of the name."""
        return await self._json("POST", kind.path(namespace), query={"fieldManager": FIELD_MANAGER}, body=body)

    async def apply(self, kind: Kind, namespace: str, body: Object) -> Object:
        """Server-side apply: our fields as ``body`` has them, the fields of others as they are.

        What we say wins over others: nobody else is to set the fields that we set on what is ours.
        """
        name = body["metadata"]["name"]
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._json(
            "PATCH", kind.path(namespace, name), query=query, body=body, content="application/apply-patch+yaml"
        )

    async def merge(self, kind: Kind, namespace: str, name: str, body: Object, *, subresource: str = "") -> Object:
        """JSON merge patch of a few fields. They belong to a manager of their own, so that apply leaves them."""
        path = kind.path(namespace, name, subresource)
        query = {"fieldManager": f"{FIELD_MANAGER}-notes"}
        return await self._json("PATCH", path, query=query, body=body, content="application/merge-patch+json")

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str,
        propagation: Literal["Foreground", "Background"] = "Background",
        grace_seconds: int | None = None,
    ) -> None:
        """Delete this very object. One that is gone, or was replaced by another of the name, is done."""
        body: Object = {"preconditions": {"uid": uid}, "propagationPolicy": propagation}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        try:
            await self._json("DELETE", kind.path(namespace, name), body=body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def ensure_namespace(self, name: str, labels: Mapping[str, str]) -> None:
        """Make the namespace unless it is there."""
        try:
            await self._json("GET", f"/api/v1/namespaces/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
            metadata = {"name": name, "labels": dict(labels)}
            try:
                await self._json(
                    "POST", "/api/v1/namespaces", body={"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
                )
            except ApiError as late:
                if late.status != 409:
                    raise

    async def version(self) -> str:
        """The server's version, such as ``1.36.3``."""
        found = await self._json("GET", "/version")
        return str(found.get("gitVersion", "")).removeprefix("v")

    async def ready(self) -> None:
        """Returns when the server says that it is ready."""
        response = await self._send("GET", "/readyz")
        try:
            await response.read()
        finally:
            response.release()

    # --- streams and calls

    async def watch(
        self, kind: Kind, namespace: str, *, labels: str, version: str
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Changes after ``version``, until the server ends the stream; its errors (410) are raised."""
        query = {
            "watch": "true",
            "labelSelector": labels,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=4.0, sock_read=_WATCH_SECONDS + 10.0)
        response = await self._send("GET", kind.path(namespace), query=query, timeout=timeout)
        try:
            while line := await _line(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError.of_status(event["object"])
                yield event["type"], event["object"]
        finally:
            response.close()

    async def log(self, namespace: str, pod: str, *, lines: int, previous: bool = False) -> str:
        """The last lines of a pod's container."""
        query = {"tailLines": str(lines), "previous": "true" if previous else ""}
        response = await self._retried("GET", POD.path(namespace, pod, "log"), query=query)
        try:
            return (await response.read()).decode(errors="replace")
        finally:
            response.release()

    async def call(
        self,
        namespace: str,
        pod: str,
        *,
        port: int,
        method: str,
        path: str,
        body: Mapping[str, Any],
        timeout_seconds: float,
    ) -> Answer:
        """An HTTP call to a pod through the API server. Raises :class:`Unreachable` when it did not get there."""
        where = POD.path(namespace, f"{pod}:{port}", "proxy") + path
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        response = await self._raw(method, where, body=dict(body), timeout=timeout, content="application/json")
        try:
            said = await response.read()
        finally:
            response.release()
        if response.status >= 400 and (refused := _status_object(said)):
            if refused.get("code") == 403:
                raise ApiError.of_status(refused)
            raise Unreachable(str(refused.get("message") or refused.get("reason") or "the proxy failed"))
        return Answer(response.status, said)

    async def execute(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> Executed:
        """Run a command in a container, to its end. What it printed comes as one, errors too."""
        client = await self._connected(WsApiClient)
        query = [("container", container), ("stdout", "true"), ("stderr", "true")]
        verb, url, headers, *_ = await client.param_serialize(
            "GET",
            POD.path(namespace, pod, "exec"),
            query_params=[*query, *(("command", word) for word in command)],
            auth_settings=["BearerToken"],
        )
        output = bytearray()
        try:
            opening = await client.request(  # type: ignore[no-untyped-call]
                verb, url, headers=headers, _preload_content=False
            )
            async with opening as socket:
                async for message in socket:
                    data = message.data if isinstance(message.data, bytes) else str(message.data).encode()
                    if data[:1] == b"\x03":
                        return _ended(json.loads(data[1:]), output)
                    output += data[1:]
                    del output[:-_OUTPUT_BYTES]
        except aiohttp.WSServerHandshakeError as error:
            raise ApiError(error.status, "", f"exec was refused: {error.message}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"the API server can't be reached: {_cause(error)}") from None
        raise Unreachable("the connection to the command was cut off")

    # --- inside

    async def _json(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Object | None = None,
        content: str = "application/json",
    ) -> Object:  # fmt: skip
        response = await self._retried(method, path, query=query, body=body, content=content)
        try:
            found: Object = json.loads(await response.read())
            return found
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Unreachable(f"the answer to {method} {path} was cut off: {error}") from None
        finally:
            response.release()

    async def _retried(self, method: str, path: str, **more: Any) -> aiohttp.ClientResponse:
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._send(method, path, **more)
            except Unreachable:
                if attempt == _ATTEMPTS:
                    raise
                wait = pause
            except ApiError as error:
                if attempt == _ATTEMPTS or error.status not in _BUSY:
                    raise
                wait = max(pause, error.retry_after_seconds or 0.0)
            logger.debug("%s %s is tried again after %g s", method, path, wait)
            await asyncio.sleep(min(wait, _LONGEST_PAUSE_SECONDS))
            pause *= 2
        raise AssertionError("unreachable")

    async def _send(self, method: str, path: str, **more: Any) -> aiohttp.ClientResponse:
        response = await self._raw(method, path, **more)
        if response.status < 400:
            return response
        try:
            said = await response.read()
        except (aiohttp.ClientError, TimeoutError):
            said = b""
        finally:
            response.release()
        status = _status_object(said) or {"message": said.decode(errors="replace")[:200]}
        raise ApiError.of_status(
            {**status, "code": response.status},
            retry_after=response.headers.get("Retry-After"),
            doing=f"{method} {path}",
        )

    async def _raw(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Object | None = None,
        timeout: aiohttp.ClientTimeout = _TIMEOUT, content: str = "application/json",
    ) -> aiohttp.ClientResponse:  # fmt: skip
        client = await self._connected(ApiClient)
        try:
            verb, url, headers, sent, _ = await client.param_serialize(
                method,
                path,
                query_params=[(name, value) for name, value in (query or {}).items() if value],
                header_params={"Accept": "application/json", "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
            )
            answered = await client.rest_client.request(  # type: ignore[no-untyped-call]
                verb, url, headers=headers, body=sent, _request_timeout=timeout
            )
        except TimeoutError:
            raise Unreachable(f"the API server did not answer {method} {path} in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"the API server can't be reached: {_cause(error)}") from None
        except ApiException as error:
            raise Unreachable(f"the request could not be made: {error.reason}") from None
        response: aiohttp.ClientResponse = answered.response
        return response

    async def _connected(self, kind: type[C]) -> C:
        async with self._making:
            if self._configuration is None:
                self._configuration = await self._load()
            if kind not in self._clients:
                self._clients[kind] = kind(self._configuration)
                self._clients[kind].user_agent = f"calque-psb-{self._settings.name}"
            found = self._clients[kind]
            assert isinstance(found, kind)
            return found

    async def _load(self) -> Configuration:
        configuration = Configuration()
        try:
            if self._settings.kubeconfig is None:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                await load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=str(self._settings.kubeconfig),
                    context=self._settings.context,
                    client_configuration=configuration,
                    persist_config=False,
                )
        except (ConfigException, OSError, ValueError) as error:
            raise Unreachable(f"the cluster's credentials can't be used: {error}") from None
        return configuration


def _ended(status: Object, output: bytearray) -> Executed:
    """From the last message of an exec."""
    said = output.decode(errors="replace")
    if status.get("status") == "Success":
        return Executed(0, said)
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return Executed(int(cause["message"]), said)
    return Executed(None, said + str(status.get("message") or ""))


async def _line(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.content.readline()
    except TimeoutError:
        return b""
    except (aiohttp.ClientError, OSError) as error:
        raise Unreachable(f"the watch was cut off: {_cause(error)}") from None


def _status_object(said: bytes) -> Object | None:
    """The API server's own error, if it is one."""
    try:
        found = json.loads(said)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("kind") == "Status" and "code" in found else None


def _cause(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
