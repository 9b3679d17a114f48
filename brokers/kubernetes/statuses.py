"""What ``describe`` says of a service, from its Deployment and pods. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from brokers.kubernetes import names, rollout
from brokers.kubernetes.holds import noted_pause
from schemas.brokers import Deployed, ServiceStatus
from schemas.values import ServiceState

Object = Mapping[str, Any]


def status_of(deployment: Object, pods: Sequence[Object], *, now: float) -> ServiceStatus:
    """The service; ``now`` is UTC in epoch seconds."""
    key = names.key_of(deployment)
    known = names.notes(deployment)
    content = names.notes(deployment["spec"]["template"]).get(names.CONTENT, "")
    living = [pod for pod in pods if rollout.is_living(pod)]
    paused = _is_paused(deployment, pods, now=now)
    state = _state(deployment, pods, content)
    healthy = state == "running" and not paused and rollout.is_ready(deployment)
    message = ""
    if state == "failed":
        message = known.get(names.FAILURE, "")
    elif not healthy and not paused and state in ("running", "deploying"):
        cause = rollout.cause(deployment, living, content=content)
        message = cause.message if cause else rollout.waiting_for(deployment)
    answers = msgspec.json.decode(known.get(names.ANSWERS, "{}"), type=Deployed)
    return ServiceStatus(
        instance=key.instance,
        service=key.service,
        state=state,
        healthy=healthy,
        paused=paused,
        url=answers.url,
        host=answers.host,
        port=answers.port,
        restarts=rollout.restarts(living),
        message=message,
        labels=json.loads(known.get(names.LABELS, "{}")),
    )


def _state(deployment: Object, pods: Sequence[Object], content: str) -> ServiceState:
    known = names.notes(deployment)
    if "deletionTimestamp" in deployment["metadata"]:
        return "stopping"
    if deployment["spec"].get("replicas", 1) == 0:
        if names.FAILURE in known:
            return "failed"
        return "stopping" if any(not rollout.is_over(pod) for pod in pods) else "stopped"
    return "running" if known.get(names.DEPLOYED) == content else "deploying"


def _is_paused(deployment: Object, pods: Sequence[Object], *, now: float) -> bool:
    pause = noted_pause(deployment)
    if pause is None or pause.held is not None or not pause.acknowledged or now > pause.deadline:
        return False
    return not any(rollout.is_bound(pod) and rollout.is_living(pod) for pod in pods)
