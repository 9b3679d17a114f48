"""What the cluster says of our Deployments and pods, kept up to date by watching it.

Each kind in each namespace is listed once and watched from that version on. A watch that ends is taken up again where
it ended; a version that the server has forgotten (410 Gone), or any other trouble, leads to a new list.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from brokers.kubernetes import names
from brokers.kubernetes.cluster import Cluster
from brokers.kubernetes.failures import ApiError, Unreachable
from brokers.kubernetes.kinds import DEPLOYMENT, POD, Kind
from brokers.kubernetes.names import Owner, ServiceKey
from brokers.sdk.errors import temporary_error

logger = logging.getLogger(__name__)

Object = dict[str, Any]

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
_SYNC_SECONDS = 5.0


class Watched:
    """The objects of one kind in one namespace, by name."""

    def __init__(self, cluster: Cluster, kind: Kind, namespace: str, labels: str, changed: Callable[[], None]) -> None:
        self.kind = kind
        self.namespace = namespace
        self.objects: dict[str, Object] = {}
        self.trouble = "it was not reached yet"
        self._cluster = cluster
        self._labels = labels
        self._changed = changed
        self._version = ""

    @property
    def fresh(self) -> bool:
        """Whether what is known here is what the server last said."""
        return not self.trouble

    async def run(self) -> None:
        """List and watch for ever."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                if not self._version:
                    await self._list()
                began = time.monotonic()
                await self._watch()
                pause = _FIRST_PAUSE_SECONDS
                if time.monotonic() - began < 1.0:  # a server that ends every watch at once is not to be stormed
                    await asyncio.sleep(pause)
            except (ApiError, Unreachable) as error:
                self._version = ""
                if isinstance(error, ApiError) and error.status == 410:
                    logger.info("%s in %s are listed anew: %s", self.kind.plural, self.namespace, error.message)
                    continue
                if not self.trouble:
                    logger.warning("%s in %s are not watched now: %s", self.kind.plural, self.namespace, error)
                self.trouble = str(error)
                self._changed()
                wait = error.retry_after_seconds if isinstance(error, ApiError) else None
                await asyncio.sleep(max(pause, wait or 0.0))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def see(self, found: Object) -> None:
        """Take in an object that a call answered with, unless something newer is known."""
        name = found["metadata"]["name"]
        known = self.objects.get(name)
        if known is None or _version(known) <= _version(found):
            self.objects[name] = found
            self._changed()

    async def _list(self) -> None:
        found, version = await self._cluster.list(self.kind, self.namespace, labels=self._labels)
        self.objects = {each["metadata"]["name"]: each for each in found}
        self._version = version
        self.trouble = ""
        self._changed()

    async def _watch(self) -> None:
        stream = self._cluster.watch(self.kind, self.namespace, labels=self._labels, version=self._version)
        async with contextlib.aclosing(stream):
            async for event, found in stream:
                self._take(event, found)

    def _take(self, event: str, found: Object) -> None:
        self._version = str(found["metadata"].get("resourceVersion") or self._version)
        if event == "BOOKMARK":
            return
        name = found["metadata"]["name"]
        if event == "DELETED":
            known = self.objects.get(name)
            if known is not None and known["metadata"]["uid"] == found["metadata"]["uid"]:
                del self.objects[name]
        else:
            self.objects[name] = found
        self._changed()


class Inventory:
    """All of ours in all namespaces. ``start`` first, ``stop`` last."""

    def __init__(self, cluster: Cluster, owner: Owner, namespaces: Iterable[str]) -> None:
        labels = names.selector(owner.labels()) + f",{names.OBJECT}"
        self._deployments = {
            namespace: Watched(cluster, DEPLOYMENT, namespace, labels, self._wake) for namespace in namespaces
        }
        self._pods = {namespace: Watched(cluster, POD, namespace, labels, self._wake) for namespace in namespaces}
        self._changes = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to watch."""
        for watched in (*self._deployments.values(), *self._pods.values()):
            name = f"watch {watched.kind.plural} in {watched.namespace}"
            self._tasks.append(asyncio.create_task(watched.run(), name=name))

    async def stop(self) -> None:
        """Watch no longer."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def trouble(self) -> str:
        """Why it may be out of date; empty when it is not."""
        return next((each.trouble for each in self._all() if each.trouble), "")

    async def synced(self) -> None:
        """Wait a moment until all is known. Raises the temporary ``unavailable``."""
        if not await self.until(lambda: not self.trouble, seconds=_SYNC_SECONDS):
            raise temporary_error("unavailable", f"the cluster is not watched now: {self.trouble}")

    async def until(self, holds: Callable[[], bool], *, seconds: float) -> bool:
        """Wait until it is true, at most so long. Whether it is."""
        deadline = time.monotonic() + seconds
        while not holds():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._changes.clear()
            try:
                async with asyncio.timeout(left if left != float("inf") else None):
                    await self._changes.wait()
            except TimeoutError:
                return holds()
        return True

    def deployments(self) -> list[tuple[str, Object]]:
        """All of them with their namespaces."""
        return [(name, found) for name, watched in self._deployments.items() for found in watched.objects.values()]

    def find(self, key: ServiceKey) -> tuple[str, Object] | None:
        """The Deployment of a service and its namespace."""
        for namespace, watched in self._deployments.items():
            found = watched.objects.get(key.object)
            if found is not None and names.key_of(found) == key:
                return namespace, found
        return None

    def pods(self, namespace: str, key: ServiceKey) -> list[Object]:
        """The pods of a service, the oldest first."""
        found = [each for each in self._pods[namespace].objects.values() if names.key_of(each) == key]
        return sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def pods_of(self, namespace: str, deployment: Object) -> list[Object]:
        """The pods of a Deployment, the oldest first."""
        return self.pods(namespace, names.key_of(deployment))

    def see(self, namespace: str, deployment: Object) -> None:
        """Take in a Deployment that a call answered with."""
        self._deployments[namespace].see(deployment)

    def _all(self) -> Iterable[Watched]:
        yield from self._deployments.values()
        yield from self._pods.values()

    def _wake(self) -> None:
        self._changes.set()


def _version(found: Object) -> int:
    """Versions of one kind of object grow; one that is no number counts as the newest."""
    text = str(found["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdecimal() else 1 << 63
