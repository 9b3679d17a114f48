"""Replies to queries, put together from the tables."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping

from hub.domain.images import ImageFacts, copies_of
from hub.domain.template import TemplateState
from hub.projections import status
from hub.projections.apps import AppRow, DataServiceRow, ServiceRow
from hub.projections.images import EntryRow, state_with, template_in
from hub.projections.operations import OperationRow, Progress, StepRow
from hub.projections.state import Projections
from hub.projections.templates import TemplateRow
from schemas.commands import Answer
from schemas.deployed import variables
from schemas.events import InstanceDeploying
from schemas.operations import Step
from schemas.queries import (
    AppView,
    BrokerView,
    ConfiguredView,
    DataServiceView,
    ImagePartView,
    ImageView,
    OperationView,
    ServiceView,
    StepView,
    TemplateView,
)
from schemas.subjects import HUB
from schemas.values import ImagePart, SiteState


def template_view(row: TemplateRow) -> TemplateView:
    """A template version."""
    template = row.applied.template
    return TemplateView(
        name=template.name,
        version=template.version,
        digest=row.applied.digest,
        description=template.description,
        services=tuple(sorted(template.services)),
        data_services=tuple(sorted(template.data_services)),
        applied_by=row.applied.by.principal,
        applied_at=row.applied_at,
    )


def template_state(row: TemplateRow) -> TemplateState:
    """A template version as its aggregate knows it."""
    return TemplateState(template=row.applied.template, digest=row.applied.digest)


# --- apps


def app_views(state: Projections, rows: Iterable[AppRow], *, configuration: bool = False) -> tuple[AppView, ...]:
    """Apps, as ordered."""
    working = {row.target: row.id for row in state.operations.live_rows() if row.outcome is None}
    return tuple(
        app_view(state, row, operation=working.get(row.id), configuration=configuration)
        for row in rows
        if row.deploying is not None
    )


def app_view(state: Projections, row: AppRow, *, operation: str | None, configuration: bool = False) -> AppView:
    """One app; ``operation`` is the one that works on it now."""
    assert row.deploying is not None
    template = row.deploying.template
    return AppView(
        id=row.id,
        name=row.deploying.name,
        site=row.site,
        team=row.deploying.by.team,
        template=f"{template.name}@{template.version}",
        state=row.state,
        status=status.of_app(row),
        stale=state.sites.states.get(row.site, "joining") in ("stale", "offline", "retired"),
        url=row.url,
        image=row.deploying.image,
        message=row.message,
        services=tuple(_service_view(row, name, service) for name, service in sorted(row.services.items())),
        data_services=tuple(_data_service_view(name, data) for name, data in sorted(row.data_services.items())),
        operation=operation,
        environment=row.deploying.environment_name,
        without=row.deploying.without,
        configuration=tuple(_configured(row.deploying)) if configuration else (),
        created_at=row.created_at,
        changed_at=row.changed_at,
        adopted=row.deploying.adopted,
    )


def _configured(deploying: InstanceDeploying) -> Iterator[ConfiguredView]:
    for service, values in variables(deploying).items():
        for variable, each in values.items():
            yield ConfiguredView(
                service=service,
                variable=variable,
                layer=each.layer,
                field=each.field,
                value=each.value if isinstance(each.value, str) else "",
                secret=None if isinstance(each.value, str) else each.value.name,
            )


def _service_view(row: AppRow, name: str, service: ServiceRow) -> ServiceView:
    spec = row.deploying.template.services.get(name) if row.deploying else None
    return ServiceView(
        name=name,
        type=spec.type if spec else "private",
        state=service.state,
        status=status.of_service(service),
        healthy=service.healthy,
        url=service.url,
        broker=service.broker,
        message=service.message,
    )


def _data_service_view(name: str, data: DataServiceRow) -> DataServiceView:
    return DataServiceView(
        name=name,
        type=data.spec.type if data.spec else "other",
        state=data.state,
        broker=data.broker,
        plan=data.plan,
        resource=data.resource,
        binding=data.binding,
        secret_refs=data.secret_refs,
        copy=data.copy,
        origin=data.origin,
        healthy=data.healthy,
        message=data.message,
        method=data.method,
    )


# --- images


def image_views(state: Projections, ids: Iterable[str]) -> tuple[ImageView, ...]:
    """Images, as ordered."""
    return tuple(_image_view(state, id, state.images.entries[id]) for id in ids)


def image_facts(state: Projections, id: str) -> ImageFacts | None:
    """What deciding about an image needs to know."""
    entry, row = state.images.entries.get(id), state.images.content_of(id)
    if entry is None:
        return None
    content = row.content if row else None
    keep_until, locked_at = state.images.lock_of(copies_of(content) if content else ())
    return ImageFacts(
        id=id,
        name=entry.state.entered.name,
        state=state_with(entry, row),
        content=content,
        copies={copy: state.images.holders(copy) for copy in (copies_of(content) if content else ())},
        used_by=[*state.operations.using_image(id), *_restoring(state, id)],
        site=entry.state.entered.site,
        keep_until=keep_until,
        locked_at=locked_at,
    )


def _restoring(state: Projections, image: str) -> list[str]:
    """Live operations of sites that make an instance from the image."""
    found: list[str] = []
    for row in state.operations.live_rows():
        if row.outcome is not None:
            continue
        app = state.apps.rows.get((row.writer, row.target))
        if app is not None and app.deploying is not None and app.deploying.image == image and app.operation == row.id:
            found.append(row.id)
    return found


def _image_view(state: Projections, id: str, entry: EntryRow) -> ImageView:
    entered, site = entry.state.entered, entry.state.entered.site
    row = state.images.content_of(id)
    condition = state_with(entry, row)
    content = row.content if row else None
    saving = row.saving if row else None
    first = content.instances[0] if content and content.instances else None
    if content:
        sources: dict[str, ImagePart | None] = {part.copy: part for each in content.instances for part in each.parts}
        names = {part.copy: part.data_service for each in content.instances for part in each.parts}
    else:
        names = {copy: data_service for data_service, copy in sorted(saving.copies.items())} if saving else {}
        sources = dict.fromkeys(names)
    parts = tuple(_part_view(state, site, copy, names[copy], part) for copy, part in sources.items())
    sites = state.images.sites_with(sources, else_at=site)
    problem = entry.problem or (row.problem if row else None)
    return ImageView(
        id=id,
        name=entered.name,
        state=condition,
        site=site,
        origin=entered.origin,
        found_in=row.found.repository if row and row.found else "",
        signer=row.found.signer if row and row.found else "",
        instance=entered.instance,
        instance_name=first.instance_name if first else saving.instance_name if saving else "",
        template=template_in(row),
        tags=entered.tags,
        comment=entered.comment,
        level=content.level if content else None,
        writers_wait_seconds=content.writers_wait_seconds if content else None,
        parts=parts,
        parent=content.parent if content else None,
        environment=first.configuration.environment_name if first else None,
        without=first.configuration.without if first else (),
        size=sum(part.size for part in parts),
        stored=sum(part.stored for part in parts),
        sites=tuple(sorted(sites)) if content and condition == "saved" else (),
        created_at=entry.created_at,
        keep_until=state.images.lock_of(sources)[0],
        message=problem.sentence() if problem else "",
        masked=bool(content and parts and content.masked),
    )


def _part_view(state: Projections, site: str, copy: str, data_service: str, part: ImagePart | None) -> ImagePartView:
    row = state.images.copies.look((site, copy))
    summary = row.summary if row else None
    return ImagePartView(
        data_service=data_service,
        copy=copy,
        state=row.state if row else ("committed" if part else "preparing"),
        type=part.type if part else None,
        level=part.level if part else row.level if row else None,
        size=part.size if part else summary.size if summary else 0,
        stored=part.stored if part else summary.stored if summary else 0,
        merkle_root=part.merkle_root if part else summary.merkle_root if summary else "",
        locations=state.images.places(copy),
        origin=part.origin if part else "provisioned",
        masked=part.masked if part else None,
    )


# --- operations, commands


def operation_view(state: Projections, row: OperationRow) -> OperationView:
    """One operation."""
    now = state.operations.progress(row)
    accepted = now.accepted
    plan = {step.id: step for step in accepted.steps}
    return OperationView(
        id=row.id,
        kind=accepted.kind,
        site=row.writer,
        state=row.state,
        name=accepted.name,
        target=accepted.target,
        principal=accepted.by.principal,
        steps=tuple(_step_view(plan[id], step) for id, step in now.steps.items()),
        problem=now.problem,
        cleanup=row.cleanup,
        undoing=now.phase == "undoing",
        parent=accepted.parent,
        children=tuple(sorted(id for _, id in state.operations.children.get(row.id, ()))),
        result=_result(now),
        created_at=row.created_at,
        ended_at=row.ended_at,
        deadline_seconds=accepted.deadline_seconds,
    )


def _result(now: Progress) -> dict[str, object]:
    """The result of an operation: its own or, when it names none, those of its steps."""
    return now.result or {id: step.result for id, step in now.steps.items() if step.status == "done" and step.result}


def _step_view(step: Step, now: StepRow) -> StepView:
    return StepView(
        step=step,
        state=now.status,
        attempt=now.attempt,
        problem=now.problem,
        started_at=now.started,
        ended_at=now.ended,
    )


def answer_of(state: Projections, command: str) -> Answer | None:
    """How a command was answered; ``None`` while nothing is known of it."""
    for row in state.operations.find(command):
        return Answer(command=command, state="accepted", operation=command, site=site_of(row.writer))
    for known in state.operations.commands_with(command):
        if known.rejected is not None:
            return Answer(command=command, state="rejected", problem=known.rejected.problem, site=site_of(known.writer))
        return Answer(command=command, state="accepted", operation=known.cancels, site=site_of(known.writer))
    if any(row.command == command for row in state.templates.rows.values()):
        return Answer(command=command, state="accepted")
    if command in state.webhooks.commands:
        return Answer(command=command, state="accepted")
    if command in state.images.by_command:
        return Answer(command=command, state="queued")
    return None


def site_of(writer: str) -> str | None:
    """The site in an answer: none for the hub's own."""
    return None if writer == HUB else writer


# --- sites


def broker_views(state: Projections, *, site: str | None = None) -> tuple[BrokerView, ...]:
    """Brokers by site, kind and name."""
    return tuple(
        BrokerView(
            site=where,
            kind=row.registered.kind,
            name=row.registered.name,
            state="lost" if row.lost else "registered",
            version=row.registered.version,
            types=row.registered.types,
            plans=row.registered.plans,
            engine=row.registered.engine,
            engine_version=row.registered.engine_version,
            can_attach=row.registered.can_attach,
            limits=row.registered.limits,
        )
        for (where, _), row in sorted(state.sites.brokers.items(), key=lambda item: item[0])
        if site in (None, where)
    )


def site_states(state: Projections, configured: dict[str, SiteState]) -> Mapping[str, SiteState]:
    """The state of every site that the hub is configured with (``joining`` until it was heard of) or heard of: as it is
    now, and whenever it is looked at. Every command asks for one of perhaps a thousand."""
    return ChainMap(state.sites.states, configured)
