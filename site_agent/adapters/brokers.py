"""Broker proxies: typed requests to the brokers of this site, long operations followed to their end."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from bus import tracing
from bus.connection import Bus
from schemas import brokers as wire
from schemas.envelope import convert
from schemas.problems import CalqueError, permanent
from schemas.subjects import broker_request
from schemas.values import BrokerKind

R = TypeVar("R", bound=wire.Reply)

REQUEST_SECONDS = 10.0
PROMPT_SECONDS = 3.0
"""For what a broker answers from memory: one that died with such a request in hand is soon asked again."""
FIRST_POLL_SECONDS = 0.03
LAST_POLL_SECONDS = 0.5


class Brokers:
    """All brokers of one site, by kind and name.

    While a broker is away (restarting), requests are repeated with the same id until the caller's deadline ends
    them: they join or resume the work. Problems that the broker answers are raised as :class:`CalqueError`.
    """

    def __init__(self, bus: Bus, *, site: str) -> None:
        self._bus = bus
        self._site = site

    async def call(
        self,
        kind: BrokerKind,
        broker: str,
        operation: str,
        request: wire.Request,
        reply: type[R],
        *,
        on: str = "",
        timeout_seconds: float = REQUEST_SECONDS,
    ) -> R:
        """One request that is answered at once; repeated while the broker does not answer. ``on``: operation id."""
        about = {"rpc.service": f"{kind}-{broker}", "rpc.method": operation}
        with tracing.request_span(f"request {kind} {operation}", kind="client", attributes=about):
            return await self._repeated(kind, broker, operation, request, reply, on=on, timeout_seconds=timeout_seconds)

    async def _repeated(
        self,
        kind: BrokerKind,
        broker: str,
        operation: str,
        request: wire.Request,
        reply: type[R],
        *,
        on: str,
        timeout_seconds: float,
    ) -> R:
        pause = FIRST_POLL_SECONDS
        while True:
            try:
                return await self.once(kind, broker, operation, request, reply, on=on, timeout_seconds=timeout_seconds)
            except CalqueError as error:
                if not away(error):
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_POLL_SECONDS)

    async def once(
        self,
        kind: BrokerKind,
        broker: str,
        operation: str,
        request: wire.Request,
        reply: type[R],
        *,
        on: str = "",
        timeout_seconds: float = REQUEST_SECONDS,
    ) -> R:
        """One request, sent once."""
        subject = broker_request(site=self._site, kind=kind, broker=broker, operation=operation)
        return await self._bus.ask(
            subject, request, reply, source=self._site, timeout_seconds=timeout_seconds, operation=on or None
        )

    async def run(self, kind: BrokerKind, broker: str, operation: str, request: wire.Change, result: type[R]) -> R:
        """A long operation from its start to its end; its result, or its problem raised."""
        outcome = await self._prompt(kind, broker, operation, request, on=request.operation)
        pause = FIRST_POLL_SECONDS
        while outcome.state == "running":
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LAST_POLL_SECONDS)
            try:
                outcome = await self._status(kind, broker, request.id, on=request.operation)
            except CalqueError as error:
                if error.problem.code != "not_found":
                    raise
                # the broker restarted in the middle: the same request resumes the work
                outcome = await self._prompt(kind, broker, operation, request, on=request.operation)
        if outcome.state == "succeeded":
            return convert(outcome.result, result)
        if outcome.problem is not None:
            raise CalqueError(outcome.problem)
        raise CalqueError(permanent("cancelled", f"{operation} at broker {broker} was cancelled"))

    async def cancel(self, kind: BrokerKind, broker: str, id: str, *, on: str = "") -> None:
        """Stop a long operation; returns when the broker has cleaned up after it."""
        request = wire.CancelRequest(id=id)
        outcome = await self.call(kind, broker, "cancel", request, wire.Outcome, on=on)
        while outcome.state == "running":
            await asyncio.sleep(LAST_POLL_SECONDS)
            outcome = await self._status(kind, broker, id, on=on)

    async def _status(self, kind: BrokerKind, broker: str, id: str, *, on: str) -> wire.Outcome:
        with tracing.untraced():
            return await self._prompt(kind, broker, "status", wire.StatusRequest(id=id), on=on)

    async def _prompt(
        self, kind: BrokerKind, broker: str, operation: str, request: wire.Request, *, on: str
    ) -> wire.Outcome:
        return await self.call(kind, broker, operation, request, wire.Outcome, on=on, timeout_seconds=PROMPT_SECONDS)


def away(error: CalqueError) -> bool:
    """Whether it says that nobody answered for the broker."""
    return error.problem.code in ("unavailable", "timeout", "stopping")
