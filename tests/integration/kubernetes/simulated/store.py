"""Objects with their versions, and who hears of changes."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

Object = dict[str, Any]


class Change(NamedTuple):
    version: int
    event: str
    plural: str
    namespace: str
    object: Object


class Refused(Exception):
    """The API server's refusal."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Store:
    """All objects of the cluster, by plural, namespace and name. What comes out is a copy."""

    def __init__(self) -> None:
        self.version = 100
        self.oldest = 0
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._history: list[Change] = []
        self.listeners: set[asyncio.Queue[Change]] = set()

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        found = self._objects.get((plural, namespace, name))
        return copy.deepcopy(found) if found is not None else None

    def all(self, plural: str, namespace: str | None = None) -> list[Object]:
        return [
            copy.deepcopy(found)
            for (kind, place, _), found in sorted(self._objects.items())
            if kind == plural and namespace in (None, place)
        ]

    def add(self, plural: str, namespace: str, body: Object) -> Object:
        metadata = body.setdefault("metadata", {})
        name = metadata["name"]
        if (plural, namespace, name) in self._objects:
            raise Refused(409, "AlreadyExists", f'{plural} "{name}" already exists')
        metadata |= {"namespace": namespace, "uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": now()}
        return self._keep("ADDED", plural, namespace, copy.deepcopy(body))

    def change(self, plural: str, namespace: str, body: Object) -> Object:
        """Keep ``body``; the generation grows with its spec, and for Deployments with its annotations. Nothing happens
        when nothing changed."""
        before = self._objects[plural, namespace, body["metadata"]["name"]]
        body = copy.deepcopy(body)
        body["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
        if body == before:
            return copy.deepcopy(before)
        noted = plural == "deployments" and body["metadata"].get("annotations") != before["metadata"].get("annotations")
        if noted or body.get("spec") != before.get("spec"):
            body["metadata"]["generation"] = before["metadata"].get("generation", 1) + 1
        return self._keep("MODIFIED", plural, namespace, body)

    def drop(self, plural: str, namespace: str, name: str) -> None:
        found = self._objects.pop((plural, namespace, name), None)
        if found is not None:
            self.version += 1
            found["metadata"]["resourceVersion"] = str(self.version)
            self._tell(Change(self.version, "DELETED", plural, namespace, found))

    def since(self, version: int) -> Iterator[Change]:
        """What happened after ``version``; raises 410 when that is forgotten."""
        if version < self.oldest:
            raise Refused(410, "Expired", f"too old resource version: {version} ({self.oldest})")
        return (change for change in self._history if change.version > version)

    def forget_history(self) -> None:
        """Compaction: from versions before now nobody can watch."""
        self.version += 1
        self.oldest = self.version
        self._history.clear()

    def _keep(self, event: str, plural: str, namespace: str, body: Object) -> Object:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self._objects[plural, namespace, body["metadata"]["name"]] = body
        self._tell(Change(self.version, event, plural, namespace, copy.deepcopy(body)))
        return copy.deepcopy(body)

    def _tell(self, change: Change) -> None:
        self._history.append(change)
        for queue in self.listeners:
            queue.put_nowait(change)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def matches(found: Object, wanted: dict[str, str]) -> bool:
    """Whether an object carries all these labels."""
    labels = found["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, value in wanted.items())
