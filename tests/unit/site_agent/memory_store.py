"""A site's stream in memory, with the guards of the real one; another writer may get in between."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, datetime

from bus.events import Conflict, Key, NewEvent
from bus.records import Recorded, record
from schemas.envelope import Envelope, encode, timestamp, to_raw, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError
from schemas.subjects import event as event_subject

START = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryStore:
    """``before`` is called ahead of each append; ``refuse`` is raised by the next ones. ``now`` dates the events."""

    def __init__(self, writer: str = "north") -> None:
        self.writer = writer
        self.stored: list[Recorded] = []
        self.before: Callable[[], None] = lambda: None
        self.refuse: list[CalqueError | Conflict] = []
        self.now = START

    async def append(self, events: Sequence[NewEvent], *, expected: Mapping[Key, int]) -> list[Recorded]:
        """All or none."""
        self.before()
        if self.refuse:
            raise self.refuse.pop(0)
        for key, sequence in expected.items():
            if self.last(key) != sequence:
                raise Conflict(f"{key}: at {self.last(key)}, not {sequence}")
        return [self._put(new) for new in events]

    async def replay(self, *, after: int = 0) -> AsyncGenerator[list[Recorded], None]:
        """Everything after a sequence."""
        yield [one for one in self.stored if one.sequence > after]

    async def load(self, aggregate: str, id: str, *, after: int = 0) -> list[Recorded]:
        """One aggregate."""
        return [one for one in self.stored if (one.aggregate, one.id) == (aggregate, id) and one.sequence > after]

    def last(self, key: Key) -> int:
        """The last sequence of an aggregate."""
        return max((one.sequence for one in self.stored if (one.aggregate, one.id) == key), default=0)

    def put_unknown(self, aggregate: str, id: str, *, type: str, data: object = None) -> None:
        """A newer agent has written this."""
        envelope = Envelope(
            id=f"{self.writer}/{new_id()}", type=type, source=self.writer, time=timestamp(self.now), specversion="1.0",
            data=to_raw(data),
        )  # fmt: skip
        subject = event_subject(writer=self.writer, aggregate=aggregate, id=id, event="newer")
        self.stored.append(record(sequence=len(self.stored) + 1, subject=subject, payload=encode(envelope)))

    def put(self, new: NewEvent) -> Recorded:
        """Somebody else has written this."""
        return self._put(new)

    def _put(self, new: NewEvent) -> Recorded:
        envelope = wrap(
            new.event,
            id=f"{self.writer}/{new_id()}",
            source=self.writer,
            time=timestamp(self.now),
            operationid=new.operation,
            causationid=new.causation,
            replyto=new.replyto,
        )
        subject = event_subject(writer=self.writer, aggregate=new.aggregate, id=new.id, event=new.event.EVENT)
        recorded = record(sequence=len(self.stored) + 1, subject=subject, payload=encode(envelope))
        self.stored.append(recorded)
        return recorded
