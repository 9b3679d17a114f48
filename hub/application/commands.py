"""Takes commands from the work queue: each has one effect and one answer, however often it comes.

What was decided is found by the command's id: a rejection, that it was passed on to a site, and an operation of the
hub in the hub's own stream; what a site made of it in the projections. Anything else is decided (again): direct
changes recognise their own events, and what is passed on to a site keeps its id, so that the site recognises it.

A command is rejected here or passed on, never both: one aggregate per command holds which. Without it, the same
command delivered again would be judged by a state that has moved on, while the first waits at its site.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from bus import tracing
from bus.events import Conflict, NewEvent
from bus.scope import scope
from bus.work import Delivery
from hub.application import images, instances, measure, operations, repositories, templates, webhooks
from hub.application.aggregates import load
from hub.application.context import Context, contended
from hub.application.outcome import Forward, Outcome
from hub.domain.received import ID, Received, foreign_inbox, read
from hub.projections.views import answer_of
from schemas.commands import Answer, CancelOperation, SiteCommand, Timed
from schemas.envelope import Envelope, decode, timestamp, wrap
from schemas.events import CommandAccepted, CommandForwarded, CommandRejected
from schemas.expiry import by_own_clock
from schemas.problems import CalqueError, Problem, invalid, permanent
from schemas.registry import MESSAGES
from schemas.room import Fill
from schemas.subjects import HUB, CommandSubject, SubjectError, inbox_of, parse_command, site_command

logger = logging.getLogger(__name__)

CATCH_UP_SECONDS = 2.0
CANCEL = "operation.cancel"

PASSED_ON = frozenset({("instance", "deploy"), ("instance", "stop"), ("instance", "start"), ("instance", "delete")})
"""Of these, nothing is stored but that they were rejected or passed on. The append of that finds what became of them
before, so it is not looked up first when they are delivered for the first time."""

Became = CommandRejected | CommandForwarded | CommandAccepted
"""What is recorded of a command itself: one of these, and never a second."""
Decide = Callable[[Context, Received], Awaitable[Outcome]]

DECISIONS: dict[str, Decide] = {
    "template.apply": templates.apply,
    "instance.deploy": instances.deploy,
    "instance.save": instances.save,
    "instance.stop": instances.stop,
    "instance.start": instances.start,
    "instance.delete": instances.delete,
    "image.run": images.run,
    "image.transfer": images.transfer,
    "image.edit": images.edit,
    "image.delete": images.delete,
    "repository.import": repositories.tend,
    "repository.verify": repositories.tend,
    "repository.collect": repositories.tend,
    "operation.cancel": operations.cancel,
    "webhook.add": webhooks.change,
    "webhook.remove": webhooks.change,
    "webhook.pause": webhooks.change,
    "webhook.resume": webhooks.change,
    "webhook.replay": webhooks.change,
    "webhook.rotate": webhooks.change,
}


class CommandHandler:
    """Handles one command after the other, several at once. ``full`` says which stream has no room for new things."""

    def __init__(self, context: Context, *, full: Callable[[], Fill | None] = lambda: None) -> None:
        self._context = context
        self._full = full
        self._deciding: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def handle(self, delivery: Delivery) -> None:
        """One delivery from ``JOBS``. Raises :class:`CalqueError`: temporary ones to have it delivered again,
        others for what is no command at all."""
        try:
            subject = parse_command(delivery.subject)
        except SubjectError as error:
            raise CalqueError(invalid("subject", str(error))) from None
        envelope = decode(delivery.payload)
        kind = f"{subject.aggregate}.{subject.verb}"
        known = kind if kind in DECISIONS else measure.OTHER
        about = {"calque.command.id": envelope.id, "calque.principal": subject.principal}
        with (
            scope(operation=envelope.id, correlation=envelope.correlationid or envelope.id),
            tracing.span(
                f"handle {known}", kind="consumer", parent=envelope.traceparent, root=envelope.id, attributes=about
            ),
        ):
            outcome = await self._handle(subject, envelope, stored_at=delivery.timestamp, again=delivery.delivered > 1)
        measure.command(self._context, kind=known, outcome=outcome, stored_at=delivery.timestamp)

    async def _handle(self, subject: CommandSubject, envelope: Envelope, *, stored_at: float, again: bool) -> str:
        """What the sender was told, or ``forwarded``. ``again``: delivered before; ``stored_at``: Unix seconds."""
        became, answer = None, None
        if again or (subject.aggregate, subject.verb) not in PASSED_ON:
            became = await self._became(envelope.id)
            answer = await self._answer(envelope.id, became, target=subject.id)
        if answer is None and isinstance(became, CommandForwarded):
            await self._send(by_own_clock(envelope, stored_at=stored_at), became)
            return "forwarded"
        if answer is None:
            received = read(subject, envelope, now=self._context.clock(), stored_at=stored_at)
            if isinstance(received, Problem):
                if not ID.fullmatch(envelope.id):
                    await self._tell(subject, envelope, Answer(command=envelope.id, state="rejected", problem=received))
                    raise CalqueError(received)  # nothing can be recorded under such an id: it goes to the dead letters
                kind = f"{subject.aggregate}.{subject.verb}"
                answer = await self._reject(envelope, received, kind=kind, target=subject.id)
            elif (fill := self._full()) is not None and received.kind != CANCEL:
                answer = await self._without_room(received, fill)
            else:
                came = by_own_clock(envelope, stored_at=stored_at)
                answer = await self._settled(received._replace(envelope=came))
        if answer is not None:
            await self._tell(subject, envelope, answer)
        return "forwarded" if answer is None else answer.state

    async def _without_room(self, received: Received, fill: Fill) -> Answer | None:
        """Nothing new begins when a stream is nearly full. At the very end a refusal has no room either, and waits."""
        if fill.last:
            raise CalqueError(fill.problem())
        return await self._reject(received.envelope, fill.problem(), kind=received.kind, target=received.aggregate_id)

    async def _settled(self, received: Received) -> Answer | None:
        """As decided; what can't be carried out for good is rejected, so that its sender does not wait in vain."""
        try:
            return await self._decided_once(received)
        except CalqueError as error:
            if error.problem.temporary:
                raise
            problem = error.problem
        except Exception:
            logger.exception("deciding %s %s failed", received.kind, received.id)
            problem = permanent("internal", f"the hub failed in {received.kind}", remedy="its log says why")
        return await self._reject(received.envelope, problem, kind=received.kind, target=received.aggregate_id)

    async def _decided_once(self, received: Received) -> Answer | None:
        """Deliveries of the same command wait for each other here; what another hub has done is found as known."""
        lock = self._deciding.setdefault(received.id, asyncio.Lock())
        waits = lock.locked()
        async with lock:
            if waits and (known := await self._known(received)):
                return known
            return await self._decided(received)

    async def _decided(self, received: Received) -> Answer | None:
        decide = DECISIONS[received.kind]
        outcome = await decide(self._context, received)
        if isinstance(outcome, Problem):
            # What refused it may be news that this hub has not read yet.
            before = self._context.state.position
            await self._context.projector.caught_up(timeout_seconds=CATCH_UP_SECONDS)
            if self._context.state.position > before:
                outcome = await decide(self._context, received)
        if isinstance(outcome, Forward):
            return await self._forward(received, outcome)
        if isinstance(outcome, Problem):
            if known := await self._known(received):
                return known  # another hub was faster: what it did is what speaks against doing it again
            return await self._reject(received.envelope, outcome, kind=received.kind, target=received.aggregate_id)
        return outcome

    async def _known(self, received: Received) -> Answer | None:
        """The answer that this command was given before."""
        return await self._answer(received.id, await self._became(received.id), target=received.aggregate_id)

    async def _became(self, id: str) -> Became | None:
        """What is recorded of the command itself."""
        if ID.fullmatch(id):
            for event in (await load(self._context.events, "command", id)).events:
                if isinstance(event, Became):
                    return event
        return None

    async def _answer(self, id: str, became: Became | None, *, target: str) -> Answer | None:
        """The answer to a command about ``target`` of which ``became`` is recorded; ``None`` when nothing is."""
        if isinstance(became, CommandRejected):
            return Answer(command=id, state="rejected", problem=became.problem)
        if not ID.fullmatch(id):
            return None
        forwarded = isinstance(became, CommandForwarded)
        if not forwarded and (await load(self._context.events, "operation", id)).recorded:
            return Answer(command=id, state="accepted", operation=id)
        answer = answer_of(self._context.state, id)
        if answer is not None and answer.state != "queued":
            return answer
        if not isinstance(became, CommandAccepted):
            return None
        # what this hub knows may be late: a cancellation names the operation by what it is about
        return Answer(command=id, state="accepted", operation=target if became.kind == CancelOperation.TYPE else None)

    async def _reject(self, envelope: Envelope, problem: Problem, *, kind: str, target: str) -> Answer | None:
        """The rejection, recorded; ``None`` when the command was passed on before, so that it can't be rejected."""
        if await self._record(envelope, CommandRejected(problem=problem, kind=kind)):
            return Answer(command=envelope.id, state="rejected", problem=problem)
        return await self._as_before(envelope, target=target)

    async def _forward(self, received: Received, forward: Forward) -> Answer | None:
        """Pass the command on; ``None``, or the answer when it was rejected before."""
        command = forward.command
        if isinstance(received.command, Timed):
            command = msgspec.structs.replace(command, deadline_seconds=received.command.deadline_seconds)
        data: dict[str, Any] = msgspec.to_builtins(command)  # as it is stored, and sent again if need be
        event = CommandForwarded(site=forward.site, target=forward.aggregate_id, type=command.TYPE, data=data)
        if not await self._record(received.envelope, event):
            return await self._as_before(received.envelope, target=forward.aggregate_id)
        await self._send(received.envelope, event, command)
        return None

    async def _as_before(self, envelope: Envelope, *, target: str) -> Answer | None:
        """What was recorded first is what counts, whoever recorded it."""
        became = await self._became(envelope.id)
        if became is None:
            raise contended(f"command {envelope.id}")
        if isinstance(became, CommandForwarded):
            await self._send(envelope, became)
        return await self._answer(envelope.id, became, target=target)

    async def _record(self, envelope: Envelope, event: CommandRejected | CommandForwarded) -> bool:
        """Whether this is what became of the command; not when something else did before."""
        new = NewEvent(
            aggregate="command",
            id=envelope.id,
            event=event,
            causation=envelope.id,
            correlation=envelope.correlationid,
        )
        try:
            await self._context.events.append([new], expected={("command", envelope.id): 0})
        except Conflict:
            return False
        return True

    async def _send(self, came: Envelope, forwarded: CommandForwarded, command: SiteCommand | None = None) -> None:
        """Send it to its site as it was ``forwarded``; that holds ``command``, for who has it at hand."""
        if command is None:
            kind = MESSAGES[forwarded.type]
            assert issubclass(kind, SiteCommand)
            command = msgspec.convert(forwarded.data, kind)
        subject = site_command(
            site=forwarded.site,
            principal=command.by.principal,
            aggregate=command.AGGREGATE,
            id=forwarded.target,
            verb=command.VERB,
        )
        envelope = wrap(
            command,
            id=came.id,
            source=HUB,
            time=timestamp(self._context.clock()),
            causationid=came.id,
            correlationid=came.correlationid,
            replyto=came.replyto,
            expirytime=came.expirytime,
            traceparent=tracing.current() or came.traceparent,
        )
        await self._context.outbound.command(subject, envelope)

    async def _tell(self, subject: CommandSubject, envelope: Envelope, answer: Answer) -> None:
        to = inbox_of(envelope.replyto)
        if to is not None and foreign_inbox(envelope, principal=subject.principal) is None:
            await self._context.outbound.answer(to, answer)
