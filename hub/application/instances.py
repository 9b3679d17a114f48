"""Commands about app instances: checked as far as the hub can, then passed on to the instance's site."""

from __future__ import annotations

import uuid

from bus.events import Conflict
from hub.application import templates
from hub.application.aggregates import append, load
from hub.application.context import TRIES, Context, contended
from hub.application.outcome import Forward, Outcome
from hub.domain import catalog, claim
from hub.domain.capability import lacking
from hub.domain.catalog import CatalogState
from hub.domain.claim import ClaimState
from hub.domain.images import check_site_known
from hub.domain.received import Received, check_id
from hub.domain.template import together
from hub.projections.apps import AppRow
from schemas.commands import (
    DeployInstance,
    Planned,
    SaveInstance,
    SiteDeleteInstance,
    SiteDeployInstance,
    SiteSaveInstance,
    SiteStartInstance,
    SiteStopInstance,
    choices,
    chosen,
)
from schemas.configuration import inherited
from schemas.deployed import deployed
from schemas.fitting import Offer
from schemas.names import check_name, claim_token
from schemas.problems import Problem, conflict, not_found
from schemas.template_check import check_choices
from schemas.values import Choices, ImageInstance, Template

IMAGE = "image"
NOT_ENTERED: CatalogState | None = None


async def deploy(context: Context, received: Received) -> Outcome:
    """``instance.deploy``"""
    command = received.command
    assert isinstance(command, DeployInstance)
    if problem := check_new_instance(
        context, received, instance=received.aggregate_id, field="subject", name=command.name, site=command.site
    ):
        return problem
    template = await templates.find(context, command.template)
    if isinstance(template, Problem):
        return template
    if found := check_values(context, template, choices(command), site=command.site):
        return together(found)
    return Forward(
        command.site,
        received.aggregate_id,
        SiteDeployInstance(
            by=received.by,
            name=command.name,
            template=template,
            **chosen(command),
            expected_plan=command.expected_plan,
        ),
    )


def check_new_instance(
    context: Context, received: Received, *, instance: str, field: str, name: str, site: str
) -> Problem | None:
    """What speaks against a new instance, as far as the hub can see."""
    if problem := check_id(instance, field=field) or check_name(name, field="name"):
        return problem
    if problem := check_site_known(site, sites=context.site_states()):
        return problem
    apps = context.state.apps
    for row in apps.with_id(instance):
        if row.operation != received.id:
            return conflict(field, f"instance {instance} exists already", "make a new id for a new instance")
    for row in apps.find(name):
        if row.site == site and row.id != instance and not row.gone:
            return conflict("name", f"site {site} has an app {name!r} already", "choose another name")
    return None


def check_values(
    context: Context, template: Template, asked: Choices, *, site: str, captured: ImageInstance | None = None
) -> list[Problem]:
    """What of the choices does not fit the template, or what the site lacks; ``captured`` is what an image brings."""
    if found := check_choices(template, asked):
        return found
    if captured is None:
        return lacking(template, asked, _offer(context, site), made_by={})
    whole = inherited(captured.configuration, asked)
    made_by = {part.data_service: part.broker for part in captured.parts}
    formats = {part.data_service: part.copy_format for part in captured.parts}
    return lacking(template, whole, _offer(context, site), made_by=made_by, formats=formats)


def _offer(context: Context, site: str) -> Offer:
    sites = context.state.sites
    rows = list(sites.brokers_at(site))
    announced = sites.announced.get(site)
    # Secrets are changed at the site, and the news may be on its way: it is the site that knows.
    return Offer(
        site,
        tuple(row.registered for row in rows if not row.lost),
        version=announced.version if announced else "",
        lost=tuple(row.registered for row in rows if row.lost),
    )


async def save(context: Context, received: Received) -> Outcome:
    """``instance.save``: the image is entered and its name claimed, then the site saves it."""
    command = received.command
    assert isinstance(command, SaveInstance)
    row = instance_row(context, received.aggregate_id)
    if isinstance(row, Problem):
        return row
    if problem := catalog.check_save(command):
        return problem
    for _ in range(TRIES):
        # The name first: both are stored at once, so who sees the name taken by this very command sees the entry too.
        name = await load(context.events, "claim", claim_token(received.by.team, IMAGE, command.name))
        entry = await load(context.events, "catalog", command.image)
        if entry.caused_by(received.id):
            break
        change = catalog.enter(
            entry.fold(catalog.evolve, NOT_ENTERED),
            name.fold(claim.evolve, ClaimState()),
            command,
            site=row.site,
            instance=row.id,
            by=received.by,
        )
        if isinstance(change, Problem):
            return change
        try:
            await append(
                context.events,
                (entry, change.catalog),
                (name, change.claim),
                causation=received.id,
                operation=received.id,
                correlation=received.envelope.correlationid,
            )
        except Conflict:
            continue
        break
    else:
        raise contended(f"image name {command.name}")
    return forward_save(received, row)


def forward_save(received: Received, row: AppRow) -> Forward:
    """The save as the site is told it."""
    command = received.command
    assert isinstance(command, SaveInstance)
    assert row.deploying is not None
    copies = {name: copy_id(received.id, name) for name in deployed(row.deploying).data_services}
    told = SiteSaveInstance(
        by=received.by,
        image=command.image,
        copies=copies,
        repository=command.repository,
        masked=command.masked,
        masking=command.masking,
        bytes_per_second=command.bytes_per_second,
        expected_plan=command.expected_plan,
    )
    return Forward(row.site, row.id, told)


def copy_id(command: str, data_service: str) -> str:
    """The id of the copy that a save makes of a data service: the same however often the save is sent."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"calque:copy:{command}:{data_service}"))


async def stop(context: Context, received: Received) -> Outcome:
    """``instance.stop``"""
    row = instance_row(context, received.aggregate_id)
    if isinstance(row, Problem):
        return row
    return Forward(row.site, row.id, SiteStopInstance(by=received.by, expected_plan=_expected(received)))


async def start(context: Context, received: Received) -> Outcome:
    """``instance.start``"""
    row = instance_row(context, received.aggregate_id)
    if isinstance(row, Problem):
        return row
    return Forward(row.site, row.id, SiteStartInstance(by=received.by, expected_plan=_expected(received)))


async def delete(context: Context, received: Received) -> Outcome:
    """``instance.delete``"""
    row = instance_row(context, received.aggregate_id)
    if isinstance(row, Problem):
        return row
    return Forward(row.site, row.id, SiteDeleteInstance(by=received.by, expected_plan=_expected(received)))


def _expected(received: Received) -> str | None:
    return received.command.expected_plan if isinstance(received.command, Planned) else None


def instance_row(context: Context, id: str) -> AppRow | Problem:
    """The instance with this id, unless it is deleted or never was."""
    rows = context.state.apps.with_id(id)
    if not rows:
        return not_found("instance", f"there is no app {id}", "see `calque app list`")
    row = next((row for row in rows if not row.gone), rows[0])
    if row.state == "deleted":
        assert row.deploying is not None
        return not_found("instance", f"app {row.deploying.name} is deleted", "see `calque app list`")
    return row
