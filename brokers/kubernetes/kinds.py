"""The kinds of objects that the broker works with, and where they lie at the API server."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of namespaced object."""

    kind: str
    group: str
    plural: str

    @property
    def api_version(self) -> str:
        return self.group.removeprefix("apis/").removeprefix("api/")

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Where it lies at the API server."""
        parts = (self.group, "namespaces", namespace, self.plural, name, subresource)
        return "/" + "/".join(part for part in parts if part)


POD = Kind("Pod", "api/v1", "pods")
SERVICE = Kind("Service", "api/v1", "services")
CONFIG_MAP = Kind("ConfigMap", "api/v1", "configmaps")
SECRET = Kind("Secret", "api/v1", "secrets")
EVENT = Kind("Event", "api/v1", "events")
DEPLOYMENT = Kind("Deployment", "apis/apps/v1", "deployments")
JOB = Kind("Job", "apis/batch/v1", "jobs")
INGRESS = Kind("Ingress", "apis/networking.k8s.io/v1", "ingresses")
