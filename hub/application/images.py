"""Commands about images: to the site when all lies there, else an operation of the hub."""

from __future__ import annotations

from collections.abc import Iterable

from bus.events import Conflict
from hub.application.aggregates import accepting, append, load
from hub.application.context import TRIES, Context, contended
from hub.application.instances import IMAGE, NOT_ENTERED, check_new_instance, check_values
from hub.application.outcome import Forward, Outcome
from hub.domain import catalog, claim
from hub.domain import images as domain
from hub.domain.claim import ClaimState
from hub.domain.images import Across, Here
from hub.domain.received import Received
from hub.domain.template import together
from hub.projections.views import image_facts
from schemas import saga
from schemas.commands import (
    Answer,
    EditImage,
    RunImage,
    SiteRunImage,
    SiteTransferImage,
    TransferImage,
    choices,
    chosen,
)
from schemas.configuration import inherited, left_out
from schemas.events import OperationAccepted
from schemas.masked_images import not_accepted
from schemas.names import claim_token
from schemas.problems import Problem, conflict, not_found
from schemas.values import ImageContent, ImagePart


async def run(context: Context, received: Received) -> Outcome:
    """``image.run``"""
    way = find_way(context, received)
    if isinstance(way, Problem):
        return way
    command = received.command
    assert isinstance(command, RunImage)
    if isinstance(way, Here):
        return Forward(command.site, command.instance, command_to_run(received, way.content))
    return await _begin(
        context, received, domain.plan_run(command, image=received.aggregate_id, way=way, by=received.by)
    )


def command_to_run(received: Received, content: ImageContent) -> SiteRunImage:
    """What the site is told when all copies lie there."""
    command = received.command
    assert isinstance(command, RunImage)
    return SiteRunImage(
        by=received.by,
        name=command.name,
        content=content,
        **chosen(command),
        expected_plan=command.expected_plan,
    )


def find_way(context: Context, received: Received) -> Here | Across | Problem:
    """How an image gets to run where the command wants it, or why it can't, as far as the hub can see."""
    command = received.command
    assert isinstance(command, RunImage)
    id = received.aggregate_id
    way = domain.route_run(image_facts(context.state, id), id, site=command.site, sites=context.site_states())
    if isinstance(way, Problem):
        return way
    if problem := check_new_instance(
        context, received, instance=command.instance, field="instance", name=command.name, site=command.site
    ):
        return problem
    if found := lacking_to_run(context, command, way.content):
        return together(found)
    return _unmasked(context, command.site, _parts_to_run(command, way.content)) or way


def _parts_to_run(command: RunImage, content: ImageContent) -> list[ImagePart]:
    """The parts of an image that the choices do not leave out."""
    found: list[ImagePart] = []
    for one in content.instances:
        absent = left_out(one.configuration.template, inherited(one.configuration, choices(command)))
        found += [part for part in one.parts if part.data_service not in absent]
    return found


def _unmasked(context: Context, site: str, parts: Iterable[ImagePart]) -> Problem | None:
    """What the site would refuse for not being masked, as far as it has announced that."""
    announced = context.state.sites.announced.get(site)
    return not_accepted(site, announced.images, parts) if announced else None


def lacking_to_run(context: Context, command: RunImage, content: ImageContent) -> list[Problem]:
    """What of the choices does not fit the image, or what the site lacks to run it, as far as the hub can see."""
    return [
        problem
        for one in content.instances
        for problem in check_values(
            context, one.configuration.template, choices(command), site=command.site, captured=one
        )
    ]


async def transfer(context: Context, received: Received) -> Outcome:
    """``image.transfer``: at the site alone when its repositories hold all, else an operation of the hub."""
    command = received.command
    assert isinstance(command, TransferImage)
    id = received.aggregate_id
    way = domain.route_run(image_facts(context.state, id), id, site=command.site, sites=context.site_states())
    if isinstance(way, Problem):
        return way
    if not domain.copies_of(way.content):
        return conflict("image", "the image holds no data: there is nothing to copy", "run it at the site")
    if problem := _unmasked(context, command.site, (part for one in way.content.instances for part in one.parts)):
        return problem
    if isinstance(way, Here):
        content = way.content
        here = SiteTransferImage(
            by=received.by,
            content=content,
            source=command.site,
            repository=command.repository,
            bytes_per_second=command.bytes_per_second,
        )
        return Forward(command.site, id, here)
    return await _begin(context, received, domain.plan_transfer(command, image=id, way=way, by=received.by))


