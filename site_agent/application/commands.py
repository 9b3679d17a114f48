"""Commands to this site: from the hub's ``CMD`` stream, and local ones from the site's own ``JOBS``.

A command is acknowledged after its acceptance or rejection is stored. Again, a day later, it changes nothing and
gets the same answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from bus import tracing
from bus.connection import Bus
from bus.scope import scope
from bus.work import Delivery
from schemas import commands as cmd
from schemas import events as ev
from schemas import subjects
from schemas.envelope import Envelope, decode, timestamp, unwrap, wrap
from schemas.expiry import expired
from schemas.names import is_token
from schemas.problems import CalqueError, Problem, forbidden, invalid
from schemas.registry import MESSAGES
from schemas.subjects import inbox_of
from site_agent.adapters import measure
from site_agent.adapters.journal import Journal, Need
from site_agent.application.runner import Runner
from site_agent.domain.decide import reject
from site_agent.domain.planning import decide_as_planned
from site_agent.domain.site import Draft, Site

CANCEL = "cancel"

logger = logging.getLogger(__name__)


class CommandHandler:
    """Decides the commands of one site and starts what they begin."""

    def __init__(
        self,
        journal: Journal,
        runner: Runner,
        bus: Bus,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._journal = journal
        self._runner = runner
        self._bus = bus
        self._clock = clock

    async def handle(self, delivery: Delivery) -> None:
        """Store the decision about one command, then act on it. A message that is none raises :class:`CalqueError`."""
        subject = self._subject(delivery.subject)
        envelope = decode(delivery.payload)
        if not is_token(envelope.id):  # what is decided is kept under it
            raise CalqueError(invalid("id", f"{envelope.id[:100]!r} can't be an id", "use a UUIDv7 of your own making"))
        target = subject.id
        operation = target if subject.verb == "cancel" else envelope.id
        known = measure.known(envelope.type)
        about = {"calque.command.id": envelope.id, "calque.principal": subject.principal}
        with (
            scope(operation=operation, correlation=envelope.correlationid or envelope.id),
            tracing.span(
                f"handle {known}", kind="consumer", parent=envelope.traceparent, root=envelope.id, attributes=about
            ),
        ):
            earlier = await self._journal.recall(envelope.id)
            if earlier is None:
                await self._decide(envelope, subject, target, stored_at=delivery.timestamp)
            self._runner.drive(operation)
            await self._answer(envelope, operation=operation, earlier=earlier)

    def _subject(self, text: str) -> subjects.CommandSubject:
        try:
            subject = subjects.parse_command(text)
        except subjects.SubjectError as error:
            raise CalqueError(invalid("subject", str(error))) from None
        if subject.site != self._journal.site.name:
            raise CalqueError(forbidden(f"a command to site {subject.site} can't be handled here"))
        return subject

    async def _decide(
        self, envelope: Envelope, subject: subjects.CommandSubject, target: str, *, stored_at: float
    ) -> None:
        command = _command(envelope, subject)
        # An effect of an operation of the hub waits for a site that is away as long as its operation does.
        of_saga = envelope.expirytime is None and "/" in envelope.id

        def drafts(site: Site) -> list[Draft]:
            if envelope.id in site.handled:
                return []
            # by the clock of this very moment: it may have waited for its turn, or for the stream
            late = None if of_saga else expired(envelope, now=self._clock(), stored_at=stored_at)
            full = self._no_room(subject)
            stopped = site.stopped_at([(subject.aggregate, target)])
            decision = (
                command
                if isinstance(command, Problem)
                else late or full or stopped or decide_as_planned(site, command, id=envelope.id, target=target)
            )
            if not isinstance(decision, Problem):
                decision = site.stopped_at((draft.aggregate, draft.id) for draft in decision) or decision
            if isinstance(decision, Problem):
                logger.info("command %s (%s) rejected: %s", envelope.id, envelope.type, decision.sentence())
                return reject(envelope.id, envelope.type, decision)
            # an append that lands late must not accept what was rejected meanwhile, nor the other way round
            return [Draft("command", envelope.id, ev.CommandAccepted(kind=envelope.type)), *decision]

        operation = target if subject.verb == "cancel" else envelope.id
        try:
            await self._record(drafts, envelope, operation=operation, need=self._need(subject))
        except CalqueError as error:
            if error.problem.temporary:
                raise
            unstorable = reject(envelope.id, envelope.type, error.problem)
            await self._record(
                lambda site: [] if envelope.id in site.handled else unstorable, envelope, operation=operation
            )

    def _no_room(self, subject: subjects.CommandSubject) -> Problem | None:
        """Nothing new begins when the outbox is nearly full; what ends something still may."""
        room = self._journal.room
        return room.problem() if room.low and subject.verb != CANCEL else None

    def _need(self, subject: subjects.CommandSubject) -> Need:
        """A refusal is an event too: at the very end there is room for what goes on only, and commands wait."""
        if subject.verb == CANCEL:
            return "must"
        return "spare" if self._journal.room.last else "may"

    async def _record(
        self, decide: Callable[[Site], list[Draft]], envelope: Envelope, *, operation: str, need: Need = "may"
    ) -> None:
        await self._journal.record(
            decide, operation=operation, causation=envelope.id, replyto=envelope.replyto, need=need
        )

    async def _answer(self, envelope: Envelope, *, operation: str, earlier: ev.Event | None) -> None:
        """Tell a local sender at once. Senders at the hub get theirs from the hub, which reads the same events."""
        to = inbox_of(envelope.replyto)
        if to is None:
            return
        site = self._journal.site
        problem = earlier.problem if isinstance(earlier, ev.CommandRejected) else site.rejected.get(envelope.id)
        known = problem is None and operation in site.operations
        answer = cmd.Answer(
            command=envelope.id,
            state="rejected" if problem else "accepted",
            operation=operation if known else None,
            problem=problem,
            site=site.name,
        )
        now = timestamp(self._clock())
        reply = wrap(answer, id=f"{envelope.id}/answer", source=site.name, time=now, causationid=envelope.id)
        await self._bus.publish(to, reply)


def _command(envelope: Envelope, subject: subjects.CommandSubject) -> cmd.SiteCommand | Problem:
    """The command in ``envelope``, when it is one for this subject."""
    kind = MESSAGES.get(envelope.type)
    if kind is None or not issubclass(kind, cmd.SiteCommand):
        return invalid("type", f"{envelope.type!r} is no command to a site", "see the published schemas")
    if (subject.aggregate, subject.verb) != (kind.AGGREGATE, kind.VERB):
        return invalid(
            "type",
            f"{envelope.type!r} does not belong on a subject that ends in {subject.aggregate}.<id>.{subject.verb}",
            f"send it to …{kind.AGGREGATE}.<id>.{kind.VERB}",
        )
    try:
        return unwrap(envelope, kind)
    except CalqueError as error:
        return error.problem
