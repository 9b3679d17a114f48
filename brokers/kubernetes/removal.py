"""Taking away what is ours, and nothing else: by our labels, and by the uid of what was found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from brokers.kubernetes import names, objects, rollout
from brokers.kubernetes.cluster import Cluster
from brokers.kubernetes.failures import ApiError
from brokers.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, INGRESS, JOB, POD, SECRET, SERVICE, Kind
from brokers.kubernetes.names import Owner, ServiceKey

Object = dict[str, Any]

_FIRST_POLL_SECONDS = 0.1
_LONGEST_POLL_SECONDS = 1.0


class Removal:
    """Removes objects of services in the given namespaces."""

    def __init__(self, cluster: Cluster, owner: Owner, namespaces: Sequence[str], *, ingresses: bool) -> None:
        self._cluster = cluster
        self._owner = owner
        self._namespaces = namespaces
        kinds = (INGRESS,) if ingresses else ()
        self._kinds: tuple[Kind, ...] = (*kinds, SERVICE, CONFIG_MAP, SECRET)

    async def remove(self, key: ServiceKey) -> None:
        """Remove all of the service, pods last seen running included."""
        for namespace in self._namespaces:
            await self._remove(namespace, key)

    async def _remove(self, namespace: str, key: ServiceKey) -> None:
        # The Deployment goes first and last: its pods may need the others until they have ended.
        pause = _FIRST_POLL_SECONDS
        while await self._delete_all(DEPLOYMENT, namespace, key) or await self._pods(namespace, key):
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)
        for kind in (*self._kinds, JOB):
            await self._delete_all(kind, namespace, key)

    async def without_pods(self, namespace: str, key: ServiceKey) -> None:
        """Wait until no pod of the service is there."""
        pause = _FIRST_POLL_SECONDS
        while await self._pods(namespace, key):
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)

    async def end_hold(self, namespace: str, key: ServiceKey) -> None:
        """Let the pods of the service be scheduled, if anything kept them from it."""
        found = await self._cluster.get(JOB, namespace, objects.hold_name(key))
        wanted = {**self._owner.labels(), names.INSTANCE: key.instance, names.SERVICE: key.service}
        if found is None or not names.is_ours(found, wanted):
            return
        await self._cluster.delete(JOB, namespace, found["metadata"]["name"], uid=found["metadata"]["uid"])
        # the garbage collector would take its time
        labels = names.selector({**self._owner.labels(), names.HOLD: key.object})
        pods, _ = await self._cluster.list(POD, namespace, labels=labels)
        for pod in pods:
            metadata = pod["metadata"]
            await self._cluster.delete(POD, namespace, metadata["name"], uid=metadata["uid"], grace_seconds=0)

    async def _delete_all(self, kind: Kind, namespace: str, key: ServiceKey) -> bool:
        """Ask for the deletion of all of one kind. Whether any is still there."""
        labels = {**self._owner.labels(), names.INSTANCE: key.instance, names.SERVICE: key.service}
        try:
            found, _ = await self._cluster.list(kind, namespace, labels=names.selector(labels))
        except ApiError as error:
            if error.status == 404:  # no such namespace, or no such kind in this cluster
                return False
            raise
        for each in found:
            metadata = each["metadata"]
            if "deletionTimestamp" not in metadata:
                await self._cluster.delete(
                    kind,
                    namespace,
                    metadata["name"],
                    uid=metadata["uid"],
                    propagation="Foreground" if kind is DEPLOYMENT else "Background",
                )
        return bool(found)

    async def _pods(self, namespace: str, key: ServiceKey) -> list[Object]:
        labels = names.selector(key.labels(self._owner))
        found, _ = await self._cluster.list(POD, namespace, labels=labels)
        return [pod for pod in found if not rollout.is_over(pod)]
