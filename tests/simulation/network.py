"""The bus as processes use it: requests are lost, come late or twice, answers are lost, links are cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import msgspec

from bus.errors import timed_out, unavailable
from bus.messages import Message
from schemas.envelope import Envelope
from schemas.problems import CalqueError, permanent
from tests.simulation.fate import Fate
from tests.simulation.loop import Process, SimLoop

T = TypeVar("T")

Handler = Callable[[str, Any], Awaitable[Any]]
NO_RESPONDERS_SECONDS = 0.002
LATE_SECONDS = 14.0
IN_ORDER_SECONDS = 1e-6
LATE = object()
"""What comes instead of an answer when the time for it is over."""


class Endpoint(NamedTuple):
    """Who answers on subjects that begin with a prefix: ``handler(operation, request)``."""

    process: Process
    handler: Handler


class Network:
    """Core NATS: at most once, in order from one process to another."""

    def __init__(self, loop: SimLoop, fate: Fate) -> None:
        self.endpoints: dict[str, list[Endpoint]] = {}
        self.info: dict[str, tuple[Process, bytes]] = {}
        self.inboxes: dict[str, Callable[[Envelope], None]] = {}
        self.beats: dict[str, tuple[Process, Callable[[str], Coroutine[Any, Any, None]]]] = {}
        self.cut: set[str] = set()
        self._loop = loop
        self._fate = fate
        self._arrivals: dict[tuple[str, str], float] = {}

    def serve(self, prefix: str, process: Process, handler: Handler) -> None:
        """``process`` answers what comes to ``<prefix>.<operation>``, or others that do so too: one of them."""
        others = [one for one in self.endpoints.get(prefix, ()) if not one.process.dead]
        self.endpoints[prefix] = [*others, Endpoint(process, handler)]

    def beat(self, site: str) -> None:
        """A site's heartbeat, to every hub."""
        if site in self.cut:
            return
        if self._fate.strikes(self._fate.profile.message):
            self._fate.trace.hit("beat lost", site)
            return
        for process, heard in self.beats.values():
            self._loop.at(self._fate.delay(), _hear, process, heard, site)

    async def request(
        self, process: Process, subject: str, data: Any, *, timeout_seconds: float, across: str | None = None
    ) -> Any:
        """The answer; raises as the bus does. ``across``: the site whose link to the hub the request takes."""
        process.check()
        prefix, _, operation = subject.rpartition(".")
        fate = self._fate
        answer: asyncio.Future[Any] = self._loop.create_future()
        delay = fate.delay()
        if process.cut_off:
            fate.trace.note(process.name, "reaches nobody:", subject)
        elif across is not None and across in self.cut:
            fate.trace.hit("link cut", operation)
        elif fate.request_strikes(operation):
            match fate.faults.randrange(4):
                case 0:
                    fate.trace.hit("request lost", operation)
                case 1:
                    fate.trace.hit("request late", operation)
                    self._send(process, prefix, operation, data, answer, fate.faults.uniform(0.5, LATE_SECONDS))
                case 2:
                    fate.trace.hit("request twice", operation)
                    self._send(process, prefix, operation, data, answer, delay)
                    self._send(process, prefix, operation, data, answer, delay + fate.delay())
                case 3:
                    fate.trace.hit("answer lost", operation)
                    self._send(process, prefix, operation, data, self._loop.create_future(), delay)
        else:
            self._send(process, prefix, operation, data, answer, delay)
        timer = self._loop.call_later(timeout_seconds, _set, answer, LATE)
        try:
            found = await answer
        finally:
            timer.cancel()
        process.check()
        if found is LATE:
            raise timed_out(subject, seconds=timeout_seconds)
        if isinstance(found, CalqueError):
            raise CalqueError(found.problem)
        if found is None:
            raise unavailable(subject, "no responders")
        return found

    def _send(
        self, process: Process, prefix: str, operation: str, data: Any, answer: asyncio.Future[Any], delay: float
    ) -> None:
        link = (process.name, prefix)
        when = max(self._loop.time() + delay, self._arrivals.get(link, 0.0) + IN_ORDER_SECONDS)
        self._arrivals[link] = when
        self._loop.at(when - self._loop.time(), self._arrive, prefix, operation, data, answer)

    def _arrive(self, prefix: str, operation: str, data: Any, answer: asyncio.Future[Any]) -> None:
        there = [one for one in self.endpoints.get(prefix, ()) if not one.process.dead]
        if not there:
            self._loop.at(NO_RESPONDERS_SECONDS, _set, answer, None)
            return
        endpoint = there[self._fate.network.randrange(len(there))] if len(there) > 1 else there[0]
        if endpoint.process.cut_off:
            return
        endpoint.process.spawn(self._serve(endpoint, operation, data, answer))

    async def _serve(self, endpoint: Endpoint, operation: str, data: Any, answer: asyncio.Future[Any]) -> None:
        found: Any
        try:
            found = await endpoint.handler(operation, data)
        except CalqueError as error:
            found = error
        except Exception as error:
            self._loop.failures.append(f"{endpoint.process.name} {operation}: {error!r}")
            found = CalqueError(permanent("internal", "failed"))
        if not endpoint.process.dead:
            self._loop.at(self._fate.delay(), _set, answer, found)


def _hear(process: Process, heard: Callable[[str], Coroutine[Any, Any, None]], site: str) -> None:
    if not process.dead and not process.cut_off:
        process.spawn(heard(site), "heard")


def _set(answer: asyncio.Future[Any], found: Any) -> None:
    if not answer.done():
        answer.set_result(found)


class SimBus:
    """What the parts of one process use of ``bus.connection.Bus``. ``site`` is ``None`` for a hub."""

    def __init__(self, network: Network, process: Process, *, site: str | None, fate: Fate, loop: SimLoop) -> None:
        self._network = network
        self._process = process
        self._site = site
        self._fate = fate
        self._loop = loop

    async def ask(
        self,
        subject: str,
        data: msgspec.Struct,
        reply_type: type[T],
        *,
        source: str,
        timeout_seconds: float,
        operation: str | None = None,
    ) -> T:
        """As the bus does it; what crosses the link to the hub may meet a cut."""
        _, kind, site, _ = subject.split(".", 3)
        across = site if kind in ("ask", "rpc") else None
        found = await self._network.request(
            self._process, subject, data, timeout_seconds=timeout_seconds, across=across
        )
        assert isinstance(found, reply_type), f"{subject} answered {type(found).__name__}"
        return found

    async def publish(self, subject: str, envelope: Envelope) -> None:
        """To an inbox, if a message gets there."""
        self._process.check()
        cut = self._site in self._network.cut or self._process.cut_off
        if cut or self._fate.strikes(self._fate.profile.message):
            self._fate.trace.hit("reply lost", "client")
            return
        if (inbox := self._network.inboxes.get(subject)) is not None:
            self._loop.at(self._fate.delay(), inbox, envelope)

    async def replies(
        self, subject: str, payload: bytes, *, gap_seconds: float, timeout_seconds: float | None = None
    ) -> AsyncGenerator[Message, None]:
        """Everybody of this site who is there answers."""
        await asyncio.sleep(self._fate.delay())
        self._process.check()
        if self._process.cut_off:
            return
        for name, (process, info) in list(self._network.info.items()):
            if not process.dead and name.startswith(f"{self._site}/"):
                yield Message(subject, info, None)
