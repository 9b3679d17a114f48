"""Sends commands: stored before anything else, answered once, the same id however often it is sent.

A command is published with the acknowledgement of JetStream, under its own id as message id. The answer comes
to this client's inbox; when it stays out, the hub is asked for it, and the command is sent again.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from bus import tracing
from bus.connection import CONTENT_HEADERS, Bus, Message, Subscription
from bus.jetstream import JetStream
from hub.client.errors import client_error, unreachable
from schemas import subjects
from schemas.commands import Answer, Command
from schemas.envelope import MAX_EVENT_BYTES, decode, encode, timestamp, unwrap, wrap
from schemas.problems import CalqueError, temporary
from schemas.queries import CommandQuery
from schemas.sizes import oversized
from schemas.traces import span_id_of

EXPIRY = timedelta(days=1)
_ANSWER_SECONDS = 2.0
_QUEUED_SECONDS = 3.0
_ACK_SECONDS = 5.0
_PAUSE_SECONDS = 0.2


class Commands:
    """The sender of one client. ``principal`` is the token that its credential lets it use."""

    def __init__(self, bus: Bus, *, principal: str) -> None:
        self._bus = bus
        self._principal = principal
        self._jetstream = JetStream(bus)
        self._inbox = bus.new_inbox()
        self._subscription: Subscription | None = None
        self._waiting: dict[str, asyncio.Queue[Answer]] = {}

    async def open(self) -> None:
        """Listen for answers; before the first command."""
        self._subscription = await self._bus.subscribe(self._inbox, self._take)

    async def close(self) -> None:
        """Stop listening."""
        if self._subscription is not None:
            await self._subscription.stop()

    async def send(self, command: Command, *, aggregate_id: str, id: str, timeout_seconds: float) -> Answer:
        """The answer to ``command``: ``accepted``, or ``queued`` when the site keeps silent.

        Raises :class:`ClientError`: what it was rejected for, or :class:`HubUnreachableError` when no answer
        came in time. Sending it again with the same ``id`` is safe.
        """
        subject = subjects.hub_command(
            principal=self._principal, aggregate=command.AGGREGATE, id=aggregate_id, verb=command.VERB
        )
        about = {"calque.command.id": id, "calque.principal": self._principal}
        name = f"send {command.AGGREGATE}.{command.VERB}"
        with tracing.span(name, kind="producer", root=id, span_id=span_id_of("command", id), attributes=about):
            return await self._send(subject, command, aggregate_id=aggregate_id, id=id, timeout_seconds=timeout_seconds)

    async def _send(
        self, subject: str, command: Command, *, aggregate_id: str, id: str, timeout_seconds: float
    ) -> Answer:
        now = datetime.now(UTC)
        payload = encode(
            wrap(
                command,
                id=id,
                source=self._principal,
                time=timestamp(now),
                subject=aggregate_id,
                correlationid=id,
                replyto=self._inbox,
                expirytime=timestamp(now + EXPIRY),
                traceparent=tracing.current(),
            )
        )
        if len(payload) > MAX_EVENT_BYTES:
            what = f"the command {command.AGGREGATE}.{command.VERB}"
            problem = oversized(command, what=what, size=len(payload), limit=MAX_EVENT_BYTES)
            raise client_error(problem, correlation=id)
        answers = self._waiting.setdefault(id, asyncio.Queue())
        try:
            answer = await self._answered(subject, payload, id, answers, time.monotonic() + timeout_seconds)
        finally:
            self._waiting.pop(id, None)
        if answer.state == "rejected":
            problem = answer.problem or temporary("rejected", "the command was rejected without a reason")
            raise client_error(problem, correlation=id)
        return answer

    async def ask(self, id: str) -> Answer | None:
        """The answer to an earlier command; ``None`` when the hub does not know it. Raises :class:`ClientError`."""
        try:
            return await self._bus.ask(
                subjects.query("command"),
                CommandQuery(id=id),
                Answer,
                source=self._principal,
                timeout_seconds=_ANSWER_SECONDS,
            )
        except CalqueError as error:
            if error.problem.code == "not_found":
                return None
            raise client_error(error.problem, correlation=id) from None

    async def _answered(
        self, subject: str, payload: bytes, id: str, answers: asyncio.Queue[Answer], deadline: float
    ) -> Answer:
        stored = False
        cause = "it is not reached"
        while (left := deadline - time.monotonic()) > 0:
            try:
                await self._publish(subject, payload, id, min(left, _ACK_SECONDS))
                stored = True
                if answer := await self._next(answers, min(_ANSWER_SECONDS, left)):
                    return answer if answer.state != "queued" else await self._settled(answer, answers, deadline)
                if answer := await self.ask(id):
                    return answer
                cause = "it does not answer"
            except CalqueError as error:
                if not error.problem.temporary or error.problem.code == "stream_full":
                    raise client_error(error.problem, correlation=id) from None
                cause = error.problem.message
                await asyncio.sleep(min(_PAUSE_SECONDS, max(deadline - time.monotonic(), 0)))
        if stored:
            remedy = f"the command is stored and will be carried out: see 'calque operation wait {id}'"
            raise unreachable(f"no hub has answered yet ({cause})", correlation=id, remedy=remedy)
        raise unreachable(f"the hub can't be reached ({cause})", correlation=id)

    async def _settled(self, queued: Answer, answers: asyncio.Queue[Answer], deadline: float) -> Answer:
        """The site's own answer when it comes soon, else ``queued``."""
        until = min(time.monotonic() + _QUEUED_SECONDS, deadline)
        while (left := until - time.monotonic()) > 0:
            answer = await self._next(answers, left)
            if answer is not None and answer.state != "queued":
                return answer
        return queued

    async def _next(self, answers: asyncio.Queue[Answer], seconds: float) -> Answer | None:
        try:
            return await asyncio.wait_for(answers.get(), seconds)
        except TimeoutError:
            return None

    async def _publish(self, subject: str, payload: bytes, id: str, seconds: float) -> None:
        headers = {**CONTENT_HEADERS, "Nats-Msg-Id": id}
        await self._jetstream.publish(subject, payload, headers=headers, timeout_seconds=seconds)

    async def _take(self, message: Message) -> None:
        answer = unwrap(decode(message.payload), Answer)
        waiting = self._waiting.get(answer.command)
        if waiting is not None:
            waiting.put_nowait(answer)
