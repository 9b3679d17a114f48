"""A fold of ``EVENTS`` of the tests' own: what every instance, image, copy and operation should be by the record.

It shares no code with the projections of the hub nor with the state of the agents, so that the checker can hold
both against it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from bus.events import Recorded
from schemas import events as ev

Key = tuple[str, str]
T = TypeVar("T")

STATES: dict[type[ev.Event], str] = {
    ev.InstanceDeploying: "deploying",
    ev.InstanceRunning: "running",
    ev.InstanceDegraded: "degraded",
    ev.InstanceStopping: "stopping",
    ev.InstanceStopped: "stopped",
    ev.InstanceStarting: "starting",
    ev.InstanceDeleting: "deleting",
    ev.InstanceDeleted: "deleted",
    ev.InstanceFailed: "failed",
}
COPY_STATES: dict[type[ev.Event], str] = {
    ev.CopyPreparing: "preparing",
    ev.CopyPrepared: "prepared",
    ev.CopyCopying: "copying",
    ev.CopyCommitted: "committed",
    ev.CopyFailed: "failed",
    ev.CopyExpired: "expired",
}


@dataclass(kw_only=True)
class Instance:
    name: str
    image: str | None
    state: str = "deploying"
    cleaned: bool = False
    url: str | None = None
    resources: dict[str, dict[str, str]] = field(default_factory=dict)
    bindings: dict[str, dict[str, str]] = field(default_factory=dict)
    services: dict[str, str | None] = field(default_factory=dict)
    attached: set[str] = field(default_factory=set)

    @property
    def gone(self) -> bool:
        return self.state == "deleted" or (self.state == "failed" and self.cleaned)


@dataclass(kw_only=True)
class Image:
    copies: dict[str, str]
    content: Any = None
    failed: bool = False


@dataclass(kw_only=True)
class Copy:
    state: str
    image: str
    history: list[str]


@dataclass(kw_only=True)
class Entry:
    name: str
    site: str
    state: str = "entered"


@dataclass(kw_only=True)
class Operation:
    accepted: ev.OperationAccepted
    steps: dict[str, str]
    ends: list[str] = field(default_factory=list)
    cleanup: str = "none"

    @property
    def state(self) -> str:
        if self.ends:
            return self.ends[0]
        return "running" if any(state != "pending" for state in self.steps.values()) else "accepted"


@dataclass
class Fold:
    """The state that the events lead to; keys are (writer, id)."""

    instances: dict[Key, Instance] = field(default_factory=dict)
    images: dict[Key, Image] = field(default_factory=dict)
    copies: dict[Key, Copy] = field(default_factory=dict)
    locations: dict[Key, tuple[str, str]] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    operations: dict[Key, Operation] = field(default_factory=dict)
    rejected: dict[Key, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, events: Iterable[Recorded]) -> Fold:
        """The fold of all ``events``."""
        fold = cls()
        for recorded in events:
            fold._apply(recorded)
        return fold

    def of_site(self, site: str) -> Fold:
        """What one site wrote; catalog, locations and complaints stay whole."""

        def own(found: dict[Key, T]) -> dict[Key, T]:
            return {key: one for key, one in found.items() if key[0] == site}

        return replace(
            self,
            instances=own(self.instances),
            images=own(self.images),
            copies=own(self.copies),
            operations=own(self.operations),
        )

    def held(self, copy: str) -> dict[str, str]:
        """Where a copy lies: site -> repository."""
        return {site: repository for (site, _), (one, repository) in self.locations.items() if one == copy}

    def _apply(self, recorded: Recorded) -> None:
        key, event = (recorded.writer, recorded.id), recorded.event
        if not isinstance(event, ev.Event):
            self.complaints.append(f"{recorded.envelope.type} of {key} is of no known type")
            return
        match recorded.aggregate:
            case "instance":
                self._instance(key, event)
            case "image":
                self._image(key, event)
            case "copy":
                self._copy(key, event)
            case "location":
                if isinstance(event, ev.LocationAdded):
                    self.locations[key] = (event.copy, event.repository)
                elif self.locations.pop(key, None) is None:
                    self.complaints.append(f"location {key} was removed and is not there")
            case "catalog":
                self._catalog(recorded.id, event)
            case "operation":
                self._operation(key, event)
            case "command":
                if isinstance(event, ev.CommandRejected):
                    self.rejected[key] = event.problem.sentence()

    def _instance(self, key: Key, event: ev.Event) -> None:
        if isinstance(event, ev.InstanceDeploying):
            if key in self.instances:
                self.complaints.append(f"instance {key} came to be twice")
            self.instances[key] = Instance(name=event.name, image=event.image)
            return
        one = self.instances[key]
        one.state = STATES.get(type(event), one.state)
        match event:
            case ev.InstanceRunning(url=url):
                one.url = url
            case ev.InstanceDeleted():
                one.url = None
            case ev.InstanceFailed(cleaned=cleaned):
                one.cleaned = cleaned
                one.url = None if cleaned else one.url
            case ev.DataServiceProvisioned(data_service=name, origin="attached"):
                one.attached.add(name)
            case ev.DataServiceDetached(data_service=name):
                one.attached.discard(name)
            case ev.DataServiceProvisioned(data_service=name, resource=resource):
                one.resources[name] = dict(resource)
            case ev.DataServiceRemoved(data_service=name):
                one.resources.pop(name, None)
                one.bindings.pop(name, None)
            case ev.DataServiceBound(data_service=name) if name in one.attached:
                pass  # the credentials are the user's
            case ev.DataServiceBound(data_service=name, binding=binding):
                one.bindings[name] = dict(binding.attributes)
            case ev.DataServiceUnbound(data_service=name):
                one.bindings.pop(name, None)
            case ev.ServiceDeployed(service=name, url=url):
                one.services[name] = url
            case ev.ServiceStopped(service=name) | ev.ServiceRemoved(service=name):
                one.services.pop(name, None)

    def _image(self, key: Key, event: ev.Event) -> None:
        match event:
            case ev.ImageSaving(copies=copies):
                if key in self.images:
                    self.complaints.append(f"image {key} was begun twice")
                self.images[key] = Image(copies=dict(copies))
            case ev.ImageFailed():
                self.images[key].failed = True
            case ev.ImageFound(content=content):
                copies = {part.data_service: part.copy for one in content.instances for part in one.parts}
                self.images.setdefault(key, Image(copies=copies, content=content))
            case ev.ImageSaved(content=content):
                self.images[key].content = content
                for instance in content.instances:
                    for part in instance.parts:
                        self._saved(key, part.copy)

    def _saved(self, image: Key, copy: str) -> None:
        """No image without all its copies committed and located, at the moment of its event already."""
        site = image[0]
        state = self.copies[site, copy].state if (site, copy) in self.copies else "unknown"
        if state != "committed":
            self.complaints.append(f"image {image} was saved while its copy {copy} was {state}")
        if site not in self.held(copy):
            self.complaints.append(f"image {image} was saved while its copy {copy} lay nowhere at {site}")

    def _copy(self, key: Key, event: ev.Event) -> None:
        state = COPY_STATES[type(event)]
        if isinstance(event, ev.CopyPreparing):
            self.copies[key] = Copy(state=state, image=event.image, history=[state])
            return
        copy = self.copies[key]
        copy.history.append(state)
        copy.state = state

    def _catalog(self, id: str, event: ev.Event) -> None:
        match event:
            case ev.CatalogEntered(name=name, site=site):
                self.entries[id] = Entry(name=name, site=site)
            case ev.CatalogEdited(name=name):
                self.entries[id].name = name or self.entries[id].name
            case ev.CatalogWithdrawn():
                self.entries[id].state = "withdrawn"
            case ev.CatalogDeleted():
                self.entries[id].state = "deleted"

    def _operation(self, key: Key, event: ev.Event) -> None:
        if isinstance(event, ev.OperationAccepted):
            if key in self.operations:
                self.complaints.append(f"operation {key} was accepted twice")
            self.operations[key] = Operation(accepted=event, steps={step.id: "pending" for step in event.steps})
            return
        one = self.operations[key]
        match event:
            case ev.StepStarted(step=step):
                one.steps[step] = "running"
            case ev.StepSucceeded(step=step):
                if one.steps[step] == "done":
                    self.complaints.append(f"{step} of {key} was done twice")
                one.steps[step] = "done"
            case ev.StepFailed(step=step, final=final):
                one.steps[step] = "failed" if final else "waiting"
            case ev.StepUndone(step=step):
                one.steps[step] = "undone"
            case ev.UndoStarted():
                one.cleanup = "pending"
            case ev.OperationSucceeded():
                one.ends.append("succeeded")
                one.cleanup = "none"
            case ev.OperationFailed(cleanup=cleanup):
                one.ends.append("failed")
                one.cleanup = cleanup
            case ev.OperationCancelled(cleanup=cleanup):
                one.ends.append("cancelled")
                one.cleanup = cleanup
            case ev.OperationCleanedUp():
                one.cleanup = "done"
