"""The API server's REST: objects, watches, logs, the proxy to pods; and faults on request."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import aiohttp
from aiohttp import web

from tests.integration.kubernetes.simulated import ownership
from tests.integration.kubernetes.simulated.controllers import Controllers
from tests.integration.kubernetes.simulated.node import Node
from tests.integration.kubernetes.simulated.store import Change, Object, Refused, Store, matches, now

_RESOURCE = re.compile(
    r"/(?:api/v1|apis/[^/]+/v1)/namespaces/(?P<namespace>[^/]+)/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+)(?:/(?P<sub>[a-z]+)(?P<rest>/.*)?)?)?"
)
_PLURALS = {"pods", "services", "configmaps", "secrets", "events", "deployments", "jobs", "ingresses"}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
_LABEL_NAME = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]")
_PAGE = 3
_PROXY_SECONDS = 30.0


class Seen(NamedTuple):
    """One request that came."""

    method: str
    path: str
    query: dict[str, str]
    body: Any


class Fault:
    """What the server answers instead, to as many requests as ``times`` says."""

    def __init__(
        self, method: str, path: str, *, status: int = 0, times: int = 1, message: str = "", seconds: float = 0.0,
        retry_after: int | None = None,
    ) -> None:  # fmt: skip
        self.method = method
        self.path = re.compile(path)
        self.status = status
        self.left = times
        self.message = message or f"injected {status}"
        self.seconds = seconds
        self.retry_after = retry_after

    def hits(self, method: str, path: str) -> bool:
        return self.left > 0 and self.method in ("*", method) and self.path.search(path) is not None


class SimulatedCluster:
    """``start`` gives a server at ``url``; ``stop`` ends it with all that runs in its pods."""

    def __init__(self, *, namespaces: tuple[str, ...] = ("calque-default",)) -> None:
        self.store = Store()
        self.node = Node(self.store)
        self.controllers = Controllers(self.store, self.node)
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.namespaces = set(namespaces)
        self.url = ""
        self._watching: set[asyncio.Task[Any]] = set()
        self._runner: web.AppRunner | None = None

    async def start(self, *, port: int = 0) -> None:
        application = web.Application(client_max_size=4 << 20)
        application.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        if not self.controllers.running:
            self.controllers.start()

    async def stop_serving(self) -> None:
        """The API server goes away; what runs goes on."""
        self.cut_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def stop(self) -> None:
        await self.stop_serving()
        await self.controllers.stop()
        await self.node.stop()

    def kubeconfig(self) -> str:
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "simulated",
                "contexts": [{"name": "simulated", "context": {"cluster": "simulated", "user": "broker"}}],
                "clusters": [{"name": "simulated", "cluster": {"server": self.url}}],
                "users": [{"name": "broker", "user": {"token": "not-a-real-token"}}],
            }
        )

    def cut_watches(self) -> None:
        """All watch connections break."""
        for task in self._watching:
            task.cancel()

    # --- requests

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        query = dict(parse_qsl(request.query_string, keep_blank_values=True))
        body = json.loads(await request.read() or b"null")
        self.seen.append(Seen(request.method, path, query, body))
        for fault in self.faults:
            if fault.hits(request.method, path):
                fault.left -= 1
                await asyncio.sleep(fault.seconds)
                if fault.status:
                    return _refusal(Refused(fault.status, "Injected", fault.message), retry_after=fault.retry_after)
        if path == "/version":
            return web.json_response({"gitVersion": "v1.36.0-simulated"})
        if path == "/readyz":
            return web.Response(text="ok")
        try:
            if path.startswith("/api/v1/namespaces") and path.count("/") <= 4:
                return self._namespace(request.method, path, body)
            found = _RESOURCE.fullmatch(path)
            if found is None or found["plural"] not in _PLURALS:
                raise Refused(404, "NotFound", "the server could not find the requested resource")
            if found["name"] is None:
                return await self._collection(request, found, query, body)
            if found["sub"] == "proxy":
                return await self._proxy(request, found, body)
            if found["sub"] == "exec":
                return await self._exec(request, found)
            if found["sub"] == "log":
                return self._log(found, query)
            return web.json_response(self._one(request, found, query, body))
        except Refused as refused:
            return _refusal(refused)

    def _namespace(self, method: str, path: str, body: Any) -> web.Response:
        name = path.removeprefix("/api/v1/namespaces").strip("/") or body["metadata"]["name"]
        if method == "POST":
            if name in self.namespaces:
                raise Refused(409, "AlreadyExists", f'namespaces "{name}" already exists')
            self.namespaces.add(name)
        elif name not in self.namespaces:
            raise Refused(404, "NotFound", f'namespaces "{name}" not found')
        return web.json_response({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    async def _collection(
        self, request: web.Request, found: re.Match[str], query: dict[str, str], body: Any
    ) -> web.StreamResponse:
        plural, namespace = found["plural"], found["namespace"]
        if request.method == "POST":
            self._check_new(namespace, body)
            made = self.store.add(plural, namespace, body)
            return web.json_response(made, status=201)
        if query.get("watch") == "true":
            return await self._watch(request, plural, namespace, query)
        chosen = [each for each in self.store.all(plural, namespace) if _selected(each, query)]
        start = int(query.get("continue", "0"))
        page = chosen[start : start + _PAGE]
        metadata = {"resourceVersion": str(self.store.version)}
        if start + _PAGE < len(chosen):
            metadata["continue"] = str(start + _PAGE)
        return web.json_response({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": page})

    def _one(self, request: web.Request, found: re.Match[str], query: dict[str, str], body: Any) -> Object:
        plural, namespace, name = found["plural"], found["namespace"], found["name"]
        before = self.store.get(plural, namespace, name)
        if request.method == "PATCH" and "apply-patch" in request.content_type:
            return self._apply(plural, namespace, before, body, query)
        if before is None:
            raise Refused(404, "NotFound", f'{plural} "{name}" not found')
        if request.method == "GET":
            return before
        if request.method == "PATCH":
            return self.store.change(plural, namespace, ownership.merge(before, body, manager=query["fieldManager"]))
        if request.method == "DELETE":
            return self._delete(plural, namespace, before, body or {})
        raise Refused(405, "MethodNotAllowed", request.method)

    def _apply(self, plural: str, namespace: str, before: Object | None, body: Object, query: dict[str, str]) -> Object:
        self._check_new(namespace, body)
        after = ownership.apply(before, body, manager=query["fieldManager"], force=query.get("force") == "true")
        if before is None:
            self._complete(plural, after)
            return self.store.add(plural, namespace, after)
        if plural == "deployments" and after["spec"]["selector"] != before["spec"]["selector"]:
            raise Refused(422, "Invalid", "spec.selector: Invalid value: field is immutable")
        self._complete(plural, after, before)
        return self.store.change(plural, namespace, after)

    def _complete(self, plural: str, body: Object, before: Object | None = None) -> None:
        """What the server fills in, and keeps."""
        if plural == "services":
            spec = body["spec"]
            spec.setdefault("clusterIP", "10.0.0.1")
            if spec.get("type") == "NodePort":
                had = {
                    port["port"]: port.get("nodePort") for port in ((before or {}).get("spec") or {}).get("ports", ())
                }
                for port in spec["ports"]:
                    port.setdefault("nodePort", had.get(port["port"]) or self.node.free_port())
            if spec.get("type") == "LoadBalancer":
                body.setdefault("status", {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}})

    def _delete(self, plural: str, namespace: str, before: Object, options: Object) -> Object:
        uid = (options.get("preconditions") or {}).get("uid")
        metadata = before["metadata"]
        if uid and uid != metadata["uid"]:
            raise Refused(
                409, "Conflict", f"Precondition failed: UID in precondition: {uid}, in meta: {metadata['uid']}"
            )
        waits = plural == "pods" or options.get("propagationPolicy") == "Foreground"
        if options.get("gracePeriodSeconds") == 0 and plural == "pods":
            self.node.kill(before)
            waits = False
        if not waits:
            self.store.drop(plural, namespace, metadata["name"])
        elif "deletionTimestamp" not in metadata:
            metadata["deletionTimestamp"] = now()
            return self.store.change(plural, namespace, before)
        return before

    def _check_new(self, namespace: str, body: Object) -> None:
        if namespace not in self.namespaces:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
        metadata = body["metadata"]
        if not _NAME.fullmatch(metadata["name"]):
            raise Refused(422, "Invalid", f"metadata.name: Invalid value: {metadata['name']!r}")
        for name, value in (metadata.get("labels") or {}).items():
            if not _LABEL_NAME.fullmatch(name) or not _LABEL_VALUE.fullmatch(value) or len(value) > 63:
                raise Refused(422, "Invalid", f"metadata.labels: Invalid value: {name}={value!r}")

    async def _watch(
        self, request: web.Request, plural: str, namespace: str, query: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "application/json"
        queue: asyncio.Queue[Change] = asyncio.Queue()
        self.store.listeners.add(queue)
        task = asyncio.current_task()
        assert task is not None
        self._watching.add(task)
        try:
            await response.prepare(request)
            try:
                for change in list(self.store.since(int(query["resourceVersion"]))):
                    await self._send(response, change, plural, namespace, query)
            except Refused as refused:
                await response.write(json.dumps({"type": "ERROR", "object": _status(refused)}).encode() + b"\n")
                return response
            while True:
                await self._send(response, await queue.get(), plural, namespace, query)
        except (asyncio.CancelledError, ConnectionError):
            if request.transport is not None:
                request.transport.close()
            return response
        finally:
            self.store.listeners.discard(queue)
            self._watching.discard(task)

    async def _send(
        self, response: web.StreamResponse, change: Change, plural: str, namespace: str, query: dict[str, str]
    ) -> None:
        if (change.plural, change.namespace) == (plural, namespace) and _selected(change.object, query):
            event = {"type": change.event, "object": change.object}
        else:
            metadata = {"resourceVersion": str(change.version)}
            event = {"type": "BOOKMARK", "object": {"kind": "Bookmark", "metadata": metadata}}
        await response.write(json.dumps(event).encode() + b"\n")

    def _log(self, found: re.Match[str], query: dict[str, str]) -> web.Response:
        pod = self.store.get("pods", found["namespace"], found["name"])
        if pod is None:
            raise Refused(404, "NotFound", f'pods "{found["name"]}" not found')
        lines = self.node.log(pod, previous=query.get("previous") == "true")
        if lines is None:
            raise Refused(400, "BadRequest", f'container "app" in pod "{found["name"]}" is waiting to start')
        tail = lines[-int(query["tailLines"]) :] if "tailLines" in query else lines
        return web.Response(text="".join(f"{line}\n" for line in tail))

    async def _exec(self, request: web.Request, found: re.Match[str]) -> web.WebSocketResponse:
        pod = self.store.get("pods", found["namespace"], found["name"])
        ran = await self.node.execute(pod, request.query.getall("command")) if pod is not None else None
        if ran is None:
            raise Refused(404, "NotFound", f'pods "{found["name"]}" not found')
        code, output = ran
        causes = [{"reason": "ExitCode", "message": str(code)}]
        failed = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        await socket.send_bytes(b"\x01" + output)
        await socket.send_bytes(b"\x03" + json.dumps(failed if code else {"status": "Success"}).encode())
        await socket.close()
        return socket

    async def _proxy(self, request: web.Request, found: re.Match[str], body: Any) -> web.Response:
        name, _, port = found["name"].partition(":")
        pod = self.store.get("pods", found["namespace"], name)
        if pod is None:
            raise Refused(404, "NotFound", f'pods "{name}" not found')
        where = f"http://{(pod.get('status') or {}).get('podIP')}:{port}{found['rest'] or '/'}"
        timeout = aiohttp.ClientTimeout(total=_PROXY_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(request.method, where, json=body) as answer,
            ):
                return web.Response(status=answer.status, body=await answer.read())
        except (aiohttp.ClientError, OSError) as error:
            raise Refused(503, "ServiceUnavailable", f"error trying to reach service: {error}") from None


def _selected(found: Object, query: dict[str, str]) -> bool:
    wanted: dict[str, str] = {}
    labels = found["metadata"].get("labels") or {}
    for term in filter(None, query.get("labelSelector", "").split(",")):
        name, equals, value = term.partition("=")
        if equals:
            wanted[name] = value
        elif name not in labels:
            return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        field, _, value = term.partition("=")
        at: Any = found
        for part in field.split("."):
            at = (at or {}).get(part)
        if at != value:
            return False
    return matches(found, wanted)


def _status(refused: Refused) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": str(refused),
        "reason": refused.reason,
        "code": refused.status,
    }


def _refusal(refused: Refused, *, retry_after: int | None = None) -> web.Response:
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
    return web.json_response(copy.deepcopy(_status(refused)), status=refused.status, headers=headers)
