"""What the progress of an operation means for the instance, the copies and the image that it works on.

:func:`expand` turns the events of an operation into the whole batch that is appended atomically: the operation and
its parts never contradict each other, because no reader ever sees the one without the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from schemas import events as ev
from schemas import saga
from schemas.envelope import parse_timestamp
from schemas.masking import Masked
from schemas.problems import Problem, permanent
from schemas.values import (
    Binding,
    CopySummary,
    ImageContent,
    ImageInstance,
    ImagePart,
    InstanceConfiguration,
    Level,
)
from site_agent.domain import instance as instances
from site_agent.domain import plans
from site_agent.domain.instance import Instance
from site_agent.domain.repositories import placed_at
from site_agent.domain.site import Draft, Site

_LEVELS: tuple[Level, ...] = ("crash", "paused", "application")


def expand(site: Site, id: str, events: Iterable[ev.Event]) -> list[Draft]:
    """The events of operation ``id`` and, behind each, what it means for its parts."""
    drafts: list[Draft] = []
    operation = site.operations.get(id)
    target: Instance | None = None
    for event in events:
        drafts.append(Draft("operation", id, event))
        operation = saga.evolve(operation, id, event)
        if operation is None:
            continue
        if target is None:
            target = site.instances.get(operation.accepted.target)
        for draft in _consequences(site, operation, target, event):
            drafts.append(draft)
            if draft.aggregate == "instance":
                target = instances.evolve(target, draft.id, draft.event)
    return drafts


def _consequences(site: Site, operation: saga.Operation, instance: Instance | None, event: ev.Event) -> Iterator[Draft]:
    match operation.accepted.kind:
        case "deploy" | "run" | "start" | "stop" | "delete":
            yield from _about_instance(operation, instance, event)
        case "save":
            yield from _about_image(site, operation, event)
        case "transfer" | "forget":
            yield from _about_locations(site, operation, event)


# About the instance.


def _about_instance(operation: saga.Operation, instance: Instance | None, event: ev.Event) -> Iterator[Draft]:
    target = operation.accepted.target
    kind = operation.accepted.kind
    happened: ev.Event | None = None
    match event:
        case ev.OperationAccepted():
            happened = {
                "start": ev.InstanceStarting(),
                "stop": ev.InstanceStopping(),
                "delete": ev.InstanceDeleting(),
            }.get(kind)
        case ev.StepSucceeded(step=step, result=result) if instance is not None:
            state = operation.steps[step].step
            happened = _step_done(instance, state.action, state.part, result)
        case ev.StepUndone(step=step):
            state = operation.steps[step].step
            happened = _step_undone(state.undo, state.part)
        case ev.OperationSucceeded() | ev.OperationFailed() | ev.OperationCancelled() | ev.OperationCleanedUp():
            happened = _ended(operation, instance)
    if happened is not None:
        yield Draft("instance", target, happened)


def _step_done(instance: Instance, action: str, part: str, result: dict[str, Any]) -> ev.Event | None:
    match action:
        case plans.PROVISION | plans.RESTORE:
            service = instance.data_services[part]
            return ev.DataServiceProvisioned(
                data_service=part,
                spec=service.spec,
                broker=service.broker,
                plan=service.plan,
                resource=result.get("resource", {}),
                copy=service.copy,
                method=result.get("method", ""),
            )
        case plans.ATTACH:
            service = instance.data_services[part]
            return ev.DataServiceProvisioned(
                data_service=part,
                spec=service.spec,
                broker=service.broker,
                plan="",
                resource=result.get("resource", {}),
                origin="attached",
            )
        case plans.DETACH:
            return ev.DataServiceDetached(data_service=part)
        case plans.BIND:
            return ev.DataServiceBound(data_service=part, binding=msgspec.convert(result["binding"], Binding))
        case plans.UNBIND:
            return ev.DataServiceUnbound(data_service=part)
        case plans.DEPROVISION:
            return ev.DataServiceRemoved(data_service=part)
        case plans.DEPLOY:
            return ev.ServiceDeployed(
                service=part,
                broker=instance.services[part].broker,
                url=result.get("url"),
                host=result.get("host"),
                port=result.get("port"),
                artifact_digest=result.get("artifact_digest"),
            )
        case plans.STOP:
            return ev.ServiceStopped(service=part)
        case plans.REMOVE:
            return ev.ServiceRemoved(service=part)
    return None


def _step_undone(undo: str | None, part: str) -> ev.Event | None:
    match undo:
        case plans.DEPROVISION:
            return ev.DataServiceRemoved(data_service=part)
        case plans.DETACH:
            return ev.DataServiceDetached(data_service=part)
        case plans.UNBIND:
            return ev.DataServiceUnbound(data_service=part)
        case plans.REMOVE:
            return ev.ServiceRemoved(service=part)
        case plans.STOP:
            return ev.ServiceStopped(service=part)
    return None


def _ended(operation: saga.Operation, instance: Instance | None) -> ev.Event | None:
    kind = operation.accepted.kind
    if operation.outcome == "succeeded":
        match kind:
            case "stop":
                return ev.InstanceStopped()
            case "delete":
                return ev.InstanceDeleted()
        return ev.InstanceRunning(url=_entry_url(instance))
    problem = ending_problem(operation)
    clean = operation.cleanup in ("done", "none")
    match kind:
        case "start" if clean and not _any_runs(instance):  # a start of what was degraded leaves alone what ran before
            return ev.InstanceStopped()
        case "start" | "stop":
            return ev.InstanceDegraded(message=f"{kind} did not succeed: {problem.sentence()}")
        case "delete":
            return ev.InstanceFailed(problem=problem, cleaned=False)
    return ev.InstanceFailed(problem=problem, cleaned=clean)


def _any_runs(instance: Instance | None) -> bool:
    return instance is not None and any(one.state == "running" for one in instance.services.values())


def _entry_url(instance: Instance | None) -> str | None:
    entry = instance.services.get(instance.template.entrypoint or "") if instance is not None else None
    return entry.url if entry is not None else None


def ending_problem(operation: saga.Operation) -> Problem:
    """Why the operation did not succeed."""
    if operation.cancelled:
        return permanent("cancelled", f"operation {operation.id} ({operation.accepted.kind}) was cancelled")
    assert operation.problem is not None
    return operation.problem


# About copies and the image.


def _about_image(site: Site, operation: saga.Operation, event: ev.Event) -> Iterator[Draft]:
    request = operation.accepted.request
    copies: dict[str, str] = request["copies"]
    image: str = request["image"]
    match event:
        case ev.StepStarted(step=step, attempt=1) if operation.steps[step].step.action == plans.COPY:
            part = operation.steps[step].step.part
            yield Draft("copy", copies[part], ev.CopyCopying(repository=site.place(placed_at(request, part))))
        case ev.StepSucceeded(step=step, result=result):
            state = operation.steps[step].step
            if state.action == plans.PREPARE:
                moment, level = result["moment"], result["level"]
                yield Draft("copy", copies[state.part], ev.CopyPrepared(moment=moment, level=level))
            elif state.action == plans.COMMIT:
                copy = copies[state.part]
                repository = site.place(placed_at(request, state.part))
                summary = msgspec.convert(result["summary"], CopySummary)
                yield Draft("copy", copy, ev.CopyCommitted(repository=repository, summary=summary))
                yield Draft(
                    "location",
                    site.location(copy, repository),
                    ev.LocationAdded(
                        copy=copy,
                        repository=repository,
                        image=image,
                        stored=summary.stored,
                        keep_until=summary.keep_until,
                    ),
                )
        case ev.StepUndone(step=step) if operation.steps[step].step.undo == plans.DROP:
            part = operation.steps[step].step.part
            yield from _removed(site, copies[part], placed_at(request, part))
        case ev.OperationSucceeded():
            yield Draft("image", image, ev.ImageSaved(content=image_content(site, operation)))
        case ev.OperationFailed() | ev.OperationCancelled():
            problem = ending_problem(operation)
            yield Draft("image", image, ev.ImageFailed(problem=problem))
            for copy in copies.values():
                yield Draft("copy", copy, ev.CopyFailed(problem=problem))


def _about_locations(site: Site, operation: saga.Operation, event: ev.Event) -> Iterator[Draft]:
    request = operation.accepted.request
    match event:
        case ev.StepSucceeded(step=step, result=result):
            state = operation.steps[step].step
            if state.action == plans.FETCH:
                copy = request["copies"][state.part]
                repository = site.place(placed_at(request, state.part))
                summary = result["summary"]
                added = ev.LocationAdded(
                    copy=copy,
                    repository=repository,
                    image=request["image"],
                    stored=summary.get("stored", 0),
                    keep_until=summary.get("keep_until", ""),
                )
                yield Draft("location", site.location(copy, repository), added)
            elif state.action == plans.DROP:
                yield from _dropped(site, request["copies"][state.part])
        case ev.StepUndone(step=step) if operation.steps[step].step.undo == plans.DROP:
            part = operation.steps[step].step.part
            yield from _removed(site, request["copies"][part], placed_at(request, part))


def _removed(site: Site, copy: str, repository: str) -> Iterator[Draft]:
    """A copy is gone from one repository; others may hold it."""
    place = site.place(repository)
    key = site.location(copy, place)
    if key in site.locations:
        yield Draft("location", key, ev.LocationRemoved(copy=copy, repository=place))


def _dropped(site: Site, copy: str) -> Iterator[Draft]:
    """A copy is gone from all repositories of this site."""
    for repository in site.holders(copy):
        yield from _removed(site, copy, repository)
    if copy in site.copies:
        yield Draft("copy", copy, ev.CopyExpired())


def image_content(site: Site, operation: saga.Operation) -> ImageContent:
    """The image that a save makes, from the results of its steps; the same however often it is asked for."""
    request = operation.accepted.request
    instance = site.instances[operation.accepted.target]
    results = operation.results()
    parts = tuple(_part(instance, name, copy, results) for name, copy in request["copies"].items())
    held = [step for step in operation.steps.values() if step.step.action == plans.QUIESCE]
    level: Level = "paused" if any(step.result.get("how") == "pause" for step in held) else "application"
    if instance.adopted:
        level = "crash"  # its writers are not ours to hold: each part is of its own moment
    weakest = min([level, *(part.level for part in parts)], key=_LEVELS.index)
    return ImageContent(
        image=request["image"],
        site=site.name,
        level=weakest,
        instances=(
            ImageInstance(
                instance=instance.id,
                instance_name=instance.name,
                configuration=InstanceConfiguration(
                    template=instance.written,
                    environment=instance.environment,
                    environment_name=instance.environment_name,
                    without=instance.without,
                    artifacts=instance.artifacts,
                ),
                parts=parts,
            ),
        ),
        writers_wait_seconds=writers_wait(site, operation),
        parent=instance.image,
        saved_at=_fixed_at(site, operation),
    )


def _fixed_at(site: Site, operation: saga.Operation) -> str:
    """When the last copy was committed (or the last writer thawed): a moment that no later step changes."""
    settling = (plans.PREPARE, plans.THAW, plans.COMMIT)
    moments = (
        site.done_at.get((operation.id, name), "")
        for name, state in operation.steps.items()
        if state.step.action in settling
    )
    return max(moments, default="")


def writers_wait(site: Site, operation: saga.Operation) -> float:
    """Seconds from the first quiesce sent to the last thaw confirmed, as the stored events date them."""
    begun = [
        site.started_at[(operation.id, name)]
        for name, state in operation.steps.items()
        if state.step.action == plans.QUIESCE and (operation.id, name) in site.started_at
    ]
    ended = [
        site.done_at[(operation.id, name)]
        for name, state in operation.steps.items()
        if state.step.action == plans.THAW and (operation.id, name) in site.done_at
    ]
    if not begun or not ended:
        return 0.0
    return round((parse_timestamp(max(ended)) - parse_timestamp(min(begun))).total_seconds(), 6)


def _part(instance: Instance, name: str, copy: str, results: dict[str, dict[str, Any]]) -> ImagePart:
    service = instance.data_services[name]
    copied = results[plans.step_id(plans.COPY, name)]["copied"]
    masked = results[plans.step_id(plans.COPY, name)].get("masked")
    summary = msgspec.convert(results[plans.step_id(plans.COMMIT, name)]["summary"], CopySummary)
    return ImagePart(
        data_service=name,
        type=service.spec.type,
        broker=service.broker,
        plan=service.plan,
        copy=copy,
        copy_format=copied["copy_format"],
        level=results[plans.step_id(plans.PREPARE, name)]["level"],
        engine=copied.get("engine", ""),
        engine_version=copied.get("engine_version", ""),
        merkle_root=summary.merkle_root,
        size=summary.size,
        stored=summary.stored,
        data_class=service.spec.data_class,
        origin="attached" if service.attached else "provisioned",
        masked=msgspec.convert(masked, Masked) if masked is not None else None,
    )
