"""Event stores, feeds and work queues of one process, on the streams of the simulated servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from bus.errors import timed_out, unavailable
from bus.events import Conflict, NewEvent
from bus.records import Recorded, UnknownEvent
from bus.work import Delivery
from schemas.envelope import Envelope, encode, timestamp, wrap
from schemas.events import Event, OperationAccepted
from schemas.problems import CalqueError, temporary
from schemas.subjects import event as event_subject
from tests.simulation.fate import Fate
from tests.simulation.loop import START_SECONDS, Process, SimLoop
from tests.simulation.node import EPOCH
from tests.simulation.streams import Consumer, Key, Pending, Stream

ATTEMPT_SECONDS = 5.0
DEADLINE_SECONDS = 20.0
RETRY_SECONDS = 0.1
PROGRESS_SECONDS = 10.0
MAX_DELIVERIES = 20
CUT_OFF_SECONDS = 0.5
"""How often a process that reaches no server looks whether it does."""


def key_of(subject: str) -> Key:
    """The aggregate of an event's subject."""
    parts = subject.split(".")
    return parts[3], parts[4]


class SimStore:
    """An event store with the promises of ``bus.events.EventStore``, over a network that loses and delays."""

    def __init__(
        self, loop: SimLoop, fate: Fate, process: Process, stream: Stream, *, writer: str, clock: Callable[[], datetime]
    ) -> None:
        self._loop = loop
        self._fate = fate
        self._process = process
        self._stream = stream
        self._writer = writer
        self._clock = clock

    async def load(self, aggregate: str, id: str, *, after: int = 0) -> list[Recorded]:
        """The events of one aggregate."""
        await self._reach()
        found = self._stream.of.get((aggregate, id), ())
        return [self._stream.read(sequence) for sequence in found if sequence > after]

    async def replay(self, *, after: int = 0) -> AsyncGenerator[list[Recorded], None]:
        """The whole stream up to its present end."""
        await self._reach()
        last = len(self._stream.messages)
        for start in range(after, last, 100):
            await asyncio.sleep(self._fate.delay())
            self._process.check()
            yield [self._stream.read(sequence) for sequence in range(start + 1, min(start + 100, last) + 1)]

    async def append(self, events: Sequence[NewEvent], *, expected: Mapping[Key, int]) -> list[Recorded]:
        """All or none; finds out by itself what became of an append whose acknowledgement was lost."""
        if not events:
            return []
        self._process.check()
        if self._stream.full:
            raise CalqueError(temporary("stream_full", f"{self._stream.name} holds as much as it may"))
        prepared = [self._prepare(new) for new in events]
        assert {(new.aggregate, new.id) for new in events} == set(expected)
        deadline = self._loop.time() + DEADLINE_SECONDS
        while True:
            took = await self._publish(events, prepared, dict(expected))
            if self._stream.full:
                raise CalqueError(temporary("stream_full", f"{self._stream.name} holds as much as it may"))
            self._process.check()
            if (found := self._find(prepared)) is not None:
                return found
            if took is False:
                raise Conflict(f"{self._writer}: {sorted(expected)}")
            if self._loop.time() >= deadline:
                raise timed_out(self._stream.name, seconds=DEADLINE_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)

    def _prepare(self, new: NewEvent) -> tuple[str, bytes, str]:
        subject = event_subject(writer=self._writer, aggregate=new.aggregate, id=new.id, event=new.event.EVENT)
        self._fate.events += 1
        envelope = wrap(
            new.event,
            id=f"{self._writer}/{self._fate.events}",
            source=self._writer,
            time=timestamp(self._clock()),
            subject=f"{new.aggregate}/{new.id}",
            operationid=new.operation,
            causationid=new.causation,
            correlationid=new.correlation,
            replyto=new.replyto,
        )
        return subject, encode(envelope), envelope.id

    async def _publish(
        self, events: Sequence[NewEvent], prepared: list[tuple[str, bytes, str]], expected: dict[Key, int]
    ) -> bool | None:
        """Whether the server took the batch; ``None`` when no word came back."""
        fate = self._fate
        words: asyncio.Future[bool | None] = self._loop.create_future()
        delay, lost, then = fate.delay(), False, _nothing
        if self._process.cut_off:
            delay = -1.0
        elif fate.strikes(fate.profile.store):
            where = self._where(events)
            match fate.faults.randrange(7):
                case 0:
                    fate.trace.hit("append lost", where, who=self._process.name)
                    delay = -1.0
                case 1:
                    fate.trace.hit("append late", where, who=self._process.name)
                    delay = fate.faults.uniform(0.5, 9.0)
                case 2:
                    fate.trace.hit("ack lost", where, who=self._process.name)
                    lost = True
                case 3:
                    fate.trace.hit("store away", where, who=self._process.name)
                    self._stream.down = True
                    self._loop.at(fate.faults.uniform(0.5, 40.0), self._recover)
                case 4:
                    fate.trace.hit("store full", where, who=self._process.name)
                    self._stream.full = True
                    delay = -1.0
                    self._loop.at(fate.faults.uniform(0.5, 40.0), self._recover)
                case 5:
                    fate.trace.hit("killed before", where, who=self._process.name)
                    self._process.on_fuse()
                    delay = -1.0
                case _:
                    fate.trace.hit("killed after", where, who=self._process.name)
                    then = self._process.on_fuse
        if delay >= 0:
            self._loop.at(delay, self._arrive, prepared, expected, words, lost, then)
        timer = self._loop.call_later(ATTEMPT_SECONDS, _settle, words, None)
        try:
            return await words
        finally:
            timer.cancel()

    def _arrive(
        self,
        prepared: list[tuple[str, bytes, str]],
        expected: dict[Key, int],
        words: asyncio.Future[bool | None],
        lost: bool,
        then: Callable[[], None],
    ) -> None:
        if self._stream.down or self._stream.full:
            return
        took = self._stream.mismatch(expected) is None
        if took:
            for subject, payload, _ in prepared:
                self._fate.trace.recorded(self._process.name, subject, payload)
            self._stream.append(prepared, key=key_of)
        if not lost and not self._process.cut_off:
            _settle(words, took)
        then()

    def _where(self, events: Sequence[NewEvent]) -> str:
        """For the report: the step that these events are about, else what the last of them says."""
        for new in events:
            if new.aggregate == "operation":
                return about(self._stream, new.id, new.event)
        return f"{events[-1].aggregate}.{events[-1].event.EVENT}"

    def _recover(self) -> None:
        self._stream.down = self._stream.full = False

    def _find(self, prepared: list[tuple[str, bytes, str]]) -> list[Recorded] | None:
        if self._stream.down or self._process.cut_off:
            return None
        sequences: list[int] = []
        for subject, _, id in prepared:
            of = self._stream.of.get(key_of(subject), ())
            at = next((sequence for sequence in reversed(of) if self._stream.messages[sequence - 1].id == id), None)
            if at is None:
                return None
            sequences.append(at)
        return [self._stream.read(sequence) for sequence in sequences]

    async def _reach(self) -> None:
        self._process.check()
        deadline = self._loop.time() + DEADLINE_SECONDS
        await asyncio.sleep(self._fate.delay())
        while self._stream.down or self._process.cut_off:
            if self._loop.time() >= deadline:
                raise unavailable(self._stream.name, "the store does not answer")
            await asyncio.sleep(1.0)
            self._process.check()
        self._process.check()


