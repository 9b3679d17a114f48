"""The objects of one app service, made from the request alone. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from brokers.kubernetes import names
from brokers.kubernetes.names import Owner, ServiceKey
from brokers.kubernetes.settings import KubernetesSettings
from schemas.brokers import DeployService
from schemas.values import HealthCheck, ServiceSpec

Object = dict[str, Any]

SALT_KEY = "calque.salt"
_TRUNCATED_SECONDS = 1
CONTAINER = "app"
FAILURES_TO_UNREADY = 2
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,240}")
_ONE_DOMAIN = "kubernetes.io/os"
"""A node label whose value all nodes of an app share, so that a holding pod anywhere keeps all its pods away."""


class Wanted(NamedTuple):
    """A service as it is to be."""

    request: DeployService
    owner: Owner
    settings: KubernetesSettings
    salt: bytes
    replicas: int

    @property
    def key(self) -> ServiceKey:
        return ServiceKey(self.request.instance, self.request.service)

    @property
    def namespace(self) -> str:
        return self.settings.namespace(self.request.space)

    @property
    def content(self) -> str:
        """A digest of all that a container depends on. Keyed: nobody without the salt can try secrets against it."""
        request = self.request
        secrets = {name: secret.value for name, secret in request.secret_environment.items()}
        parts = (request.spec, request.environment, secrets)
        return hmac.new(self.salt, msgspec.json.encode(parts, order="deterministic"), hashlib.sha256).hexdigest()

    @property
    def public(self) -> bool:
        return self.request.spec.type == "public"


def secret(wanted: Wanted) -> Object:
    """The variables that hold secrets, and the salt of the content's digest."""
    values = {_key(name): value.value.encode() for name, value in wanted.request.secret_environment.items()}
    data = {name: base64.b64encode(value).decode() for name, value in {**values, SALT_KEY: wanted.salt}.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(wanted), "type": "Opaque", "data": data}


def config_map(wanted: Wanted) -> Object:
    """The plain variables."""
    data = {_key(name): value for name, value in wanted.request.environment.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(wanted), "data": data}


def service(wanted: Wanted) -> Object | None:
    """The address inside the cluster, and outside it where the settings say so; none for a service without a port."""
    spec = wanted.request.spec
    if spec.port is None:
        return None
    types = {"node-port": "NodePort", "load-balancer": "LoadBalancer"}
    kind = types.get(wanted.settings.expose, "ClusterIP") if wanted.public else "ClusterIP"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(wanted),
        "spec": {
            "type": kind,
            "selector": {names.OBJECT: wanted.key.object},
            "ports": [{"name": "main", "port": spec.port, "targetPort": spec.port, "protocol": "TCP"}],
        },
    }


def ingress(wanted: Wanted) -> Object | None:
    """The way in by a name of its own, for a public service where the settings say so."""
    if not (wanted.public and wanted.settings.expose == "ingress" and wanted.request.spec.port is not None):
        return None
    backend = {"service": {"name": wanted.key.object, "port": {"number": wanted.request.spec.port}}}
    rule = {"host": ingress_host(wanted), "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    spec: Object = {"rules": [rule]}
    if wanted.settings.ingress_class:
        spec["ingressClassName"] = wanted.settings.ingress_class
    if wanted.settings.public_scheme == "https":
        spec["tls"] = [{"hosts": [rule["host"]]}]
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": _metadata(wanted), "spec": spec}


def ingress_host(wanted: Wanted) -> str:
    """``<service>-<app>-<digest>.<domain>``: one DNS label that no other service has."""
    app = names.label_value(wanted.request.labels.get("instance_name", "")).lower().replace(".", "-").replace("_", "-")
    stem, _, digest = wanted.key.object.rpartition("-")
    label = f"{stem[:26]}-{app[:25]}".strip("-") + f"-{digest}"
    return f"{label}.{wanted.settings.public_host}"


def deployment(wanted: Wanted) -> Object:
    """The pods."""
    request, settings, key = wanted.request, wanted.settings, wanted.key
    spec = request.spec
    annotations = {
        names.OPERATION: request.id,
        names.CONTENT: wanted.content,
        names.SPACE: request.space,
        names.LABELS: json.dumps(dict(request.labels), sort_keys=True),
    }
    if spec.hooks.thaw is not None:
        annotations[names.THAW] = msgspec.json.encode(spec.hooks.thaw).decode()
    pod = {**_pod(wanted, _container(wanted, values=key.object)), "affinity": _away_from_holds(key)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(wanted, annotations),
        "spec": {
            "replicas": wanted.replicas,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": math.ceil(start_seconds(spec) + settings.rollout_seconds),
            # Two contents of one service never run beside each other: both would write the same data.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {names.OBJECT: key.object}},
            "template": {
                "metadata": {"labels": _labels(wanted), "annotations": {names.CONTENT: wanted.content}},
                "spec": pod,
            },
        },
    }


def hold(
    key: ServiceKey, *, owner: Owner, settings: KubernetesSettings, node: str, deadline_seconds: float, pause: str
) -> Object:
    """The Job whose pod, while it is there, keeps the pods of the service from being scheduled.

    The cluster counts in whole seconds, from a start that it rounds down: it ends it up to two seconds late, never
    early. It is put on a node by name: the scheduler would keep it away
    from the pods that are to stay away from it.
    """
    labels = {**owner.labels(), names.INSTANCE: key.instance, names.SERVICE: key.service}
    pod: Object = {
        "nodeName": node,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65535,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "hold",
                "image": settings.hold_image,
                "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"cpu": "10m", "memory": "16Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    }
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": hold_name(key), "labels": labels, "annotations": {names.PAUSE: pause}},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": math.ceil(deadline_seconds) + _TRUNCATED_SECONDS,
            "ttlSecondsAfterFinished": 600,
            "template": {"metadata": {"labels": {**labels, names.HOLD: key.object}}, "spec": pod},
        },
    }


