"""What a check works with: the conversation, and the means of its kind of broker.

The checks that hold for every kind know only this base: an operation that succeeds, one that runs until it is
cancelled, and what they leave behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from brokers.testkit.checks import NotApplicable, holds
from brokers.testkit.conversation import POLL_SECONDS, Conversation
from brokers.testkit.copies import CopyServer
from brokers.testkit.restarting import RestartGate
from schemas.brokers import CONTRACTS, Change, InfoRequest, Outcome, Reply
from schemas.ids import new_id
from schemas.problems import CalqueError
from schemas.values import DataServiceType, ServiceSpec

UNDER_WAY_SECONDS = 0.3
LABELS = {"instance_name": "conformance", "data_service": "conformance"}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the run is told of the broker beyond its kind and name. ``None``: found out from its ``info``.

    ``type``, ``plan``, ``parameters``: what is provisioned (DSB). ``spec``: the app service that is deployed, which
    runs ``app.py`` of the kit (PSB); else it is deployed as a process. ``peer``: another repository (CRB).
    """

    type: DataServiceType | None = None
    plan: str | None = None
    parameters: dict[str, str] = {}
    spec: ServiceSpec | None = None
    peer: str | None = None


class Surroundings(NamedTuple):
    """What all checks of one run share."""

    options: Options
    copies: CopyServer
    directory: Path
    gate: RestartGate


class Bench:
    """Means of one check. What it makes is removed by :meth:`tidy`."""

    def __init__(self, talk: Conversation, surroundings: Surroundings) -> None:
        self.talk = talk
        self.surroundings = surroundings
        self.options = surroundings.options
        self.copies = surroundings.copies
        self.directory = surroundings.directory
        self.gate = surroundings.gate
        self.stalls: list[str] = []

    # --- of each kind

    async def operation(self) -> tuple[str, Change]:
        """A long operation that makes something and succeeds."""
        raise NotImplementedError

    async def stalled(self) -> tuple[str, Change]:
        """A long operation that runs until it is cancelled."""
        raise NotImplementedError

    async def relieved(self, stalled: Change) -> tuple[str, Change]:
        """What makes, by another id, what the stalled one was to make, and succeeds."""
        raise NotImplementedError

    def other(self, id: str) -> tuple[str, Change]:
        """A long operation of another name with this id, harmless."""
        raise NotImplementedError

    async def traces(self, request: Change) -> list[str]:
        """What the broker shows of all that the request made, one line each."""
        raise NotImplementedError

    async def forget(self) -> None:
        """Remove what the check made."""
        raise NotImplementedError

    # --- of all kinds

    async def info(self) -> Any:
        """The broker's own description."""
        return await self.talk.ask("info", InfoRequest(), CONTRACTS[self.talk.kind]["info"].result)

    def result_of(self, operation: str) -> type[Reply]:
        """The type of an operation's result."""
        return CONTRACTS[self.talk.kind][operation].result

    async def restart(self) -> None:
        """Have the broker restarted, with all checks that need it, and wait until it answers again."""
        await self.gate.pass_through()
        await self.until(self._answers, "the broker does not answer after its restart")

    async def until(self, condition: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        """Poll until it is true, as long as the patience lasts."""
        deadline = asyncio.get_running_loop().time() + self.talk.patience_seconds
        while not await condition():
            holds(asyncio.get_running_loop().time() < deadline, otherwise)
            await asyncio.sleep(POLL_SECONDS)

    async def running(self, operation: str, request: Change) -> Outcome:
        """Begin what runs until it is cancelled, and see that it runs."""
        outcome = await self.talk.begin(operation, request)
        holds(outcome.state == "running", f"{operation} {outcome.state} although what it needs does not answer")
        return outcome

    async def under_way(self, request: Change) -> None:
        """Give what was begun a moment to make something."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + UNDER_WAY_SECONDS

        async def begun() -> bool:
            return bool(await self.traces(request)) or loop.time() > deadline

        await self.until(begun, "the broker does not say what is there")

    async def tidy(self) -> None:
        """End what stalls and remove what was made, whatever the broker says to it."""
        self.copies.stalled.difference_update(self.stalls)
        await self.forget()

    def stall(self, copy: str) -> None:
        """Have everything about a copy wait, until the check is over."""
        self.copies.stalled.add(copy)
        self.stalls.append(copy)

    async def _answers(self) -> bool:
        try:
            await self.talk.bus.ask(
                self.talk.subject("info"),
                InfoRequest(),
                CONTRACTS[self.talk.kind]["info"].result,
                source="conformance",
                timeout_seconds=1.0,
            )
        except CalqueError:
            return False
        return True


def needs(value: Any, what: str) -> Any:
    """``value``, unless it is missing."""
    if value is None:
        raise NotApplicable(what)
    return value


def name_of(prefix: str) -> str:
    """A new id that says it is of the kit."""
    return f"{prefix}-{new_id()}"
