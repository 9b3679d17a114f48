"""What the application needs of the outside, and the errors that each call may raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

import msgspec

from bus.events import NewEvent, Recorded
from schemas.commands import Answer
from schemas.conditions import ConditionView
from schemas.envelope import Envelope

T = TypeVar("T", bound=msgspec.Struct)


class EventLog(Protocol):
    """The hub's own aggregates."""

    async def load(self, aggregate: str, id: str) -> list[Recorded]:
        """All events of one aggregate. Raises :class:`CalqueError` (temporary)."""

    async def append(self, events: Sequence[NewEvent], *, expected: Mapping[tuple[str, str], int]) -> list[Recorded]:
        """All or none. Raises ``bus.events.Conflict`` when an aggregate has moved on, :class:`CalqueError`
        (temporary) when the store can't be reached."""


class Outbound(Protocol):
    """What the hub sends."""

    async def command(self, subject: str, envelope: Envelope) -> None:
        """Store a command for a site; the same envelope id again is stored once. Raises :class:`CalqueError`
        (temporary)."""

    async def answer(self, to: str, answer: Answer) -> None:
        """Tell the sender of a command. Lost when nobody listens: the query repeats it."""

    async def ask_site(self, site: str, operation: str, question: msgspec.Struct, reply: type[T]) -> T:
        """Ask a site's agent. Raises the site's :class:`CalqueError`, or a temporary one when it does not answer."""


class Conditions(Protocol):
    """How far behind the hub is."""

    async def lags(self) -> Mapping[str, int]:
        """By site that reports: of how many of its events the tables know nothing yet. Empty when it can't be told."""

    async def view(self, hub: str) -> ConditionView:
        """How the hub of that name is. Raises :class:`CalqueError` (temporary)."""


class Clock(Protocol):
    """The time."""

    def __call__(self) -> datetime: ...