def hold_name(key: ServiceKey) -> str:
    """The name of the Job that holds a service."""
    return f"{key.object}-hold"


def task(
    wanted: Wanted, command: Sequence[str], *, phase: str, deadline_seconds: float
) -> tuple[Object, Object, Object]:
    """Secret, ConfigMap and Job that run a command once, where the service will run."""
    key, name = wanted.key, task_name(wanted.key)
    labels = {**wanted.owner.labels(), names.INSTANCE: key.instance, names.SERVICE: key.service, names.TASK: key.object}
    metadata = {"name": name, "labels": labels}
    container = {**_container(wanted, values=name), "command": list(command)}
    container["env"] = [*container["env"], {"name": "CALQUE_HOOK", "value": phase}]
    pod = {**_pod(wanted, container), "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": math.ceil(deadline_seconds) + _TRUNCATED_SECONDS,
            "ttlSecondsAfterFinished": 600,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    return {**secret(wanted), "metadata": metadata}, {**config_map(wanted), "metadata": metadata}, job


def task_name(key: ServiceKey) -> str:
    """The name of what runs a command before the service is there."""
    return f"{key.object}-task"


def start_seconds(spec: ServiceSpec) -> float:
    """How long a service may take until it is healthy."""
    return (spec.health or HealthCheck()).start_period_seconds


def _pod(wanted: Wanted, container: Object) -> Object:
    settings = wanted.settings
    pod: Object = {
        # The pod of an app is no client of the cluster, and is told of no other service.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(wanted.request.spec.stop_grace_seconds),
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    return pod


def _container(wanted: Wanted, *, values: str) -> Object:
    """``values`` names the Secret and the ConfigMap of its variables."""
    request, spec = wanted.request, wanted.request.spec
    fixed = {"HOST": "0.0.0.0", "PORT": str(spec.port)} if spec.port is not None else {}  # noqa: S104 - its own network
    over_plain = {**fixed, **request.secret_environment}
    variables: list[Object] = [
        *_references("secretKeyRef", values, request.secret_environment, fixed),
        *_references("configMapKeyRef", values, request.environment, over_plain),
        *({"name": name, "value": value} for name, value in fixed.items()),
    ]
    made: Object = {
        "name": CONTAINER,
        "image": spec.artifact.image,
        "env": variables,
        "securityContext": {"allowPrivilegeEscalation": False},
    }
    if spec.artifact.command:
        made["command"] = list(spec.artifact.command)
    if spec.port is not None:
        made["ports"] = [{"name": "main", "containerPort": spec.port, "protocol": "TCP"}]
        made["readinessProbe"] = _probe(spec)
    return made


def _references(how: str, name: str, values: Mapping[str, Any], hidden: Mapping[str, Any]) -> list[Object]:
    return [
        {"name": variable, "valueFrom": {how: {"name": name, "key": _key(variable)}}}
        for variable in values
        if variable not in hidden
    ]


def _probe(spec: ServiceSpec) -> Object:
    check = spec.health or HealthCheck()
    how: Object = (
        {"httpGet": {"path": check.path, "port": spec.port, "scheme": "HTTP"}}
        if check.path
        else {"tcpSocket": {"port": spec.port}}
    )
    return {
        **how,
        "periodSeconds": max(1, round(check.interval_seconds)),
        "timeoutSeconds": max(1, math.ceil(check.timeout_seconds)),
        "failureThreshold": FAILURES_TO_UNREADY,
        "successThreshold": 1,
    }


def _away_from_holds(key: ServiceKey) -> Object:
    term = {"labelSelector": {"matchLabels": {names.HOLD: key.object}}, "topologyKey": _ONE_DOMAIN}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _metadata(wanted: Wanted, annotations: Mapping[str, str] | None = None) -> Object:
    made: Object = {"name": wanted.key.object, "labels": _labels(wanted)}
    if annotations:
        made["annotations"] = dict(annotations)
    return made


def _labels(wanted: Wanted) -> dict[str, str]:
    request = wanted.request
    return {
        **wanted.key.labels(wanted.owner),
        "app.kubernetes.io/name": names.label_value(request.service),
        "app.kubernetes.io/instance": names.label_value(request.labels.get("instance_name") or request.instance),
        "app.kubernetes.io/component": request.spec.type,
    }


def _key(variable: str) -> str:
    """A variable's key in a ConfigMap or Secret, which allow fewer characters than names of variables have."""
    if _KEY.fullmatch(variable) and variable not in (SALT_KEY, ".", ".."):
        return variable
    return f"variable.{hashlib.sha256(variable.encode()).hexdigest()[:32]}"
