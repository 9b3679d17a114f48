"""Takes commands from the work queue: each has one effect and one answer, however often it comes.

What was decided is found by the command's id: a rejection and an operation of the hub in the hub's own stream, what
a site made of it in the projections. Anything else is decided (again): direct changes recognise their own events,
and what is passed on to a site keeps its id, so that the site recognises it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from bus.events import Conflict, NewEvent
from bus.work import Delivery
from hub.application import images, instances, operations, templates
from hub.application.aggregates import load
from hub.application.context import Context, contended
from hub.application.outcome import Forward, Outcome
from hub.domain.received import ID, Received, read, reply_subject
from hub.projections.views import answer_of
from schemas.commands import Answer
from schemas.envelope import Envelope, decode, timestamp, wrap
from schemas.events import CommandRejected
from schemas.problems import CalqueError, Problem, invalid, permanent
from schemas.subjects import HUB, SubjectError, parse_command, site_command

logger = logging.getLogger(__name__)

CATCH_UP_SECONDS = 2.0

Decide = Callable[[Context, Received], Awaitable[Outcome]]

DECISIONS: dict[str, Decide] = {
    "template.apply": templates.apply,
    "instance.deploy": instances.deploy,
    "instance.save": instances.save,
    "instance.stop": instances.stop,
    "instance.start": instances.start,
    "instance.delete": instances.delete,
    "image.run": images.run,
    "image.delete": images.delete,
    "operation.cancel": operations.cancel,
}


class CommandHandler:
    """Handles one command after the other, several at once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._deciding: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def handle(self, delivery: Delivery) -> None:
        """One delivery from ``JOBS``. Raises :class:`CalqueError`: temporary ones to have it delivered again,
        others for what is no command at all."""
        try:
            subject = parse_command(delivery.subject)
        except SubjectError as error:
            raise CalqueError(invalid("subject", str(error))) from None
        envelope = decode(delivery.payload)
        answer = await self._known(envelope.id)
        if answer is None:
            received = read(subject, envelope, now=self._context.clock())
            if isinstance(received, Problem):
                if not ID.fullmatch(envelope.id):
                    await self._tell(envelope, Answer(command=envelope.id, state="rejected", problem=received))
                    raise CalqueError(received)  # nothing can be recorded under such an id: it goes to the dead letters
                kind = f"{subject.aggregate}.{subject.verb}"
                answer = await self._reject(envelope.id, received, kind=kind, correlation=envelope.correlationid)
            else:
                answer = await self._settled(received)
        if answer is not None:
            await self._tell(envelope, answer)

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
        correlation = received.envelope.correlationid
        return await self._reject(received.id, problem, kind=received.kind, correlation=correlation)

    async def _decided_once(self, received: Received) -> Answer | None:
        """Deliveries of the same command wait for each other here; what another hub has done is found as known."""
        lock = self._deciding.setdefault(received.id, asyncio.Lock())
        waits = lock.locked()
        async with lock:
            if waits and (known := await self._known(received.id)):
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
            await self._forward(received, outcome)
            return None
        if isinstance(outcome, Problem):
            if known := await self._known(received.id):
                return known  # another hub was faster: what it did is what speaks against doing it again
            correlation = received.envelope.correlationid
            return await self._reject(received.id, outcome, kind=received.kind, correlation=correlation)
        return outcome

    async def _known(self, id: str) -> Answer | None:
        """The answer that this command was given before."""
        if not ID.fullmatch(id):
            return None
        if rejected := await self._rejection(id):
            return rejected
        operation = await load(self._context.events, "operation", id)
        if operation.recorded:
            return Answer(command=id, state="accepted", operation=id)
        answer = answer_of(self._context.state, id)
        return answer if answer is not None and answer.state != "queued" else None

    async def _rejection(self, id: str) -> Answer | None:
        for event in (await load(self._context.events, "command", id)).events:
            if isinstance(event, CommandRejected):
                return Answer(command=id, state="rejected", problem=event.problem)
        return None

    async def _reject(self, id: str, problem: Problem, *, kind: str, correlation: str | None) -> Answer:
        event = NewEvent(
            aggregate="command",
            id=id,
            event=CommandRejected(problem=problem, kind=kind),
            causation=id,
            correlation=correlation,
        )
        try:
            await self._context.events.append([event], expected={("command", id): 0})
        except Conflict:
            if recorded := await self._rejection(id):
                return recorded
            raise contended(f"command {id}") from None
        return Answer(command=id, state="rejected", problem=problem)

    async def _forward(self, received: Received, forward: Forward) -> None:
        command, came = forward.command, received.envelope
        subject = site_command(
            site=forward.site,
            principal=received.principal,
            aggregate=command.AGGREGATE,
            id=forward.aggregate_id,
            verb=command.VERB,
        )
        envelope = wrap(
            command,
            id=received.id,
            source=HUB,
            time=timestamp(self._context.clock()),
            causationid=received.id,
            correlationid=came.correlationid,
            replyto=came.replyto,
            expirytime=came.expirytime,
            traceparent=came.traceparent,
        )
        await self._context.outbound.command(subject, envelope)

    async def _tell(self, envelope: Envelope, answer: Answer) -> None:
        to = reply_subject(envelope)
        if to is not None:
            await self._context.outbound.answer(to, answer)