def about(stream: Stream, id: str, event: Event | UnknownEvent) -> str:
    """``<kind of operation>: <action>`` for what happens to a step of the operation ``id``, whose history ``stream``
    holds; ``: undo <action>`` while it is taken back; else what happens to the whole operation."""
    accepted: Any = event
    if not isinstance(event, OperationAccepted):
        found = stream.of.get(("operation", id), ())
        accepted = stream.read(found[0]).event if found else None
    name = getattr(event, "EVENT", "unknown")
    if not isinstance(accepted, OperationAccepted):
        return f"operation.{name}"
    step = next((each for each in accepted.steps if each.id == getattr(event, "step", None)), None)
    if step is None:
        return f"{accepted.kind}: {name}"
    return f"{accepted.kind}: {f'undo {step.action}' if name.startswith(('undo', 'step_undo')) else step.action}"


def _nothing() -> None:
    return None


def _settle(words: asyncio.Future[bool | None], said: bool | None) -> None:
    if not words.done():
        words.set_result(said)


class SimFeed:
    """A reader of ``EVENTS``."""

    def __init__(self, loop: SimLoop, fate: Fate, process: Process, stream: Stream) -> None:
        self._loop = loop
        self._fate = fate
        self._process = process
        self._stream = stream
        self._more = asyncio.Event()
        self.position = 0

    async def last_sequence(self) -> int:
        """The last event stored now."""
        await asyncio.sleep(self._fate.delay())
        self._process.check()
        if self._process.cut_off:
            raise unavailable(self._stream.name, "the server is not reached")
        return len(self._stream.messages)

    async def read(self, *, after: int = 0) -> AsyncGenerator[list[Recorded], None]:
        """Batches, endlessly."""
        self.position = after
        self._stream.listeners.append(self._more.set)
        try:
            while True:
                self._more.clear()
                await self._reach()
                last = len(self._stream.messages)
                if last > self.position:
                    batch = [self._stream.read(sequence) for sequence in range(self.position + 1, last + 1)]
                    self.position = last
                    yield [each for each in batch if each.refused is None]
                else:
                    await self._more.wait()
                await asyncio.sleep(self._fate.delay())
        finally:
            self._stream.listeners.remove(self._more.set)

    async def _reach(self) -> None:
        if self._fate.strikes(self._fate.profile.queue / 4):
            self._fate.trace.hit("feed late", "hub", who=self._process.name)
            await asyncio.sleep(self._fate.faults.uniform(0.3, 12.0))
        while self._process.cut_off:  # noqa: ASYNC110 - time is virtual, nobody waits
            await asyncio.sleep(CUT_OFF_SECONDS)


