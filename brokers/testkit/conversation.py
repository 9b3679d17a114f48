"""The kit's side of the conversation with the broker under test: nothing but the published contract.

What crosses the bus is kept, secrets masked, so that a failed check can show it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec

from brokers.testkit.checks import Unmet, holds
from bus.connection import Bus
from schemas.brokers import CONTRACTS, CancelRequest, Change, Outcome, Reply, Request, StatusRequest
from schemas.envelope import CONTENT_TYPE, Envelope, convert, decode, encode, timestamp, unwrap, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError, Problem
from schemas.signals import ProblemReply
from schemas.subjects import broker_request
from schemas.values import BrokerKind

R = TypeVar("R", bound=Reply)

SOURCE = "conformance"
POLL_SECONDS = 0.02
SHOWN_CHARACTERS = 600
_SECRET = re.compile(r'("(?:token|secret)"\s*:\s*\{\s*"value"\s*:\s*")[^"]*|("value"\s*:\s*")[^"]*')


class Answer(NamedTuple):
    """What came: the headers, the raw payload, and the envelope in it, if it is one."""

    headers: Mapping[str, str]
    payload: bytes
    envelope: Envelope | None

    @property
    def problem(self) -> Problem | None:
        """The problem, when this is one."""
        if self.envelope is None or self.envelope.type != ProblemReply.TYPE:
            return None
        return unwrap(self.envelope, ProblemReply).problem


class Conversation:
    """With one broker, during one check. ``patience_seconds`` bounds every wait for an answer or an end."""

    def __init__(self, bus: Bus, *, site: str, kind: BrokerKind, broker: str, patience_seconds: float) -> None:
        self.bus = bus
        self.site = site
        self.kind = kind
        self.broker = broker
        self.patience_seconds = patience_seconds
        self.sent = ""
        self.came = ""

    def subject(self, operation: str) -> str:
        """Where a request goes."""
        return broker_request(site=self.site, kind=self.kind, broker=self.broker, operation=operation)

    async def send(self, operation: str, payload: bytes) -> Answer:
        """Any bytes to an operation. Fails when nothing comes back in time."""
        self.sent = f"{operation}: {shown(payload)}"
        self.came = "nothing"
        try:
            message = await self.bus.call(
                self.subject(operation),
                payload,
                timeout_seconds=self.patience_seconds,
                headers={"content-type": CONTENT_TYPE},
            )
        except CalqueError as error:
            raise Unmet(f"no answer within {self.patience_seconds:g} s: {error}", sent=self.sent) from None
        self.came = shown(message.payload)
        try:
            envelope: Envelope | None = decode(message.payload)
        except CalqueError:
            envelope = None
        return Answer(message.headers or {}, message.payload, envelope)

    async def exchange(self, operation: str, request: Request) -> Answer:
        """A proper request, and whatever comes."""
        return await self.send(operation, encode(envelope_of(request)))

    async def ask(self, operation: str, request: Request, reply: type[R]) -> R:
        """The typed reply. A problem, or any other reply, fails the check."""
        answer = await self.exchange(operation, request)
        sent = self.sent
        if problem := answer.problem:
            raise Unmet(f"problem {problem.code}: {problem.sentence()}", sent=sent)
        if answer.envelope is None:
            raise Unmet(f"no CloudEvents envelope: {shown(answer.payload)}", sent=sent)
        holds(answer.envelope.type == reply.TYPE, f"a {answer.envelope.type}, not a {reply.TYPE}", sent=sent)
        try:
            return unwrap(answer.envelope, reply)
        except CalqueError as error:
            raise Unmet(f"the reply is not a {reply.TYPE}: {error}", sent=sent) from None

    async def refuses(self, operation: str, request: Request, *codes: str, field: str | None = None) -> Problem:
        """The problem that a request is answered with, at once or - long operations - as its outcome. With
        ``codes``: one of these; with ``field``: naming it."""
        answer = await self.exchange(operation, request)
        sent, problem = self.sent, answer.problem
        if problem is None and answer.envelope is not None and answer.envelope.type == Outcome.TYPE:
            outcome = unwrap(answer.envelope, Outcome)
            if outcome.state == "running":
                outcome = await self.ended(outcome.id)
            problem = outcome.problem
        if problem is None:
            raise Unmet(f"no problem, but {shown(answer.payload)}", sent=sent)
        if codes:
            expected = " or ".join(codes)
            holds(problem.code in codes, f"problem {problem.code} ({problem.sentence()}), not {expected}", sent=sent)
        if field is not None:
            holds(
                field in (problem.field or "") or field in problem.message,
                f"the problem {problem.code} ({problem.sentence()}) does not name {field}",
                sent=sent,
            )
        return problem

    async def begin(self, operation: str, request: Change) -> Outcome:
        """What a long operation answers at once."""
        outcome = await self.ask(operation, request, Outcome)
        holds(outcome.id == request.id, f"an outcome of {outcome.id}, not of {request.id}", sent=self.sent)
        return outcome

    async def status(self, id: str) -> Outcome:
        """How the operation is."""
        return await self.ask("status", StatusRequest(id=id), Outcome)

    async def cancel(self, id: str) -> Outcome:
        """Cancel the operation."""
        return await self.ask("cancel", CancelRequest(id=id), Outcome)

    async def ended(self, id: str) -> Outcome:
        """The outcome of a long operation, once it is over."""
        deadline = asyncio.get_running_loop().time() + self.patience_seconds
        while (outcome := await self.status(id)).state == "running":
            holds(asyncio.get_running_loop().time() < deadline, f"{id} still runs after {self.patience_seconds:g} s")
            await asyncio.sleep(POLL_SECONDS)
        return outcome

    async def finish(self, operation: str, request: Change) -> Outcome:
        """Begin a long operation and wait for its outcome, whichever."""
        outcome = await self.begin(operation, request)
        return await self.ended(request.id) if outcome.state == "running" else outcome

    async def run(self, operation: str, request: Change, result: type[R]) -> R:
        """The result of a long operation that must succeed."""
        outcome = await self.finish(operation, request)
        return self.succeeded(operation, outcome, result)

    def succeeded(self, operation: str, outcome: Outcome, result: type[R]) -> R:
        """The result in an outcome that must be a success."""
        if outcome.state != "succeeded":
            cause = outcome.problem.sentence() if outcome.problem else "no problem is told"
            raise Unmet(f"{operation} {outcome.state}: {cause}")
        try:
            return convert(outcome.result, result)
        except CalqueError as error:
            raise Unmet(f"the result of {operation} is not a {result.TYPE}: {error}") from None

    def long(self, operation: str) -> bool:
        """Whether an operation of this kind is long."""
        return CONTRACTS[self.kind][operation].long


def envelope_of(request: Request, *, id: str | None = None) -> Envelope:
    """A request as it travels."""
    return wrap(request, id=id or new_id(), source=SOURCE, time=timestamp(datetime.now(UTC)))


def renewed(request: Any) -> Any:
    """The same change as another attempt: a new id."""
    return msgspec.structs.replace(request, id=new_id())


def shown(payload: bytes | str) -> str:
    """Bytes for a person: short, and without the values of secrets."""
    text = payload if isinstance(payload, str) else payload.decode(errors="backslashreplace")
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]}... ({len(text)} characters)"
    return _SECRET.sub(lambda found: f"{found[1] or found[2]}***", text)
