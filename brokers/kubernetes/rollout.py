"""Whether a Deployment's pods run and are ready, and if not, why. Pure: reads what the cluster says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from brokers.kubernetes import names
from brokers.kubernetes.objects import CONTAINER

Object = Mapping[str, Any]

_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable", "InvalidImageName"})
_CONFIGURATION = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


class Cause(NamedTuple):
    """Why pods are not ready. ``lasting``: it seldom passes by itself, so there is no use in waiting long.
    ``temporary``: what the cluster lacks, not what the service is."""

    code: str
    message: str
    lasting: bool = False
    temporary: bool = False


def is_done(deployment: Object, content: str) -> bool:
    """Whether all pods run this content and are ready."""
    spec, status = deployment["spec"], deployment.get("status") or {}
    wanted = spec.get("replicas", 1)
    return (
        names.notes(spec["template"]).get(names.CONTENT) == content
        and status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("readyReplicas", 0) == wanted
    )


def is_ready(deployment: Object) -> bool:
    """Whether as many pods are ready as there are to be, at least one."""
    wanted = deployment["spec"].get("replicas", 1)
    ready = (deployment.get("status") or {}).get("readyReplicas", 0)
    return bool(0 < wanted <= ready)


def is_over(pod: Object) -> bool:
    """Whether all that ran in the pod has ended, for good."""
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


def is_living(pod: Object) -> bool:
    """Whether a pod is neither over nor on its way out."""
    return not is_over(pod) and "deletionTimestamp" not in pod["metadata"]


def is_bound(pod: Object) -> bool:
    """Whether a pod may run or have run: it was given a node, and is there still."""
    return bool(pod["spec"].get("nodeName"))


def restarts(pods: Iterable[Object]) -> int:
    """How often containers of the pods were started again."""
    return sum(container.get("restartCount", 0) for pod in pods if (container := _container(pod)))


def cause(deployment: Object, pods: Iterable[Object], *, content: str | None = None) -> Cause | None:
    """What stands in the way; ``None`` when nothing says so (yet). ``content`` leaves out pods of another one."""
    found = [
        each
        for pod in pods
        if is_living(pod) and content in (None, names.notes(pod).get(names.CONTENT))
        if (each := _of_pod(pod))
    ]
    if found:
        return max(found, key=lambda each: (each.lasting, not each.temporary))
    for condition in (deployment.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            message = str(condition.get("message") or condition.get("reason"))
            if "exceeded quota" in message:
                return Cause("quota", f"no pod could be made: {message}", temporary=True)
            return Cause("pods_refused", f"no pod could be made: {message}", lasting=True)
    return None


def waiting_for(deployment: Object) -> str:
    """In a few words, how far a rollout is."""
    status = deployment.get("status") or {}
    return f"{status.get('readyReplicas', 0)} of {deployment['spec'].get('replicas', 1)} pods are ready"


def containers(pods: Iterable[Object]) -> dict[str, str]:
    """Which container each living pod runs now, by the pod's uid: another one after a restart."""
    return {
        pod["metadata"]["uid"]: str((_container(pod) or {}).get("containerID") or "") for pod in pods if is_living(pod)
    }


def is_running(pod: Object) -> bool:
    """Whether its container runs now."""
    return "running" in ((_container(pod) or {}).get("state") or {})


def exit_code(pod: Object) -> int | None:
    """How its container ended, of a pod that runs once."""
    ended = ((_container(pod) or {}).get("state") or {}).get("terminated")
    return int(ended.get("exitCode", 1)) if ended else None


def image_digest(pods: Iterable[Object]) -> str | None:
    """The digest of the image that runs, as the nodes found it."""
    for pod in pods:
        _, found, digest = str((_container(pod) or {}).get("imageID") or "").rpartition("sha256:")
        if found:
            return digest
    return None


def _of_pod(pod: Object) -> Cause | None:
    container = _container(pod)
    if container is None:
        return _unscheduled(pod)
    state = container.get("state") or {}
    restarted = container.get("restartCount", 0)
    if waiting := state.get("waiting"):
        reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        if reason in _PULL:
            said = f": {message}" if message else ""
            return Cause("image_pull", f"its image can't be pulled ({reason}){said}", lasting=True)
        if reason in _CONFIGURATION:
            return Cause("container_config", f"its container can't be made ({reason}): {message}", lasting=True)
        if reason == "CrashLoopBackOff":
            return Cause("crash_loop", f"it {_ending(container)}, {restarted + 1} times", lasting=True)
        return None
    if "terminated" in state:
        return Cause("crash_loop", f"it {_ending(container)}", lasting=True)
    if "running" in state and not container.get("ready"):
        again = f"; before, it {_ending(container)}" if restarted else ""
        return Cause("unhealthy", f"its health check fails{again}")
    return None


def _unscheduled(pod: Object) -> Cause | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            said = condition.get("message") or condition.get("reason") or "the scheduler does not say why"
            return Cause("unschedulable", f"no node takes it: {said}", temporary=True)
    return None


def _container(pod: Object) -> Mapping[str, Any] | None:
    statuses: list[Mapping[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or []
    return next((each for each in statuses if each.get("name") == CONTAINER), None)


def _ending(container: Mapping[str, Any]) -> str:
    ended = (container.get("state") or {}).get("terminated") or (container.get("lastState") or {}).get("terminated")
    if not ended:
        return "ended"
    reason = ended.get("reason")
    named = f" ({reason})" if reason and reason not in ("Error", "Completed") else ""
    signal = ended.get("signal")
    return f"was ended by signal {signal}{named}" if signal else f"ended with exit code {ended.get('exitCode')}{named}"
