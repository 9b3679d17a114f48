"""Hooks that are commands: inside the pods of a service, or before the service is there, in a pod of their own."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from brokers.kubernetes import names, objects, rollout
from brokers.kubernetes.checks import check_request
from brokers.kubernetes.cluster import Cluster
from brokers.kubernetes.failures import Unreachable
from brokers.kubernetes.kinds import CONFIG_MAP, JOB, POD, SECRET
from brokers.kubernetes.names import Owner, ServiceKey
from brokers.kubernetes.objects import Wanted
from brokers.kubernetes.settings import KubernetesSettings
from brokers.kubernetes.waiting import pod_log
from brokers.sdk.errors import permanent_error, temporary_error
from brokers.sdk.masking import Mask
from schemas.brokers import DeployService, RunHook
from schemas.problems import CalqueError, invalid
from schemas.values import Hook

logger = logging.getLogger(__name__)

Object = dict[str, Any]
Body = Mapping[str, float | str]

OUTPUT_CHARACTERS = 4096
_OUTPUT_LINES = 200
_KILL_SECONDS = 2
_BEYOND_SECONDS = 5.0
_TIMED_OUT = frozenset({124, 137})
"""Exit codes of ``timeout``: it ended the command, or had to kill it."""
_POLL_SECONDS = 0.2


class Commands:
    """Runs commands of services."""

    def __init__(self, settings: KubernetesSettings, cluster: Cluster, owner: Owner) -> None:
        self._settings = settings
        self._cluster = cluster
        self._owner = owner

    async def inside(self, namespace: str, pod: Object, hook: Hook, *, phase: str, body: Body, mask: Mask) -> str:
        """Run the command in the pod's container; what it printed last, masked.

        The API knows no variables and no time limit for commands, so ``env`` and ``timeout`` of the image give them.
        Raises ``hook_failed``, or the temporary ``hook_timeout`` and ``hook_unreachable``.
        """
        given = {**{f"CALQUE_{name.upper()}": value for name, value in body.items()}, "CALQUE_HOOK": phase}
        command = [
            "env",
            *(f"{name}={value}" for name, value in given.items()),
            *("timeout", "-k", str(_KILL_SECONDS), str(math.ceil(hook.timeout_seconds))),
            *hook.exec,
        ]
        field = f"hooks.{phase}"
        try:
            async with asyncio.timeout(math.ceil(hook.timeout_seconds) + _BEYOND_SECONDS):
                ended = await self._cluster.execute(namespace, pod["metadata"]["name"], objects.CONTAINER, command)
        except TimeoutError:
            raise _too_long(hook, phase=phase, output="") from None
        except Unreachable as error:
            raise temporary_error(
                "hook_unreachable", f"the {phase} hook could not be run: {error}", field=field
            ) from None
        output = mask(ended.output[-OUTPUT_CHARACTERS:])
        if ended.exit_code in _TIMED_OUT:
            raise _too_long(hook, phase=phase, output=output)
        if ended.exit_code != 0:
            raise _failed(hook, phase=phase, exit_code=ended.exit_code, output=output)
        return output

    async def before(self, request: RunHook, deployment: DeployService) -> str:
        """Run the command where the service of ``deployment`` will be, before it is there; nothing of it stays.

        Raises as :meth:`inside`, and ``image_pull`` and the like.
        """
        check_request(deployment, self._settings)
        if not request.hook.exec:
            raise CalqueError(invalid(f"hooks.{request.phase}", "the service does not run yet", "use exec"))
        key = ServiceKey(request.instance, request.service)
        namespace = self._settings.namespace(deployment.space)
        spec = msgspec.structs.replace(deployment.spec, port=None)
        wanted = Wanted(
            msgspec.structs.replace(deployment, spec=spec), self._owner, self._settings, salt=b"", replicas=0
        )
        await self._clear(namespace, key)
        try:
            seconds = request.hook.timeout_seconds + self._settings.rollout_seconds
            made = objects.task(wanted, request.hook.exec, phase=request.phase, deadline_seconds=seconds)
            for kind, body in zip((SECRET, CONFIG_MAP), made[:2], strict=True):
                await self._cluster.apply(kind, namespace, body)
            await self._cluster.create(JOB, namespace, made[2])
            mask = Mask(deployment.secret_environment.values())
            return await self._end_of(namespace, key, request, mask=mask, deadline=time.monotonic() + seconds)
        finally:
            await self._clear(namespace, key)

    async def _end_of(self, namespace: str, key: ServiceKey, request: RunHook, *, mask: Mask, deadline: float) -> str:
        hook, phase = request.hook, request.phase
        running = lasting = float("inf")
        while True:
            now = time.monotonic()
            pods = await self._pods(namespace, key)
            for pod in pods:
                exit_code = rollout.exit_code(pod)
                over = now > min(deadline, running + hook.timeout_seconds)
                if exit_code is not None or over:
                    output = await self._output(namespace, pod, mask)
                    if exit_code is None:
                        raise _too_long(hook, phase=phase, output=output)
                    if exit_code:
                        raise _failed(hook, phase=phase, exit_code=exit_code, output=output)
                    return output
                if rollout.is_running(pod):
                    running = min(running, now)
                cause = rollout.cause({}, [pod])
                if cause is not None and cause.lasting:
                    lasting = min(lasting, now)
                    if now - lasting >= self._settings.trouble_seconds:
                        raise permanent_error(cause.code, mask(cause.message), field=f"hooks.{phase}")
            if now > deadline:
                raise _too_long(hook, phase=phase, output="")
            await asyncio.sleep(_POLL_SECONDS)

    async def _output(self, namespace: str, pod: Object, mask: Mask) -> str:
        try:
            lines = await pod_log(self._cluster, namespace, pod, lines=_OUTPUT_LINES, mask=mask)
        except CalqueError as error:  # how it ended matters more
            logger.info("the output of %s can't be read: %s", pod["metadata"]["name"], error)
            return ""
        return "\n".join(lines)[-OUTPUT_CHARACTERS:]

    async def _clear(self, namespace: str, key: ServiceKey) -> None:
        """Remove what a task has, and wait until its pod is gone: two of them would do the same work at once."""
        for kind in (JOB, SECRET, CONFIG_MAP):
            found = await self._cluster.get(kind, namespace, objects.task_name(key))
            if found is not None and names.is_ours(found, self._labels(key)):
                metadata = found["metadata"]
                await self._cluster.delete(kind, namespace, metadata["name"], uid=metadata["uid"])
        while pods := await self._pods(namespace, key):
            for pod in pods:
                metadata = pod["metadata"]
                if "deletionTimestamp" not in metadata:
                    await self._cluster.delete(POD, namespace, metadata["name"], uid=metadata["uid"])
            await asyncio.sleep(_POLL_SECONDS)

    async def _pods(self, namespace: str, key: ServiceKey) -> list[Object]:
        labels = names.selector(self._labels(key))
        found, _ = await self._cluster.list(POD, namespace, labels=labels)
        return found

    def _labels(self, key: ServiceKey) -> dict[str, str]:
        return {**self._owner.labels(), names.TASK: key.object}


def _too_long(hook: Hook, *, phase: str, output: str) -> CalqueError:
    return temporary_error(
        "hook_timeout",
        f"the {phase} hook {' '.join(hook.exec)!r} did not end within {hook.timeout_seconds:g} s{_tail(output)}",
        field=f"hooks.{phase}",
    )


def _failed(hook: Hook, *, phase: str, exit_code: int | None, output: str) -> CalqueError:
    how = "could not be started" if exit_code is None else f"ended with exit code {exit_code}"
    return permanent_error(
        "hook_failed",
        f"the {phase} hook {' '.join(hook.exec)!r} {how}{_tail(output)}",
        field=f"hooks.{phase}",
        remedy="commands in pods need the programs env and timeout in the image" if exit_code in (None, 127) else None,
    )


def _tail(output: str) -> str:
    return f"; the end of its output:\n{output}" if output else "; it printed nothing"
