"""Hooks: asking all pods of a service to hold still, and to go on. Who was asked stands on the Deployment.

A service that was quiesced is thawed at the deadline by its own hook, by this broker or the next one. While no broker
runs, the deadline that the hook was told is the service's own to keep.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from brokers.kubernetes import names, rollout
from brokers.kubernetes.calls import Calls
from brokers.kubernetes.checks import check_deadline, check_hook
from brokers.kubernetes.commands import Body, Commands
from brokers.kubernetes.failures import ApiError, Unreachable
from brokers.kubernetes.inventory import Inventory
from brokers.kubernetes.names import ServiceKey
from brokers.kubernetes.objects import CONTAINER
from brokers.kubernetes.platform import Found, KubernetesPlatform
from brokers.sdk.errors import temporary_error
from schemas.brokers import ExecHook, Held, HookRan, RunHook
from schemas.problems import CalqueError, invalid
from schemas.values import Hook

logger = logging.getLogger(__name__)

Object = dict[str, Any]

_THAW_AGAIN_SECONDS = 1.0


class Quiesce(msgspec.Struct, frozen=True, kw_only=True):
    """A quiesce that the pods were asked for; ``containers`` by pod uid. ``deadline`` is UTC epoch seconds and counts
    from before they were asked. ``held`` is the answer of the thaw that ended it, ``broken`` why it was not unbroken.
    """

    id: str
    operation: str
    containers: dict[str, str]
    deadline: float
    acknowledged: bool = False
    held: bool | None = None
    broken: str = ""


_quiesces = msgspec.json.Decoder(Quiesce)
_hooks = msgspec.json.Decoder(Hook)


class Hooks:
    """Hooks of all services. ``start`` when the inventory watches, ``stop`` last."""

    def __init__(self, platform: KubernetesPlatform, inventory: Inventory, calls: Calls, commands: Commands) -> None:
        self._platform = platform
        self._inventory = inventory
        self._calls = calls
        self._commands = commands
        self._locks: dict[ServiceKey, asyncio.Lock] = {}
        self._thawing: dict[ServiceKey, asyncio.Task[None]] = {}
        self._restoring: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take over the deadlines that the broker before left."""
        self._restoring = asyncio.create_task(self._restore(), name="take over quiesces")

    async def stop(self) -> None:
        """Watch no more deadlines."""
        tasks = [task for task in (self._restoring, *self._thawing.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def call(self, request: ExecHook) -> Held:
        """See :class:`ExecHook`. Raises ``not_found``, ``hook_refused``, ``hook_failed``, and the temporary
        ``hook_timeout``, ``hook_unreachable``, ``service_not_running`` and ``service_restarted``."""
        check_hook(request.hook, phase=request.phase)
        key = ServiceKey(request.instance, request.service)
        async with self._alone(key):
            found = await self._platform.known(key)
            if request.phase == "quiesce":
                return await self._quiesce(found, key, request)
            return await self._thaw(found, key, request)

    async def run(self, request: RunHook) -> HookRan:
        """See :class:`RunHook`; it runs in one pod. Raises as :meth:`call`, and ``hook_failed`` for commands."""
        check_hook(request.hook, phase=request.phase)
        if request.task is not None:
            return HookRan(output=await self._commands.before(request, request.task))
        key = ServiceKey(request.instance, request.service)
        found = await self._platform.known(key)
        pods = await self._running(found, key)
        if not pods:
            raise temporary_error("service_not_running", f"{key.service} does not run now", field=key.service)
        body: Body = {} if request.hook.exec else {"phase": request.phase}
        said = await self._ask_all(found, key, pods[:1], request.hook, body=body, phase=request.phase)
        return HookRan(output=said[0])

    async def _quiesce(self, found: Found, key: ServiceKey, request: ExecHook) -> Held:
        check_deadline(request.deadline_seconds)
        known = noted_quiesce(found.deployment)
        if known is not None and known.id == request.id and known.acknowledged:
            return Held(held=True)
        if not request.hook.exec:
            _port(found.deployment, request.phase)
        pods = await self._running(found, key)
        if not pods:
            raise temporary_error("service_not_running", f"{key.service} does not run now", field=key.service)
        quiesce = Quiesce(
            id=request.id,
            operation=request.operation,
            containers=rollout.containers(pods),
            deadline=time.time() + request.deadline_seconds,
        )
        # Noted, and with its end assured, before the service hears of it: we may be gone the moment after.
        await self._note(found, key, quiesce)
        self._thaw_by_deadline(key, quiesce)
        body = {"deadline_seconds": request.deadline_seconds}
        await self._ask_all(found, key, pods, request.hook, body=body, phase="quiesce")
        if rollout.containers(await self._running(found, key)) != quiesce.containers:
            raise temporary_error("service_restarted", "pods of the service changed while it quiesced")
        await self._note(found, key, msgspec.structs.replace(quiesce, acknowledged=True))
        return Held(held=True)

    async def _thaw(self, found: Found, key: ServiceKey, request: ExecHook) -> Held:
        known = noted_quiesce(found.deployment)
        if known is not None and known.held is not None and known.operation == request.operation:
            return Held(held=known.held, message=known.broken)
        pods = await self._running(found, key)
        cause = ""
        if known is None or known.held is not None or known.operation != request.operation:
            cause = "no quiesce is on record"
        elif not known.acknowledged:
            cause = "the quiesce was not acknowledged"
        elif rollout.containers(pods) != known.containers:
            cause = "pods of the service were replaced or restarted since it quiesced"
        elif time.time() > known.deadline:
            cause = "the deadline of the quiesce passed"
        if pods:
            await self._ask_all(found, key, pods, request.hook, body={}, phase="thaw")
            if known is not None and not cause:
                now = rollout.containers(await self._running(found, key))
                cause = "" if now == known.containers else "pods of the service ended while it thawed"
        if known is not None and known.held is None:
            await self._thawed(found, key, known, broken=cause)
        return Held(held=not cause, message=cause)

    async def _ask_all(
        self, found: Found, key: ServiceKey, pods: list[Object], hook: Hook, *, body: Body, phase: str
    ) -> list[str]:
        """Call the hook in each of the pods; what its command printed."""
        mask = await self._platform.mask_of(found.namespace, key)
        namespace = found.namespace
        if hook.exec:
            calls = [self._commands.inside(namespace, pod, hook, phase=phase, body=body, mask=mask) for pod in pods]
        else:
            port = _port(found.deployment, phase)
            calls = [self._calls.hook(namespace, pod, hook, body, port=port, phase=phase, mask=mask) for pod in pods]
        # all are asked before the first refusal is told: what was asked to thaw must be asked everywhere
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [each for each in results if isinstance(each, str)]

    async def _running(self, found: Found, key: ServiceKey) -> list[Object]:
        pods = await self._platform.pods(found.namespace, key)
        return [pod for pod in pods if rollout.is_living(pod) and (pod.get("status") or {}).get("phase") == "Running"]

    # --- deadlines

    async def _restore(self) -> None:
        await self._inventory.until(lambda: not self._inventory.trouble, seconds=float("inf"))
        for _, deployment in self._inventory.deployments():
            quiesce = noted_quiesce(deployment)
            key = names.key_of(deployment)
            if quiesce is not None and quiesce.held is None and key not in self._thawing:
                self._thaw_by_deadline(key, quiesce)

    def _thaw_by_deadline(self, key: ServiceKey, quiesce: Quiesce) -> None:
        """Let the service go on at the deadline, whoever asked for the quiesce and is gone since."""
        if before := self._thawing.pop(key, None):
            before.cancel()
        task = asyncio.create_task(self._thaw_at_deadline(key, quiesce), name=f"thaw {key.object}")
        self._thawing[key] = task
        task.add_done_callback(lambda done: self._thawing.pop(key) if self._thawing.get(key) is done else None)

    async def _thaw_at_deadline(self, key: ServiceKey, quiesce: Quiesce) -> None:
        await asyncio.sleep(max(0.0, quiesce.deadline - time.time()))
        while True:
            try:
                async with self._alone(key):
                    if await self._thaw_overdue(key, quiesce.id):
                        return
            except (CalqueError, ApiError, Unreachable) as error:
                logger.warning("%s can't be thawed at its deadline: %s", key.object, error)
            await asyncio.sleep(_THAW_AGAIN_SECONDS)

    async def _thaw_overdue(self, key: ServiceKey, id: str) -> bool:
        """Whether nothing is held by that quiesce any more. Raises what calling the hook raises."""
        found = await self._platform.find(key)
        known = noted_quiesce(found.deployment) if found is not None else None
        if found is None or known is None or known.id != id or known.held is not None:
            return True
        text = names.notes(found.deployment).get(names.THAW)
        hook = _hooks.decode(text) if text else None
        asked = [pod for pod in await self._running(found, key) if pod["metadata"]["uid"] in known.containers]
        if asked and hook is not None:
            await self._ask_all(found, key, asked, hook, body={}, phase="thaw")
            logger.warning("%s was thawed at the deadline of its quiesce", key.object)
        await self._thawed(found, key, known, broken="the deadline of the quiesce passed")
        return True

    async def _thawed(self, found: Found, key: ServiceKey, quiesce: Quiesce, *, broken: str) -> None:
        await self._note(found, key, msgspec.structs.replace(quiesce, held=not broken, broken=broken))
        task = self._thawing.get(key)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _note(self, found: Found, key: ServiceKey, quiesce: Quiesce) -> None:
        await self._platform.note(found.namespace, key, {names.QUIESCE: msgspec.json.encode(quiesce).decode()})

    @asynccontextmanager
    async def _alone(self, key: ServiceKey) -> AsyncIterator[None]:
        async with self._locks.setdefault(key, asyncio.Lock()):
            yield


def noted_quiesce(deployment: Mapping[str, Any]) -> Quiesce | None:
    """The last quiesce of a service."""
    text = names.notes(deployment).get(names.QUIESCE)
    return _quiesces.decode(text) if text else None


def _port(deployment: Object, phase: str) -> int:
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        if container["name"] == CONTAINER and container.get("ports"):
            return int(container["ports"][0]["containerPort"])
    raise CalqueError(invalid(f"hooks.{phase}", "the service has no port", "give it a port, or leave the hook out"))
