"""What our objects are called, how they are marked as ours, and the notes that we keep on them.

Everything that the broker remembers of a service stands in annotations of its Deployment: another broker process
with the same settings, and no file of the first one, goes on from there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from schemas.problems import CalqueError, invalid

MANAGED_BY = "app.kubernetes.io/managed-by"
US = "calque"

SITE = "calque/site"
BROKER = "calque/broker"
INSTANCE = "calque/instance"
SERVICE = "calque/service"
OBJECT = "calque/object"
"""The name of the Deployment: by it pods are selected."""
HOLD = "calque/hold"
"""On the pod that holds a service still: the name of the service's Deployment."""
TASK = "calque/task"
"""On what a hook needs that runs before its service: the name that the service's Deployment will have."""

CONTENT = "calque/content"
DEPLOYED = "calque/deployed"
"""The content that was healthy once."""
ANSWERS = "calque/answers"
FAILURE = "calque/failure"
OPERATION = "calque/operation"
LABELS = "calque/labels"
SPACE = "calque/space"
THAW = "calque/thaw"
PAUSE = "calque/pause"
QUIESCE = "calque/quiesce"

_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_NOT_NAME = re.compile(r"[^a-z0-9-]+")

Annotations = Mapping[str, str]


class Owner(NamedTuple):
    """Whose objects: one broker of one site."""

    site: str
    broker: str

    def labels(self) -> dict[str, str]:
        """Labels of everything that is this broker's."""
        return {MANAGED_BY: US, SITE: self.site, BROKER: self.broker}


class ServiceKey(NamedTuple):
    """One app service of one instance."""

    instance: str
    service: str

    def check(self) -> None:
        """Raises ``invalid`` for names that can't be labels."""
        for field, value in (("instance", self.instance), ("service", self.service)):
            if not _VALUE.fullmatch(value):
                raise CalqueError(invalid(field, f"{value!r} can't name a service here", "use letters, digits and '-'"))

    @property
    def object(self) -> str:
        """The name of its objects: a DNS label that nobody else makes by chance."""
        digest = hashlib.sha256(f"{self.instance}/{self.service}".encode()).hexdigest()[:10]
        stem = _NOT_NAME.sub("-", self.service.lower()).strip("-")[:40].rstrip("-")
        if not stem[:1].isalpha():
            stem = f"s-{stem}".rstrip("-")
        return f"{stem}-{digest}"

    def labels(self, owner: Owner) -> dict[str, str]:
        """Labels of all that belongs to the service."""
        return {**owner.labels(), INSTANCE: self.instance, SERVICE: self.service, OBJECT: self.object}


def selector(labels: Mapping[str, str]) -> str:
    """The label selector for all of ``labels``."""
    return ",".join(f"{name}={value}" for name, value in labels.items())


def label_value(text: str) -> str:
    """``text`` as far as a label may say it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:63].strip("-._")


def is_ours(found: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Whether the object carries all the labels that ours has."""
    labels = found["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, value in wanted.items())


def notes(found: Mapping[str, Any]) -> Annotations:
    """The annotations of an object."""
    annotations: Annotations = found["metadata"].get("annotations") or {}
    return annotations


def key_of(found: Mapping[str, Any]) -> ServiceKey:
    """The service that an object of ours belongs to."""
    labels = found["metadata"].get("labels") or {}
    return ServiceKey(labels.get(INSTANCE, ""), labels.get(SERVICE, ""))
