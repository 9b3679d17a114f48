"""The hub's aggregates, loaded from its own stream together with the sequence that guards the next append."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from bus.events import NewEvent, Recorded
from hub.application.ports import EventLog
from hub.domain.received import Received
from schemas.events import CommandAccepted, Event
from schemas.problems import CalqueError, permanent

S = TypeVar("S")

Key = tuple[str, str]


class Loaded(NamedTuple):
    """The events of one aggregate."""

    key: Key
    recorded: list[Recorded]

    @property
    def sequence(self) -> int:
        """What the next append expects; 0 for a new aggregate."""
        return self.recorded[-1].sequence if self.recorded else 0

    @property
    def readable(self) -> list[Recorded]:
        """Without what its writer may not have written: that counts for the guard alone."""
        return [each for each in self.recorded if each.refused is None]

    @property
    def events(self) -> list[Event]:
        """Raises :class:`CalqueError` (permanent) when an event is unknown: a newer hub has written it."""
        found: list[Event] = []
        for each in self.readable:
            if not isinstance(each.event, Event):
                raise CalqueError(
                    permanent(
                        "unknown_event",
                        f"{self.key[0]} {self.key[1]} holds {each.envelope.type}",
                        remedy="upgrade this hub to the version of the one that wrote it",
                    )
                )
            found.append(each.event)
        return found

    def caused_by(self, command: str) -> bool:
        """Whether this command has changed the aggregate already."""
        return any(each.envelope.causationid == command for each in self.readable)

    def fold(self, evolve: Callable[[S, Event], S], start: S) -> S:
        """The state of the aggregate."""
        for event in self.events:
            start = evolve(start, event)
        return start


async def load(log: EventLog, aggregate: str, id: str) -> Loaded:
    """One aggregate of the hub."""
    return Loaded((aggregate, id), await log.load(aggregate, id))


def accepting(received: Received) -> tuple[Loaded, Sequence[Event]]:
    """That a command is accepted, to be appended together with what it leads to: in the aggregate that a rejection
    would stand in, so that two hubs that decide at once never do both."""
    return Loaded(("command", received.id), []), [CommandAccepted(kind=received.envelope.type)]


async def append(
    log: EventLog,
    *changes: tuple[Loaded, Sequence[Event]],
    causation: str | None = None,
    operation: str | None = None,
    correlation: str | None = None,
) -> list[Recorded]:
    """Append to one or several aggregates at once, if none of them has moved on. Raises ``bus.events.Conflict``."""
    events = [
        NewEvent(
            aggregate=loaded.key[0],
            id=loaded.key[1],
            event=event,
            operation=operation,
            causation=causation,
            correlation=correlation,
        )
        for loaded, new in changes
        for event in new
    ]
    if not events:
        return []
    return await log.append(events, expected={loaded.key: loaded.sequence for loaded, new in changes if new})