async def _begin(context: Context, received: Received, accepted: OperationAccepted) -> Outcome:
    operation = await load(context.events, "operation", received.id)
    if not operation.recorded:
        entry = (await load(context.events, "catalog", received.aggregate_id)).fold(catalog.evolve, NOT_ENTERED)
        if entry is None or entry.status != "entered":
            return not_found("image", f"image {received.aggregate_id} is deleted", "see `calque image list`")
        try:
            appended = await append(
                context.events,
                accepting(received),
                (operation, saga.accept(accepted)),
                causation=received.id,
                operation=received.id,
                correlation=received.envelope.correlationid,
            )
        except Conflict as error:
            raise contended(f"operation {received.id}") from error  # delivered again, it is found
        await context.projector.seen(appended)
    return Answer(command=received.id, state="accepted", operation=received.id)


async def edit(context: Context, received: Received) -> Outcome:
    """``image.edit``: the entry and, with a new name, the claims of both names at once."""
    command, id = received.command, received.aggregate_id
    assert isinstance(command, EditImage)
    for _ in range(TRIES):
        entry = await load(context.events, "catalog", id)
        if entry.caused_by(received.id):  # asked first: since then the image may have been deleted
            return Answer(command=received.id, state="accepted")
        if problem := catalog.check_edit(command) or domain.check_saved(image_facts(context.state, id), id):
            return problem
        state = entry.fold(catalog.evolve, NOT_ENTERED)
        if state is None or state.status != "entered":
            return not_found("image", f"image {id} is deleted", "see `calque image list`")
        team = state.entered.by.team
        before = await load(context.events, "claim", claim_token(team, IMAGE, state.entered.name))
        wanted = await load(context.events, "claim", claim_token(team, IMAGE, command.name or state.entered.name))
        change = catalog.edit(state, wanted.fold(claim.evolve, ClaimState()), command, image=id, by=received.by)
        if isinstance(change, Problem):
            return change
        try:
            appended = await append(
                context.events,
                accepting(received),
                (entry, change.catalog),
                (before, change.released),
                (wanted, change.claimed),
                causation=received.id,
                correlation=received.envelope.correlationid,
            )
        except Conflict:
            continue
        await context.projector.seen(appended)
        return Answer(command=received.id, state="accepted")
    raise contended(f"image {id}")


async def delete(context: Context, received: Received) -> Outcome:
    """``image.delete``: a tombstone and the name released at once, then the copies."""
    id = received.aggregate_id
    for _ in range(TRIES):
        image = image_facts(context.state, id)
        if problem := domain.check_deletable(image, id, now=context.clock()):
            return problem
        assert image is not None
        entry = await load(context.events, "catalog", id)
        state = entry.fold(catalog.evolve, NOT_ENTERED)
        if state is None or state.status != "entered":
            return domain.check_saved(image._replace(state="deleted"), id) or contended(f"image {id}").problem
        name = await load(context.events, "claim", claim_token(received.by.team, IMAGE, state.entered.name))
        operation = await load(context.events, "operation", received.id)
        change = catalog.delete(state, name.fold(claim.evolve, ClaimState()), image=id, by=received.by)
        try:
            appended = await append(
                context.events,
                accepting(received),
                (entry, change.catalog),
                (name, change.claim),
                (operation, saga.accept(domain.plan_delete(image, by=received.by))),
                causation=received.id,
                operation=received.id,
                correlation=received.envelope.correlationid,
            )
        except Conflict:
            continue
        await context.projector.seen(appended)
        return Answer(command=received.id, state="accepted", operation=received.id)
    raise contended(f"image {id}")
