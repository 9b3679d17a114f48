"""What the Kubernetes broker is told beyond what every broker is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from brokers.sdk.settings import BrokerSettings
from schemas.names import check_name

Exposure = Literal["cluster", "node-port", "load-balancer", "ingress"]
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class KubernetesSettings(BrokerSettings):
    """``kubeconfig`` empty: the account of the pod that the broker runs in. Durations in seconds.

    A space is the namespace ``namespace_prefix`` + space. ``expose`` is how a ``public`` service is reached:
    ``cluster`` by its name inside the cluster only, ``node-port`` at ``public_host`` (the address of a node),
    ``load-balancer`` at the address that the cluster gives it, ``ingress`` below the domain ``public_host``.
    ``calls``: hooks go through the API server's ``proxy``, or ``direct`` to the pods, where the broker reaches them.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    namespace_prefix: str = "calque-"
    spaces: tuple[str, ...] = ("default",)
    create_namespaces: bool = False
    image_pull_secrets: tuple[str, ...] = ()
    service_account: str | None = None
    expose: Exposure = "cluster"
    public_host: str | None = None
    public_scheme: Literal["http", "https"] = "http"
    ingress_class: str | None = None
    calls: Literal["proxy", "direct"] = "proxy"
    hold_image: str = "registry.k8s.io/pause:3.10"
    rollout_seconds: float = Field(default=20.0, gt=0, le=3600)
    trouble_seconds: float = Field(default=10.0, gt=0, le=600)

    @field_validator("spaces")
    @classmethod
    def _spaces_are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name one space at least")
        for space in value:
            if problem := check_name(space, field="spaces"):
                raise ValueError(problem.message)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> KubernetesSettings:
        for space in self.spaces:
            if not _NAMESPACE.fullmatch(self.namespace(space)):
                raise ValueError(f"{self.namespace(space)!r} can't be a namespace: change namespace_prefix")
        if self.expose in ("node-port", "ingress") and not self.public_host:
            raise ValueError(f"expose: {self.expose} needs public_host")
        return self

    def namespace(self, space: str) -> str:
        """The namespace of a space."""
        return f"{self.namespace_prefix}{space}"
