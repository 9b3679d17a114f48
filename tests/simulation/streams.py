"""JetStream as the product sees it: streams with guarded, atomic appends, sourcing between them, durable consumers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bus.records import Recorded, record
from tests.simulation.loop import SimLoop

DUPLICATES_SECONDS = 20.0
ACK_WAIT_SECONDS = 3.0

Key = tuple[str, str]


class Stored(NamedTuple):
    """A message as a stream holds it. ``batch`` numbers the append that it came with."""

    sequence: int
    subject: str
    payload: bytes
    id: str
    batch: int
    at: float


class Stream:
    """A stream on a server that never dies. Whoever reads waits on ``changed``."""

    def __init__(self, loop: SimLoop, name: str) -> None:
        self.name = name
        self.messages: list[Stored] = []
        self.last: dict[Key, int] = {}
        self.of: dict[Key, list[int]] = {}
        self.batches = 0
        self.down = False
        self.full = False
        self.listeners: list[Callable[[], None]] = []
        self._loop = loop
        self._seen: dict[str, float] = {}
        self._recorded: dict[int, Recorded] = {}

    def append(self, messages: Sequence[tuple[str, bytes, str]], *, key: Callable[[str], Key] | None = None) -> int:
        """Store messages (subject, payload, id) at once; the sequence of the last."""
        self.batches += 1
        for subject, payload, id in messages:
            sequence = len(self.messages) + 1
            self.messages.append(Stored(sequence, subject, payload, id, self.batches, self._loop.time()))
            if key is not None:
                self.last[key(subject)] = sequence
                self.of.setdefault(key(subject), []).append(sequence)
        for listener in list(self.listeners):
            listener()
        return len(self.messages)

    def enqueue(self, subject: str, payload: bytes, id: str) -> bool:
        """Store one message unless its id came within the window of duplicates."""
        now = self._loop.time()
        if now - self._seen.get(id, -DUPLICATES_SECONDS) < DUPLICATES_SECONDS:
            return False
        self._seen[id] = now
        self.append([(subject, payload, id)])
        return True

    def mismatch(self, expected: Mapping[Key, int]) -> Key | None:
        """An aggregate that has moved on, if one has."""
        return next((key for key, sequence in expected.items() if self.last.get(key, 0) != sequence), None)

    def read(self, sequence: int) -> Recorded:
        """One event, decoded from its bytes."""
        found = self._recorded.get(sequence)
        if found is None:
            stored = self.messages[sequence - 1]
            found = record(sequence=sequence, subject=stored.subject, payload=stored.payload)
            self._recorded[sequence] = found
        return found

    def decoded(self) -> list[Recorded]:
        """All events."""
        return [self.read(sequence) for sequence in range(1, len(self.messages) + 1)]


class Source:
    """Copies what one stream holds into another: in order, each once, later. ``cut`` while the link is down."""

    def __init__(self, loop: SimLoop, *, origin: Stream, target: Stream, delay: Callable[[], float]) -> None:
        self.cut = False
        self._loop = loop
        self._origin = origin
        self._target = target
        self._delay = delay
        self._position = 0
        self._moving = False
        origin.listeners.append(self.move)

    @property
    def behind(self) -> int:
        """How many messages are not copied yet."""
        return len(self._origin.messages) - self._position

    def move(self) -> None:
        """Copy what is there, after a delay."""
        if not self._moving and not self.cut and self.behind:
            self._moving = True
            self._loop.at(self._delay(), self._arrive)

    def _arrive(self) -> None:
        self._moving = False
        if self.cut:
            return
        waiting = self._origin.messages[self._position :]
        self._position = len(self._origin.messages)
        if waiting:
            self._target.append([(one.subject, one.payload, one.id) for one in waiting])


class Pending:
    """A message of a consumer that is not acknowledged."""

    __slots__ = ("delivered", "due", "stored")

    def __init__(self, stored: Stored, due: float) -> None:
        self.stored = stored
        self.delivered = 0
        self.due = due


class Consumer:
    """A durable pull consumer with explicit acknowledgement."""

    def __init__(self, loop: SimLoop, stream: Stream, *, name: str, filter: str = "") -> None:
        self.name = name
        self.stream = stream
        self.cut = False
        self.pending: dict[int, Pending] = {}
        self._loop = loop
        self._filter = filter
        self._position = 0
        self._waiters: list[asyncio.Future[None]] = []
        stream.listeners.append(self._wake)

    @property
    def idle(self) -> bool:
        """Whether everything is acknowledged."""
        self._take()
        return not self.pending

    def due(self) -> list[Pending]:
        """What may be delivered now."""
        if self.cut:
            return []
        self._take()
        now = self._loop.time()
        return [one for one in self.pending.values() if one.due <= now]

    async def wait(self) -> None:
        """Until something may be deliverable."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(future)
        timer = None
        if self.pending and not self.cut:
            soonest = min(one.due for one in self.pending.values())
            timer = self._loop.call_at(max(soonest, self._loop.time()), _resolve, future)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()

    def lease(self, one: Pending) -> None:
        """It is being delivered."""
        one.delivered += 1
        one.due = self._loop.time() + ACK_WAIT_SECONDS

    def extend(self, sequence: int) -> None:
        """The work goes on."""
        if (one := self.pending.get(sequence)) is not None:
            one.due = self._loop.time() + ACK_WAIT_SECONDS

    def acknowledge(self, sequence: int) -> None:
        """It is done."""
        self.pending.pop(sequence, None)

    def later(self, sequence: int, seconds: float) -> None:
        """Deliver it again after a while."""
        if (one := self.pending.get(sequence)) is not None:
            one.due = self._loop.time() + seconds
            self._wake()

    def connect(self) -> None:
        """The link is up again."""
        self.cut = False
        self._wake()

    def _take(self) -> None:
        messages = self.stream.messages
        while self._position < len(messages):
            stored = messages[self._position]
            self._position += 1
            if stored.subject.startswith(self._filter):
                self.pending[stored.sequence] = Pending(stored, self._loop.time())

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            _resolve(future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
