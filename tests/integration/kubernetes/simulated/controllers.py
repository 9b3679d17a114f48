"""What makes pods of Deployments and Jobs, gives them nodes, and takes them away. There are no ReplicaSets."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import random
import string
from typing import Any

from tests.integration.kubernetes.simulated.node import NODE, Node
from tests.integration.kubernetes.simulated.store import Change, Object, Store, matches, now


class Controllers:
    """Looks at everything after each change. ``quota``: how many pods a namespace may have."""

    def __init__(self, store: Store, node: Node) -> None:
        self.quota: int | None = None
        self.full = False
        """Whether no node takes any more pods."""
        self._store = store
        self._node = node
        self._task: asyncio.Task[None] | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._queue: asyncio.Queue[Change] = asyncio.Queue()

    @property
    def running(self) -> bool:
        return self._task is not None

    def start(self) -> None:
        self._store.listeners.add(self._queue)
        self._task = asyncio.create_task(self._run(), name="controllers")

    async def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def look(self) -> None:
        """Look again without a change."""
        self._queue.put_nowait(Change(0, "LOOK", "", "", {}))

    async def _run(self) -> None:
        while True:
            await self._queue.get()
            with contextlib.suppress(asyncio.QueueEmpty):
                while True:
                    self._queue.get_nowait()
            for deployment in self._store.all("deployments"):
                self._deployment(deployment)
            for job in self._store.all("jobs"):
                self._job(job)
            self._collect()
            for pod in self._store.all("pods"):
                self._schedule(pod)
            self._node.reconcile()
            await self._node.serve_ports()

    # --- deployments

    def _deployment(self, deployment: Object) -> None:
        metadata, spec = deployment["metadata"], deployment["spec"]
        template = json.dumps(spec["template"], sort_keys=True)
        pods = self._owned(metadata)
        if "deletionTimestamp" in metadata:
            self._delete(pods)
            if not pods:
                self._store.drop("deployments", metadata["namespace"], metadata["name"])
            return
        old = [pod for pod in pods if pod["metadata"]["annotations"]["simulated/template"] != template]
        new = [pod for pod in pods if pod not in old and "deletionTimestamp" not in pod["metadata"]]
        wanted = spec.get("replicas", 1)
        self._delete(old)
        self._delete(new[wanted:])
        refused = ""
        if not old:  # Recreate
            for _ in range(wanted - len(new)):
                if self.quota is not None and len(self._store.all("pods", metadata["namespace"])) >= self.quota:
                    refused = f'pods "{metadata["name"]}-" is forbidden: exceeded quota: pods, limited: {self.quota}'
                    break
                self._make_pod(deployment, "Deployment", template)
        self._count(deployment, template, refused)

    def _count(self, deployment: Object, template: str, refused: str) -> None:
        metadata = deployment["metadata"]
        living = [pod for pod in self._owned(metadata) if "deletionTimestamp" not in pod["metadata"]]
        new = [pod for pod in living if pod["metadata"]["annotations"]["simulated/template"] == template]
        ready = sum(
            1 for pod in new for each in (pod.get("status") or {}).get("containerStatuses", ()) if each["ready"]
        )
        status: Object = {
            "observedGeneration": metadata["generation"],
            "replicas": len(living),
            "updatedReplicas": len(new),
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        if refused:
            condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": refused}
            status["conditions"] = [condition]
        self._store.change("deployments", metadata["namespace"], {**deployment, "status": status})

    def _make_pod(self, owner: Object, kind: str, template: str) -> None:
        source = owner["spec"]["template"]
        metadata = owner["metadata"]
        suffix = "".join(random.choices(string.ascii_lowercase + string.digits, k=5))
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **copy.deepcopy(source["metadata"]),
                "name": f"{metadata['name']}-{suffix}",
                "ownerReferences": [{"kind": kind, "name": metadata["name"], "uid": metadata["uid"]}],
            },
            "spec": copy.deepcopy(source["spec"]),
            "status": {"phase": "Pending"},
        }
        body["metadata"].setdefault("annotations", {})["simulated/template"] = template
        self._store.add("pods", metadata["namespace"], body)

    # --- jobs

    def _job(self, job: Object) -> None:
        metadata = job["metadata"]
        finished = any(each["type"] == "Failed" for each in (job.get("status") or {}).get("conditions", ()))
        if finished:
            self._delete(self._owned(metadata))
            return
        if metadata["uid"] not in self._timers:
            self._timers[metadata["uid"]] = asyncio.get_running_loop().call_later(
                job["spec"]["activeDeadlineSeconds"], self._job_over, metadata
            )
            self._make_pod(job, "Job", "")

    def _job_over(self, metadata: Object) -> None:
        job = self._store.get("jobs", metadata["namespace"], metadata["name"])
        if job is not None and job["metadata"]["uid"] == metadata["uid"]:
            failed = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "lastTransitionTime": now()}
            self._store.change("jobs", metadata["namespace"], {**job, "status": {"conditions": [failed]}})

    # --- all pods

    def _schedule(self, pod: Object) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        if spec.get("nodeName") or "deletionTimestamp" in metadata:
            return
        message = "0/1 nodes are available: 1 Insufficient cpu." if self.full else ""
        others = [each for each in self._store.all("pods", metadata["namespace"]) if each["spec"].get("nodeName")]
        affinity = (spec.get("affinity") or {}).get("podAntiAffinity") or {}
        for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution", ()):
            if any(matches(each, term["labelSelector"]["matchLabels"]) for each in others):
                message = "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."
        if message:
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            status = {"phase": "Pending", "conditions": [condition]}
            self._store.change("pods", metadata["namespace"], {**pod, "status": status})
        else:
            bound = {**pod, "spec": {**spec, "nodeName": NODE}, "status": {"phase": "Pending"}}
            self._store.change("pods", metadata["namespace"], bound)

    def _collect(self) -> None:
        """Garbage: pods whose owner is gone."""
        living = {each["metadata"]["uid"] for kind in ("deployments", "jobs") for each in self._store.all(kind)}
        for pod in self._store.all("pods"):
            if any(owner["uid"] not in living for owner in pod["metadata"].get("ownerReferences", ())):
                self._delete([pod])

    def _owned(self, metadata: Object) -> list[Object]:
        return [
            pod
            for pod in self._store.all("pods", metadata["namespace"])
            if any(owner["uid"] == metadata["uid"] for owner in pod["metadata"].get("ownerReferences", ()))
        ]

    def _delete(self, pods: list[Object]) -> None:
        for pod in pods:
            metadata: dict[str, Any] = pod["metadata"]
            if "deletionTimestamp" not in metadata:
                metadata["deletionTimestamp"] = now()
                self._store.change("pods", metadata["namespace"], pod)