class SimQueue:
    """A work queue with the promises of ``bus.work.WorkQueue``: at least once, acknowledged after the handler."""

    def __init__(
        self,
        loop: SimLoop,
        fate: Fate,
        process: Process,
        consumer: Consumer,
        *,
        bury: Callable[[Consumer, Pending, str], None],
        origins: Mapping[str, Stream] | None = None,
        max_deliveries: int = MAX_DELIVERIES,
    ) -> None:
        self._loop = loop
        self._fate = fate
        self._process = process
        self._consumer = consumer
        self._bury = bury
        self._origins = origins or {}
        self._max = max_deliveries
        self._free = asyncio.Event()
        self._running = 0
        self._beats: dict[int, Any] = {}

    async def run(self, handler: Callable[[Delivery], Awaitable[None]], *, concurrency: int) -> None:
        """For ever."""
        while True:
            if self._running >= concurrency:
                self._free.clear()
                await self._free.wait()
            self._process.check()
            if self._process.cut_off:
                await asyncio.sleep(CUT_OFF_SECONDS)
                continue
            due = self._consumer.due()
            if not due:
                await self._consumer.wait()
                await asyncio.sleep(self._fate.delay())
                continue
            pick = self._fate.network.randrange(min(len(due), 4)) if self._fate.network.random() < 0.25 else 0
            one = due[pick]
            self._consumer.lease(one)
            if pick and not self._fate.healed:
                self._fate.trace.hit("delivery overtaken", self._where(one), who=self._process.name)
            if self._fate.strikes(self._fate.profile.queue):
                match self._fate.faults.randrange(4):
                    case 0 | 1:
                        self._fate.trace.hit("delivery lost", self._where(one), who=self._process.name)
                        continue
                    case 2:
                        self._fate.trace.hit("delivery twice", self._where(one), who=self._process.name)
                        self._consumer.later(one.stored.sequence, self._fate.faults.choice((0.0, 0.02, 2.0)))
                    case _:
                        self._fate.trace.hit("killed amid", self._where(one), who=self._process.name)
                        self._process.fuse = self._fate.faults.randrange(1, 30)
            self._running += 1
            self._process.spawn(self._handle(handler, one), f"{self._consumer.name}-{one.stored.sequence}")

    async def _handle(self, handler: Callable[[Delivery], Awaitable[None]], one: Pending) -> None:
        sequence, consumer = one.stored.sequence, self._consumer
        bus: Any = None  # no handler of the product uses it
        delivery = Delivery(
            one.stored.subject,
            one.stored.payload,
            sequence,
            one.delivered,
            EPOCH.timestamp() + one.stored.at - START_SECONDS,
            bus,
            str(sequence),
        )
        beat = self._loop.call_later(PROGRESS_SECONDS, self._tell_progress, sequence)
        self._beats[sequence] = beat
        try:
            await handler(delivery)
            self._process.check()
            if consumer.cut or self._process.cut_off or self._fate.strikes(self._fate.profile.queue):
                self._fate.trace.hit("queue ack lost", self._where(one), who=self._process.name)
            else:
                consumer.acknowledge(sequence)
        except CalqueError as error:
            self._process.check()
            if error.problem.temporary and one.delivered < self._max:
                seconds = min((error.problem.retry_after_seconds or 1.0) * 2 ** min(one.delivered - 1, 10), 30.0)
                consumer.later(sequence, seconds)
            else:
                self._bury(consumer, one, f"{error.problem.code}: {error}")
        except Exception as error:
            self._process.check()
            self._bury(consumer, one, repr(error))
        finally:
            self._beats.pop(sequence, beat).cancel()
            self._running -= 1
            self._free.set()

    def _where(self, one: Pending) -> str:
        """For the report: the command, or the event that a hub reacts to."""
        _, _, writer, aggregate, id, event = one.stored.subject.split(".", 5)
        if self._consumer.name != "sagas":
            return f"{self._consumer.name.partition('-')[0]} {event.rpartition('.')[2]}"
        if aggregate != "operation" or writer not in self._origins:
            return f"on {aggregate}.{event}"
        return f"on {about(self._origins[writer], id, self._consumer.stream.read(one.stored.sequence).event)}"

    def _tell_progress(self, sequence: int) -> None:
        if not self._process.cut_off:
            self._consumer.extend(sequence)
        self._beats[sequence] = self._loop.call_later(PROGRESS_SECONDS, self._tell_progress, sequence)


async def store_command(
    loop: SimLoop, fate: Fate, process: Process, stream: Stream, subject: str, envelope: Envelope
) -> None:
    """Put a command into a stream. Raises a temporary problem when no acknowledgement came: it may be stored."""
    process.check()
    payload = encode(envelope)
    if process.cut_off:
        await asyncio.sleep(ATTEMPT_SECONDS)
        raise timed_out(subject, seconds=ATTEMPT_SECONDS)
    if fate.strikes(fate.profile.store):
        if fate.faults.random() < 0.5:
            fate.trace.hit("command lost", f"cmd {subject.rpartition('.')[2]}", who=process.name)
        else:
            fate.trace.hit("command ack lost", f"cmd {subject.rpartition('.')[2]}", who=process.name)
            loop.at(fate.delay(), stream.enqueue, subject, payload, envelope.id)
        await asyncio.sleep(ATTEMPT_SECONDS)
        raise timed_out(subject, seconds=ATTEMPT_SECONDS)
    loop.at(fate.delay(), stream.enqueue, subject, payload, envelope.id)
    await asyncio.sleep(2 * fate.delay() + 0.005)
    process.check()
