"""The state of a whole site: the fold of its own stream, kept in memory by the agent, its only writer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from schemas import events as ev
from schemas import saga
from schemas.base import Fact
from schemas.envelope import parse_timestamp, timestamp
from schemas.expiry import REMEMBERED
from schemas.names import location_token
from schemas.problems import Problem, permanent
from schemas.values import AcceptedImages, CopyState, CopySummary, ImageContent, ImageState, Level
from site_agent.domain import instance as instances
from site_agent.domain.instance import Instance
from site_agent.domain.repositories import NO_POLICY, Policy, targets


class Draft(NamedTuple):
    """An event that was decided and is not stored yet."""

    aggregate: str
    id: str
    event: ev.Event


class Copy(Fact, frozen=True, kw_only=True):
    """A copy that was made at this site."""

    id: str
    instance: str
    data_service: str
    image: str
    broker: str
    state: CopyState = "preparing"
    moment: str = ""
    level: Level | None = None
    repository: str = ""
    summary: CopySummary | None = None


class Image(Fact, frozen=True, kw_only=True):
    """An image that was made at this site, or found in one of its repositories."""

    id: str
    instance: str
    instance_name: str
    copies: dict[str, str] = {}
    state: ImageState = "saving"
    content: ImageContent | None = None
    problem: Problem | None = None


class SiteSecret(Fact, frozen=True, kw_only=True):
    """A secret that somebody gave this site: how often it was set, and whether it is there now."""

    version: int
    there: bool = True


BACK = ""
"""In place of a step: that an operation turned back, or undid one of its steps."""


@dataclass
class Site:
    """What the agent knows of its own site. Changed by :meth:`apply` alone; ``policy`` and ``images_accepted`` are what
    its operator set."""

    name: str
    policy: Policy = NO_POLICY
    images_accepted: AcceptedImages = "any"
    instances: dict[str, Instance] = field(default_factory=dict)
    operations: dict[str, saga.Operation] = field(default_factory=dict)
    copies: dict[str, Copy] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    locations: dict[str, ev.LocationAdded] = field(default_factory=dict)
    brokers: dict[str, ev.BrokerRegistered] = field(default_factory=dict)
    lost_brokers: dict[str, ev.BrokerRegistered] = field(default_factory=dict)
    secrets: dict[str, SiteSecret] = field(default_factory=dict)
    repository_order: dict[str, None] = field(default_factory=dict)
    signers: dict[str, None] = field(default_factory=dict)
    rejected: dict[str, Problem] = field(default_factory=dict)
    announced: ev.SiteAnnounced | None = None
    started_at: dict[tuple[str, str], str] = field(default_factory=dict)
    done_at: dict[tuple[str, str], str] = field(default_factory=dict)
    changed_at: dict[tuple[str, str], str] = field(default_factory=dict)
    accepted_at: dict[str, str] = field(default_factory=dict)
    handled: dict[str, str] = field(default_factory=dict)
    forgotten: int = 0
    cancelled_early: set[str] = field(default_factory=set)
    live: dict[str, None] = field(default_factory=dict)
    sequences: dict[tuple[str, str], int] = field(default_factory=dict)
    stopped: dict[tuple[str, str], str] = field(default_factory=dict)
    last_sequence: int = 0

    def apply(
        self, aggregate: str, id: str, event: ev.Event, *, time: str, sequence: int, causation: str | None = None
    ) -> None:
        """Take in one stored event of this site's stream; ``time`` and ``causation`` are its envelope's.

        An aggregate that was stopped stays as it was.
        """
        if causation is not None and aggregate in ("operation", "command", "secret"):
            self._handled(causation, time)
        self.passed(aggregate, id, sequence=sequence)
        if (aggregate, id) in self.stopped:
            return
        match aggregate:
            case "instance":
                instance = instances.evolve(self.instances.get(id), id, event)
                if instance is not None:
                    self.instances[id] = instance
            case "operation":
                self._operation(id, event, time)
            case "copy":
                self._copy(id, event)
            case "image":
                self._image(id, event)
            case "location":
                if isinstance(event, ev.LocationAdded):
                    self.locations[id] = event
                else:
                    self.locations.pop(id, None)
            case "broker":
                if isinstance(event, ev.BrokerRegistered):
                    self.brokers[id] = event
                    self.lost_brokers.pop(id, None)
                    if event.kind == "crb":
                        self.repository_order[event.name] = None
                    if event.signing_key:
                        self.signers[event.signing_key] = None
                elif id in self.brokers:
                    self.lost_brokers[id] = self.brokers.pop(id)
            case "secret":
                self._secret(id, event)
            case "signer":
                self.signers[id] = None
            case "command":
                if isinstance(event, ev.CommandRejected):
                    self.rejected[id] = event.problem
            case "site":
                if isinstance(event, ev.SiteAnnounced):
                    self.announced = event

    def _handled(self, command: str, time: str) -> None:
        """Remember a command, and forget those of more than eight days before it: of them the stream tells.

        By the times of events alone, so that every fold remembers the same.
        """
        self.handled.setdefault(command, time)
        horizon = _days_before(time)
        while (oldest := next(iter(self.handled))) != command and self.handled[oldest] < horizon:
            del self.handled[oldest]
            self.rejected.pop(oldest, None)
            self.sequences.pop(("command", oldest), None)
            self.forgotten += 1

    def passed(self, aggregate: str, id: str, *, sequence: int) -> None:
        """The stream holds an event of this aggregate: the next append expects it."""
        self.sequences[(aggregate, id)] = sequence
        self.last_sequence = max(self.last_sequence, sequence)

    def stop(self, aggregate: str, id: str, *, type: str, sequence: int) -> None:
        """An event that this version does not know: the state of its aggregate can't be told any more, and nothing is
        decided about it until a version runs that does."""
        self.passed(aggregate, id, sequence=sequence)
        self.stopped.setdefault((aggregate, id), type)

    def stopped_at(self, aggregates: Iterable[tuple[str, str]]) -> Problem | None:
        """Why nothing can be decided about ``aggregates``, if one of them is stopped."""
        if not self.stopped:
            return None
        found = next((key for key in aggregates if key in self.stopped), None)
        if found is None:
            return None
        return permanent(
            "unknown_event",
            f"{found[0]} {found[1]} of site {self.name} holds {self.stopped[found]}, which a newer agent has written",
            field=found[0],
            remedy=f"upgrade the agent of site {self.name}",
        )

    def stopped_for(self, operation: saga.Operation) -> Problem | None:
        """Why an operation can't go on, if it or a part that it works on is stopped."""
        request, target = operation.accepted.request, operation.accepted.target
        keys = [("operation", operation.id), ("instance", target), ("image", target)]
        keys += [("image", str(request.get("image")))]
        copies = request.get("copies")
        if isinstance(copies, dict):  # those that it makes or fetches; to verify some is no work on them
            keys += [("copy", copy) for copy in copies.values()]
        return self.stopped_at(keys)

    def _operation(self, id: str, event: ev.Event, time: str) -> None:
        operation = saga.evolve(self.operations.get(id), id, event)
        if operation is None:
            if isinstance(event, ev.CancelRequested):
                self.cancelled_early.add(id)
            return
        self.operations[id] = operation
        if operation.live:
            self.live[id] = None
        else:
            self.live.pop(id, None)
            for step in (*operation.steps, BACK):
                self.changed_at.pop((id, step), None)
            return
        match event:
            case (
                ev.StepStarted(step=step)
                | ev.StepFailed(step=step)
                | ev.StepUndone(step=step)
                | ev.StepUndoFailed(step=step)
            ):
                self.changed_at[(id, step)] = time
        match event:
            case ev.UndoStarted() | ev.StepUndone():
                self.changed_at[(id, BACK)] = time
        match event:
            case ev.OperationAccepted():
                self.accepted_at[id] = time
            case ev.StepStarted(step=step):
                self.started_at.setdefault((id, step), time)
            case ev.StepSucceeded(step=step):
                self.done_at[(id, step)] = time

    def _secret(self, name: str, event: ev.Event) -> None:
        match event:
            case ev.SecretSet(version=version):
                self.secrets[name] = SiteSecret(version=version)
            case ev.SecretRemoved() if name in self.secrets:
                self.secrets[name] = SiteSecret(version=self.secrets[name].version, there=False)

    def _copy(self, id: str, event: ev.Event) -> None:
        if isinstance(event, ev.CopyPreparing):
            self.copies[id] = Copy(
                id=id,
                instance=event.instance,
                data_service=event.data_service,
                image=event.image,
                broker=event.broker,
            )
            return
        copy = self.copies.get(id)
        if copy is None:
            return
        changes: dict[str, object] = {}
        match event:
            case ev.CopyPrepared(moment=moment, level=level):
                changes = {"state": "prepared", "moment": moment, "level": level}
            case ev.CopyCopying(repository=repository):
                changes = {"state": "copying", "repository": repository}
            case ev.CopyCommitted(repository=repository, summary=summary):
                changes = {"state": "committed", "repository": repository, "summary": summary}
            case ev.CopyFailed():
                changes = {"state": "failed"}
            case ev.CopyExpired():
                changes = {"state": "expired"}
        self.copies[id] = msgspec.structs.replace(copy, **changes)

    def _image(self, id: str, event: ev.Event) -> None:
        match event:
            case ev.ImageSaving(instance=instance, instance_name=name, copies=copies):
                self.images[id] = Image(id=id, instance=instance, instance_name=name, copies=copies)
            case ev.ImageFound(content=content):
                self.images[id] = _found(content)
            case ev.ImageSaved(content=content) if id in self.images:
                self.images[id] = msgspec.structs.replace(self.images[id], state="saved", content=content)
            case ev.ImageFailed(problem=problem) if id in self.images:
                self.images[id] = msgspec.structs.replace(self.images[id], state="failed", problem=problem)

    def named(self, name: str) -> Instance | None:
        """The instance that holds ``name``, if one does."""
        return next((one for one in self.instances.values() if one.name == name and one.holds_name), None)

    def busy(self, target: str) -> saga.Operation | None:
        """The operation that works on ``target`` now, if one does."""
        return next((one for one in self.live_operations() if one.accepted.target == target), None)

    def live_operations(self) -> Iterator[saga.Operation]:
        """Operations for which something remains to be done."""
        return (self.operations[id] for id in self.live)

    def has_copy(self, copy: str) -> bool:
        """Whether a repository of this site holds ``copy``."""
        return any(location.copy == copy for location in self.locations.values())

    def holders(self, copy: str) -> list[str]:
        """Names of the repositories of this site that hold ``copy``: those that answer first, in their order."""
        held = {one.repository.partition("/")[2] for one in self.locations.values() if one.copy == copy}
        there = [name for name in self.repositories() if name in held]
        return [*there, *sorted(held.difference(there))]

    def holds(self, copy: str, repository: str) -> bool:
        """Whether ``repository`` (its name) of this site holds ``copy``."""
        return self.location(copy, self.place(repository)) in self.locations

    def copy_before(self, instance: str, data_service: str, *, repository: str) -> str:
        """The unmasked copy of the data service in the newest saved image of the instance that ``repository`` of this
        site holds; empty if there is none."""
        for image in reversed(self.images.values()):
            copy = image.copies.get(data_service) if image.instance == instance else None
            if copy is None or image.content is None or not self.holds(copy, repository):
                continue
            parts = (part for one in image.content.instances for part in one.parts)
            if any(part.copy == copy and part.masked is None for part in parts):
                return copy
        return ""

    def place(self, repository: str) -> str:
        """A repository of this site as the world knows it: ``<site>/<name>``."""
        return f"{self.name}/{repository}"

    def location(self, copy: str, repository: str) -> str:
        """The id of the location aggregate; ``repository`` is ``<site>/<name>``."""
        return location_token(copy, repository)

    def repositories(self) -> list[str]:
        """Names of this site's copy repositories that answer, in the order of their first registration."""
        there = {one.name for one in self.brokers.values() if one.kind == "crb"}
        return [name for name in self.repository_order if name in there]

    def lost_repositories(self) -> set[str]:
        """Names of this site's copy repositories that do not answer."""
        return {one.name for one in self.lost_brokers.values() if one.kind == "crb"}

    def written_to(self, image: str) -> set[str]:
        """Names of the repositories that operations on record were to write ``image`` to."""
        writers = (one.accepted for one in self.operations.values() if one.accepted.kind in ("save", "transfer"))
        return set().union(*(targets(one.request) for one in writers if one.request.get("image") == image))


def _days_before(time: str) -> str:
    try:
        return timestamp(parse_timestamp(time) - REMEMBERED)
    except (ValueError, OverflowError):
        return ""  # no time: nothing is older


def _found(content: ImageContent) -> Image:
    return Image(
        id=content.image,
        instance=", ".join(one.instance for one in content.instances),
        instance_name=", ".join(one.instance_name for one in content.instances),
        copies={part.data_service: part.copy for one in content.instances for part in one.parts},
        state="saved",
        content=content,
    )
