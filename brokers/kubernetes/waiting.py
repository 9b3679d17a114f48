"""Waiting for a rollout, and saying why it hangs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from brokers.kubernetes import rollout
from brokers.kubernetes.cluster import Cluster
from brokers.kubernetes.failures import ApiError, Unreachable
from brokers.kubernetes.inventory import Inventory
from brokers.kubernetes.kinds import EVENT
from brokers.kubernetes.names import ServiceKey
from brokers.kubernetes.rollout import Cause
from brokers.sdk.errors import permanent_error, temporary_error
from brokers.sdk.masking import Mask
from schemas.problems import CalqueError

logger = logging.getLogger(__name__)

Object = dict[str, Any]

SHOWN_LINES = 10
_LOOK_SECONDS = 0.5
_RETRY_SECONDS = 15.0


class Goal(NamedTuple):
    """What is waited for: this content of this service in this or a later generation of its Deployment.

    ``start_seconds`` is how long a running container may take until it is healthy, ``rollout_seconds`` how much more
    all may take, ``trouble_seconds`` for how long a cause that seldom passes has to be seen.
    """

    key: ServiceKey
    namespace: str
    content: str
    generation: int
    start_seconds: float
    rollout_seconds: float
    trouble_seconds: float
    mask: Mask
    tell: Callable[[str], None]


class RolloutWait:
    """One wait for one goal."""

    def __init__(self, cluster: Cluster, inventory: Inventory, goal: Goal) -> None:
        self._cluster = cluster
        self._inventory = inventory
        self._goal = goal
        self._seen: dict[str, float] = {}
        self._told = ""

    async def run(self) -> None:
        """Returns when all pods are ready. Raises the problem that stands in the way."""
        goal = self._goal
        deadline = time.monotonic() + goal.start_seconds + goal.rollout_seconds
        while not await self._inventory.until(self._done, seconds=_LOOK_SECONDS):
            over = time.monotonic() > deadline
            known = self._current()
            if known is None:
                if over:
                    await self._gone()
                continue
            pods = self._inventory.pods(goal.namespace, goal.key)
            cause = rollout.cause(known, pods, content=goal.content)
            if cause is not None and (over or self._stands(cause)):
                await self._fail(cause, pods)
            if over:
                await self._fail(Cause("unhealthy", f"in time only {rollout.waiting_for(known)}"), pods)
            words = cause.message if cause else rollout.waiting_for(known)
            if words != self._told:
                self._told = words
                goal.tell(goal.mask(words))

    def _current(self) -> Object | None:
        """The Deployment, once it is known as it was applied."""
        known = self._inventory.find(self._goal.key)
        if known is None or known[1]["metadata"].get("generation", 0) < self._goal.generation:
            return None
        return known[1]

    def _done(self) -> bool:
        known = self._current()
        return known is not None and rollout.is_done(known, self._goal.content)

    def _stands(self, cause: Cause) -> bool:
        """Whether the cause has stood for as long as it is to be waited for."""
        now = time.monotonic()
        since = self._seen.setdefault(cause.code, now)
        if cause.code == "unhealthy":
            return now - since >= self._goal.start_seconds
        return cause.lasting and now - since >= self._goal.trouble_seconds

    async def _gone(self) -> None:
        if trouble := self._inventory.trouble:
            raise temporary_error("unavailable", f"the cluster is not watched now: {trouble}")
        raise temporary_error("removed", "somebody removed its Deployment while it was rolled out")

    async def _fail(self, cause: Cause, pods: list[Object]) -> None:
        goal, service = self._goal, self._goal.key.service
        living = [pod for pod in pods if rollout.is_living(pod)]
        message = cause.message
        if living and (cause.code == "unhealthy" or not cause.lasting) and (said := await self._warning(living[-1])):
            message = f"{message}: {said}"
        if cause.temporary:
            raise temporary_error(
                cause.code, goal.mask(message), field=service, retry_after_seconds=_RETRY_SECONDS
            ) from None
        tail = ""
        if living and cause.code in ("unhealthy", "crash_loop"):
            lines = await self._last_lines(living[-1])
            tail = "; last lines of its log:\n" + "\n".join(lines) if lines else "; its log is empty"
        remedy = "see the log of the service" if tail else None
        raise permanent_error(cause.code, goal.mask(message) + tail, field=service, remedy=remedy)

    async def _warning(self, pod: Object) -> str:
        """What the cluster last complained of about a pod: probes and mounts are told nowhere else."""
        try:
            found, _ = await self._cluster.list(
                EVENT, self._goal.namespace, fields=f"involvedObject.uid={pod['metadata']['uid']}"
            )
        except (ApiError, Unreachable) as error:
            logger.info("the events of %s can't be read: %s", pod["metadata"]["name"], error)
            return ""
        warnings = [event for event in found if event.get("type") == "Warning"]
        if not warnings:
            return ""
        latest = max(warnings, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
        return str(latest.get("message") or latest.get("reason") or "")

    async def _last_lines(self, pod: Object) -> tuple[str, ...]:
        try:
            return await pod_log(self._cluster, self._goal.namespace, pod, lines=SHOWN_LINES, mask=self._goal.mask)
        except CalqueError as error:
            logger.info("the log of %s can't be read: %s", pod["metadata"]["name"], error)
            return ()


async def pod_log(cluster: Cluster, namespace: str, pod: Object, *, lines: int, mask: Mask) -> tuple[str, ...]:
    """The last lines of a pod's output, of the container before when the present one has said nothing.

    Raises the temporary ``no_log`` when its node does not give it.
    """
    name = pod["metadata"]["name"]
    said = ""
    try:
        said = await cluster.log(namespace, name, lines=lines)
        if not said and rollout.restarts([pod]):
            said = await cluster.log(namespace, name, lines=lines, previous=True)
    except ApiError as error:
        if error.status == 400:  # no container was started yet
            return ()
        raise temporary_error("no_log", f"the log of pod {name} can't be read: {error.message}") from None
    except Unreachable as error:
        raise temporary_error("no_log", f"the log of pod {name} can't be read: {error}") from None
    return tuple(mask(line) for line in said.splitlines()[-lines:])
