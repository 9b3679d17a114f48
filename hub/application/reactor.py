"""Reacts to events, from the one durable consumer on ``EVENTS`` that all hubs share.

Every event is handled by one hub, and again by another if that one dies before it has acknowledged:

- a site accepted or rejected a command of a client -> the answer to ``replyto``;
- a child operation of the hub ended, or an operation of the hub moved on -> the operation is driven;
- a save came to nothing -> the image's entry is withdrawn and its name released: at the word of the site or, when
  the entry itself arrives later than that (order holds per writer only), at the entry's;
- a site came upon an image -> it is entered into the catalog under a free name;
- a copy of a deleted image appeared at a site -> the site is told to forget it, until it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from bus.events import Conflict
from bus.records import record
from bus.work import Delivery
from hub.application.aggregates import append, load
from hub.application.context import TRIES, Context, contended
from hub.application.instances import IMAGE, NOT_ENTERED
from hub.application.sagas import Sagas
from hub.domain import catalog, claim
from hub.domain.children import operation_of
from hub.domain.claim import ClaimState
from hub.domain.images import DELETE_KIND, copies_of
from hub.domain.received import TEAM
from schemas.commands import Answer, SiteCommand, SiteForgetImage
from schemas.envelope import Envelope, timestamp, wrap
from schemas.events import (
    CancelRequested,
    CatalogEntered,
    CommandRejected,
    Event,
    ImageFailed,
    ImageFound,
    LocationAdded,
    OperationAccepted,
    OperationCancelled,
    OperationFailed,
    OperationSucceeded,
    StepStarted,
    UndoStarted,
)
from schemas.names import claim_token
from schemas.operations import effect_id
from schemas.problems import CalqueError, Problem, temporary
from schemas.subjects import HUB, events_of_kind, inbox_of, site_command

REACH_SECONDS = 10.0
HEARD: Mapping[type[Event], str | None] = {
    OperationAccepted: None,
    CancelRequested: None,
    OperationSucceeded: None,
    OperationFailed: None,
    OperationCancelled: None,
    StepStarted: HUB,
    UndoStarted: HUB,
    CommandRejected: None,
    CatalogEntered: HUB,
    ImageFailed: None,
    ImageFound: None,
    LocationAdded: None,
}
"""What is reacted to, of one writer or of all. Nothing else is delivered: most events are the steps of sites."""
HEARD_SUBJECTS = tuple(
    events_of_kind(aggregate=kind.AGGREGATE, event=kind.EVENT, writer=writer) for kind, writer in HEARD.items()
)


class Reactor:
    """Handles one event after the other, several at once; repeated ones have no further effect."""

    def __init__(self, context: Context, sagas: Sagas) -> None:
        self._context = context
        self._sagas = sagas

    async def handle(self, delivery: Delivery) -> None:
        """One delivery from ``EVENTS``. Raises :class:`CalqueError`."""
        recorded = record(sequence=delivery.sequence, subject=delivery.subject, payload=delivery.payload)
        event = recorded.event
        if recorded.refused is not None or not isinstance(event, Event) or type(event) not in HEARD:
            return
        # Whatever follows reads the tables: they must have seen this event.
        await self._context.projector.reached(delivery.sequence, timeout_seconds=REACH_SECONDS)
        if recorded.writer == HUB:
            if self._context.state.is_stopped(HUB, recorded.aggregate, recorded.id):
                return  # a newer hub has written to it, and carries it on
            if isinstance(event, StepStarted | UndoStarted):
                await self._sagas.drive(recorded.id)
            elif isinstance(event, CatalogEntered):
                await self._entered(recorded.id, event, command=recorded.envelope.causationid)
            elif isinstance(event, CommandRejected):
                await self._rejected(recorded.id, event)
            elif isinstance(event, OperationAccepted) and event.kind == DELETE_KIND:
                await self._deleted(event)
            return
        await self._answer(recorded.writer, recorded.id, event, recorded.envelope)
        await self._child(recorded.id, event)
        await self._saving(recorded.writer, recorded.id, event)
        if isinstance(event, ImageFound):
            await self._found(recorded.writer, recorded.id, event)
        if isinstance(event, LocationAdded):
            await self._forget(recorded.writer, event.image, arrival=recorded.envelope.id.rpartition("/")[2])

    async def _answer(self, site: str, id: str, event: Event, envelope: Envelope) -> None:
        to = inbox_of(envelope.replyto)
        if to is None:
            return
        match event:
            case OperationAccepted():
                answer = Answer(command=id, state="accepted", operation=id, site=site)
            case CommandRejected(problem=problem):
                answer = Answer(command=id, state="rejected", problem=problem, site=site)
            case CancelRequested() if envelope.causationid is not None:
                answer = Answer(command=envelope.causationid, state="accepted", operation=id, site=site)
            case _:
                return
        await self._context.outbound.answer(to, answer)

    async def _child(self, id: str, event: Event) -> None:
        operation = operation_of(id)
        ends = OperationSucceeded | OperationFailed | OperationCancelled | CommandRejected
        if operation is not None and isinstance(event, ends):
            await self._sagas.drive(operation)

    async def _saving(self, site: str, id: str, event: Event) -> None:
        problem: Problem | None = None
        match event:
            case ImageFailed(problem=problem):
                image: str | None = id
            case OperationFailed(problem=problem) | CommandRejected(problem=problem):
                image = self._context.state.images.by_command.get(id)
            case OperationCancelled():
                image = self._context.state.images.by_command.get(id)
            case _:
                return
        entry = self._context.state.images.entries.get(image) if image else None
        if image is None or entry is None or entry.state.entered.site != site:
            return
        content = self._context.state.images.content_of(image)
        if content is None or content.content is None:
            await self._withdraw(image, problem, causation=id)

    async def _entered(self, image: str, event: CatalogEntered, *, command: str | None) -> None:
        if command is None:
            return
        saving = self._context.state.child(event.site, command)
        if saving is not None and saving.ended and saving.state != "succeeded":
            await self._withdraw(image, saving.problem, causation=command)
        refused = self._context.state.child(HUB, command)
        if refused is not None and refused.state == "rejected":
            # The entry was stored late, by a hub that is gone: another one had rejected the command by then.
            await self._withdraw(image, refused.problem, causation=command)

    async def _found(self, site: str, image: str, event: ImageFound) -> None:
        """A site came upon an image. One that is in the catalog, or was, keeps the entry that it has."""
        for number in count(1):
            name = catalog.found_name(event.content, number)
            for _ in range(TRIES):
                claimed = await load(self._context.events, "claim", claim_token(TEAM, IMAGE, name))
                entry = await load(self._context.events, "catalog", image)
                change = catalog.enter_found(
                    entry.fold(catalog.evolve, NOT_ENTERED),
                    claimed.fold(claim.evolve, ClaimState()),
                    event,
                    image=image,
                    site=site,
                    name=name,
                )
                if change is None:
                    break
                try:
                    await append(self._context.events, (entry, change.catalog), (claimed, change.claim))
                except Conflict:
                    continue
                return
            else:
                raise contended(f"image name {name}")

    async def _rejected(self, command: str, event: CommandRejected) -> None:
        """A hub that died after it had entered an image left a save that another hub found reason to reject."""
        if (image := self._context.state.images.by_command.get(command)) is not None:
            await self._withdraw(image, event.problem, causation=command)

    async def _withdraw(self, image: str, problem: Problem | None, *, causation: str | None) -> None:
        for _ in range(TRIES):
            entry = await load(self._context.events, "catalog", image)
            state = entry.fold(catalog.evolve, NOT_ENTERED)
            if state is None:
                return
            token = claim_token(state.entered.by.team, IMAGE, state.entered.name)
            name = await load(self._context.events, "claim", token)
            taken = name.fold(claim.evolve, ClaimState())
            change = catalog.withdraw(state, taken, image=image, problem=problem)
            try:
                await append(self._context.events, (entry, change.catalog), (name, change.claim), causation=causation)
            except Conflict:
                continue
            return
        raise contended(f"image {image}")

    async def _deleted(self, deletion: OperationAccepted) -> None:
        """Copies that had arrived when the image was deleted, unseen by the hub that decided it."""
        images = self._context.state.images
        row = images.content_of(deletion.target)
        if row is None or row.content is None:
            return
        found = frozenset[str]().union(*map(images.holders, copies_of(row.content)))
        for site in sorted(found - {step.part for step in deletion.steps}):
            await self._forget(site, deletion.target, arrival=site)

    async def _forget(self, site: str, image: str, *, arrival: str) -> None:
        """Copies of a deleted image at a site that the deletion did not know of.

        The site may refuse for now, because it still works on the image. So this is asked for, under the id of this
        one arrival, until it is done: meanwhile the event is not acknowledged.
        """
        images = self._context.state.images
        entry, row = images.entries.get(image), images.content_of(image)
        if entry is None or entry.state.status != "deleted" or entry.deletion is None:
            return
        if row is None or row.content is None:
            return
        for attempt in count(1):
            id = effect_id(entry.deletion, f"late-{arrival}", attempt)
            child = self._context.state.child(site, id)
            if child is not None and child.state == "succeeded":
                return
            if child is None:
                command = SiteForgetImage(by=entry.state.entered.by, parent=entry.deletion, content=row.content)
                await self._command(site, image, command, id=id, operation=entry.deletion)
            if child is None or child.state == "running":
                raise CalqueError(temporary("forgetting", f"site {site} is to forget image {image} ({id})"))

    async def _command(self, site: str, target: str, command: SiteCommand, *, id: str, operation: str) -> None:
        subject = site_command(
            site=site, principal=command.by.principal, aggregate=command.AGGREGATE, id=target, verb=command.VERB
        )
        envelope = wrap(
            command,
            id=id,
            source=HUB,
            time=timestamp(self._context.clock()),
            operationid=operation,
            causationid=operation,
        )
        await self._context.outbound.command(subject, envelope)
