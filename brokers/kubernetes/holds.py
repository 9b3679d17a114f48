"""Pausing a service so that nothing of it runs, and the cluster itself lets it go at the deadline.

Scaling to 0 would stop a service too, but nobody would scale it up again if the broker died meanwhile. So a pause is
a Job with a deadline, whose pod the service's pods may not share the cluster with (required anti-affinity). Once that
pod is there, the service's pods are deleted; their successors wait, unscheduled, until the Job is gone: because
somebody resumed the service, or because the cluster ended the Job at its deadline. No step of this needs the broker
after the pause was acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from brokers.kubernetes import names, objects, rollout
from brokers.kubernetes.checks import check_deadline
from brokers.kubernetes.cluster import Cluster
from brokers.kubernetes.failures import ApiError
from brokers.kubernetes.kinds import JOB, POD
from brokers.kubernetes.names import Owner, ServiceKey
from brokers.kubernetes.platform import Found, KubernetesPlatform
from brokers.kubernetes.settings import KubernetesSettings
from brokers.sdk.errors import temporary_error
from schemas.brokers import Held, PauseService, ResumeService

Object = dict[str, Any]

_FREEZE_SECONDS = 10.0
_POLL_SECONDS = 0.1


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """A pause as it is noted on the Deployment: the Job that keeps it, until when (UTC epoch seconds).

    ``held`` is its outcome: ``None`` while it lasts.
    """

    id: str
    job: str
    deadline: float
    acknowledged: bool = False
    held: bool | None = None


_pauses = msgspec.json.Decoder(Pause)


def noted_pause(deployment: Mapping[str, Any]) -> Pause | None:
    """The last pause of a service."""
    text = names.notes(deployment).get(names.PAUSE)
    return _pauses.decode(text) if text else None


class Holds:
    """Pauses of all services."""

    def __init__(
        self, settings: KubernetesSettings, cluster: Cluster, platform: KubernetesPlatform, owner: Owner
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._platform = platform
        self._owner = owner
        self._locks: dict[ServiceKey, asyncio.Lock] = {}

    async def pause(self, request: PauseService) -> Held:
        """See :class:`PauseService`. Raises ``not_found``, or the temporary ``busy``, ``service_not_running`` and
        ``not_frozen``."""
        check_deadline(request.deadline_seconds)
        key = ServiceKey(request.instance, request.service)
        async with self._alone(key):
            found = await self._platform.known(key)
            known = noted_pause(found.deployment)
            if known is not None and known.held is None:
                left = known.deadline - time.time()
                if known.id == request.id and known.acknowledged and left > 0:
                    return Held(held=True)
                if known.id != request.id and left > 0:
                    raise temporary_error("busy", "the service is paused by another request", retry_after_seconds=left)
                await self._end(found, key, known)
            if known is not None and known.id == request.id and known.acknowledged:
                return Held(held=False, message="that pause is over")
            return await self._freeze(found, key, request)

    async def resume(self, request: ResumeService) -> Held:
        """Let the service go on. An unknown one is not paused."""
        key = ServiceKey(request.instance, request.service)
        async with self._alone(key):
            found = await self._platform.find(key)
            if found is None:
                return Held(held=False, message="there is no such service")
            pause = noted_pause(found.deployment)
            if pause is None or (request.pause and request.pause != pause.id):
                return Held(held=False, message="no such pause is on record")
            if pause.held is None:
                return _told(await self._end(found, key, pause))
            await self._platform.removal.end_hold(found.namespace, key)
            if not request.pause:
                return Held(held=False, message="the service was not paused")
            return _told(pause)

    async def _freeze(self, found: Found, key: ServiceKey, request: PauseService) -> Held:
        running = await self._bound(found.namespace, key)
        if not running:
            raise temporary_error("service_not_running", f"{key.service} does not run now", field=key.service)
        deadline = time.time() + request.deadline_seconds
        job = await self._start_job(found.namespace, key, request, node=running[0]["spec"]["nodeName"])
        pause = Pause(id=request.id, job=job["metadata"]["uid"], deadline=deadline)
        try:
            await self._note(found, key, pause)
            async with asyncio.timeout(_FREEZE_SECONDS):
                await self._until_placed(found.namespace, key, pause)
                # past the deadline what runs is what the cluster let go
                while (running := await self._bound(found.namespace, key)) and time.time() < deadline:
                    for pod in running:
                        if "deletionTimestamp" not in pod["metadata"]:
                            metadata = pod["metadata"]
                            await self._cluster.delete(POD, found.namespace, metadata["name"], uid=metadata["uid"])
                    await asyncio.sleep(_POLL_SECONDS)
            if time.time() >= deadline:
                await self._end(found, key, pause)
                return Held(held=False, message="the deadline passed before all of it stood still")
            await self._note(found, key, msgspec.structs.replace(pause, acknowledged=True))
        except TimeoutError:
            await self._end(found, key, pause)
            raise temporary_error("not_frozen", f"not all pods of {key.service} ended in time") from None
        except BaseException:
            await self._end(found, key, pause)
            raise
        return Held(held=True)

    async def _start_job(self, namespace: str, key: ServiceKey, request: PauseService, *, node: str) -> Object:
        body = objects.hold(
            key,
            owner=self._owner,
            settings=self._settings,
            node=node,
            deadline_seconds=request.deadline_seconds,
            pause=request.id,
        )
        await self._platform.removal.end_hold(namespace, key)
        deadline = time.monotonic() + _FREEZE_SECONDS
        while True:
            try:
                return await self._cluster.create(JOB, namespace, body)
            except ApiError as error:
                # the one of an earlier pause is on its way out, or somebody else's is in the way
                if error.reason != "AlreadyExists" or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_POLL_SECONDS)

    async def _until_placed(self, namespace: str, key: ServiceKey, pause: Pause) -> None:
        """Wait until the holding pod has its place on a node, by the word of the node."""
        while True:
            for pod in await self._holding(namespace, key, pause):
                if rollout.is_over(pod):
                    status = pod.get("status") or {}
                    said = status.get("message") or status.get("reason") or "it ended"
                    raise temporary_error("not_frozen", f"the pod that is to hold {key.service} has no place: {said}")
                if (pod.get("status") or {}).get("startTime"):
                    return
            await asyncio.sleep(_POLL_SECONDS)

    async def _end(self, found: Found, key: ServiceKey, pause: Pause) -> Pause:
        """Let the service go on; the pause with its outcome, which is noted before."""
        broken = await self._broken(found.namespace, key, pause)
        ended = msgspec.structs.replace(pause, held=not broken)
        await self._note(found, key, ended)
        await self._platform.removal.end_hold(found.namespace, key)
        return ended

    async def _broken(self, namespace: str, key: ServiceKey, pause: Pause) -> str:
        """Why the service may have run since the pause was acknowledged; empty when it can't have."""
        if not pause.acknowledged:
            return "the pause was not acknowledged"
        if time.time() > pause.deadline:
            return "its deadline passed"
        job = await self._cluster.get(JOB, namespace, objects.hold_name(key))
        if job is None or job["metadata"]["uid"] != pause.job:
            return "the Job that held it is gone"
        if not any(rollout.is_living(pod) for pod in await self._holding(namespace, key, pause)):
            return "the pod that held it is gone"
        if await self._bound(namespace, key):
            return "a pod of it was scheduled"
        return ""

    async def _bound(self, namespace: str, key: ServiceKey) -> list[Object]:
        """The service's pods that have a node: they run, or ran."""
        found, _ = await self._cluster.list(POD, namespace, labels=names.selector(key.labels(self._owner)))
        return [pod for pod in found if rollout.is_bound(pod) and not rollout.is_over(pod)]

    async def _holding(self, namespace: str, key: ServiceKey, pause: Pause) -> list[Object]:
        labels = names.selector({**self._owner.labels(), names.HOLD: key.object})
        found, _ = await self._cluster.list(POD, namespace, labels=labels)
        return [
            pod
            for pod in found
            if any(owner.get("uid") == pause.job for owner in pod["metadata"].get("ownerReferences") or ())
        ]

    async def _note(self, found: Found, key: ServiceKey, pause: Pause) -> None:
        await self._platform.note(found.namespace, key, {names.PAUSE: msgspec.json.encode(pause).decode()})

    @asynccontextmanager
    async def _alone(self, key: ServiceKey) -> AsyncIterator[None]:
        async with self._locks.setdefault(key, asyncio.Lock()):
            yield


def _told(pause: Pause) -> Held:
    return Held(held=bool(pause.held), message="" if pause.held else "the service went on before it was resumed")
