"""The event store of one writer: its aggregates live in its own stream, ``EVT_<site>`` or ``EVT_hub``.

An append carries, per aggregate, the last sequence that its writer has seen of it; the server refuses it if there is
a later one. Several events are stored as one atomic batch (NATS ADR-50). After a refusal, or when no acknowledgement
came, the store looks whether the events lie there already, by the ids of their envelopes: a retry after a lost
acknowledgement looks like a conflict to the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from bus import tracing
from bus.connection import CONTENT_HEADERS, Bus, Message
from bus.errors import timed_out
from bus.jetstream import (
    BATCH_DUPLICATE,
    BATCH_INCOMPLETE,
    IN_FLIGHT,
    STORE_FULL,
    WRONG_LAST_SEQUENCE,
    JetStream,
    JetStreamError,
)
from bus.metrics import count
from bus.reader import StreamReader
from bus.records import Recorded, UnknownEvent, record
from schemas import metrics
from schemas.envelope import MAX_EVENT_BYTES, Envelope, encode, timestamp, wrap
from schemas.events import Event
from schemas.ids import new_id
from schemas.problems import CalqueError, invalid, temporary
from schemas.sizes import oversized
from schemas.subjects import SubjectError, events_of_aggregate, outbox
from schemas.subjects import event as event_subject

__all__ = ["Conflict", "EventStore", "NewEvent", "Recorded", "UnknownEvent"]

MAX_BATCH = 1000
ATTEMPT_SECONDS = 5.0
DEADLINE_SECONDS = 20.0
LOAD_BATCH = 1000
RETRY_SECONDS = 0.1
SETTLING_SECONDS = 0.02

Key = tuple[str, str]


class NewEvent(NamedTuple):
    """An event to be stored of the aggregate ``(aggregate, id)``, and what its envelope shall carry."""

    aggregate: str
    id: str
    event: Event
    operation: str | None = None
    causation: str | None = None
    correlation: str | None = None
    replyto: str | None = None


class Conflict(Exception):
    """Somebody else appended to one of the aggregates first: load them again and decide anew."""


class _Prepared(NamedTuple):
    key: Key
    subject: str
    payload: bytes
    envelope: Envelope
    event: Event


class EventStore:
    """Loads and appends to the aggregates of ``writer``: a site's name, or ``hub``."""

    def __init__(self, bus: Bus, *, writer: str) -> None:
        self._bus = bus
        self._js = JetStream(bus)
        self._writer = writer
        self._stream = outbox(writer)

    async def load(
        self, aggregate: str, id: str, *, after: int = 0, timeout_seconds: float = DEADLINE_SECONDS
    ) -> list[Recorded]:
        """The events of one aggregate, oldest first. The last one's sequence (0 if none) guards the next append.

        What can't be read is there too, as :class:`UnknownEvent`. Raises :class:`CalqueError` (temporary).
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while True:
            try:
                return await self._load(aggregate, id, after=after)
            except CalqueError as error:
                if not error.problem.temporary or loop.time() >= deadline:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def replay(self, *, after: int = 0) -> AsyncGenerator[list[Recorded], None]:
        """The writer's whole stream after a sequence, in batches, up to its end at the time of the call."""
        last = await self._js.last_sequence(self._stream)
        if last <= after:
            return
        batches = StreamReader(self._bus, stream=self._stream, after=after).read()
        try:
            async for stored in batches:
                yield [
                    record(sequence=sequence, subject=subject, payload=payload)
                    for sequence, subject, payload in stored
                    if sequence <= last
                ]
                if stored[-1].sequence >= last:
                    return
        finally:
            await batches.aclose()

    async def last_sequence(self) -> int:
        """The sequence of the last event stored, 0 if there is none."""
        return await self._js.last_sequence(self._stream)

    async def append(
        self,
        events: Sequence[NewEvent],
        *,
        expected: Mapping[Key, int],
        timeout_seconds: float = DEADLINE_SECONDS,
    ) -> list[Recorded]:
        """Store all of ``events`` or none; ``expected[(aggregate, id)]`` is the last sequence seen (0: a new one).

        Raises :class:`Conflict`; :class:`CalqueError` ``invalid`` (too big), ``stream_full`` or another temporary
        one: then it is not known whether the events are stored, and the caller loads the aggregate to find out.
        """
        if not events:
            return []
        prepared = self._prepare(events, expected)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while True:
            refusal: JetStreamError | None = None
            try:
                last = await self._publish(prepared, expected, timeout_seconds=self._attempt(deadline))
                first = last - len(prepared) + 1
                count(metrics.APPENDS, by=len(prepared))
                return [self._recorded(one, first + offset) for offset, one in enumerate(prepared)]
            except JetStreamError as error:
                if error.err_code == IN_FLIGHT:
                    await asyncio.sleep(SETTLING_SECONDS)
                if error.err_code in (WRONG_LAST_SEQUENCE, IN_FLIGHT, BATCH_DUPLICATE):
                    refusal = error
                elif error.err_code in STORE_FULL or not (
                    error.problem.temporary or error.err_code == BATCH_INCOMPLETE
                ):
                    raise
                cause: CalqueError = error
            except CalqueError as error:
                if not error.problem.temporary:
                    raise
                cause = error
            stored = await self._find(prepared, expected, deadline=deadline, cause=cause)
            if stored is not None:
                return stored
            if refusal is not None:
                count(metrics.CONFLICTS)
                keys = ", ".join(sorted({"/".join(one.key) for one in prepared}))
                raise Conflict(f"{keys}: {refusal}") from refusal
            if loop.time() >= deadline:
                raise cause
            count(metrics.APPEND_RETRIES, cause.problem.code)
            await asyncio.sleep(RETRY_SECONDS)

    # --- appending

    def _prepare(self, events: Sequence[NewEvent], expected: Mapping[Key, int]) -> list[_Prepared]:
        keys = {(new.aggregate, new.id) for new in events}
        if keys != set(expected):
            raise ValueError(f"an append needs the expected sequence of just its aggregates: {sorted(keys)}")
        if len(events) > MAX_BATCH:
            raise CalqueError(invalid("events", f"{len(events)} events in one append exceed {MAX_BATCH}"))
        now = timestamp(datetime.now(UTC))
        return [self._prepare_one(new, now) for new in events]

    def _prepare_one(self, new: NewEvent, now: str) -> _Prepared:
        if new.aggregate != new.event.AGGREGATE:
            raise ValueError(f"{type(new.event).__name__} is an event of {new.event.AGGREGATE}, not {new.aggregate}")
        subject = _possible(
            event_subject, writer=self._writer, aggregate=new.aggregate, id=new.id, event=new.event.EVENT
        )
        envelope = wrap(
            new.event,
            # The hub's streams see ids of all writers: the prefix keeps them apart.
            id=f"{self._writer}/{new_id()}",
            source=self._writer,
            time=now,
            subject=f"{new.aggregate}/{new.id}",
            operationid=new.operation,
            causationid=new.causation,
            correlationid=new.correlation,
            replyto=new.replyto,
            traceparent=tracing.current(),
        )
        payload = encode(envelope)
        if len(payload) > MAX_EVENT_BYTES:
            what = f"the event {new.aggregate}.{new.event.EVENT}"
            raise CalqueError(oversized(new.event, what=what, size=len(payload), limit=MAX_EVENT_BYTES))
        return _Prepared((new.aggregate, new.id), subject, payload, envelope, new.event)

    async def _publish(
        self, prepared: Sequence[_Prepared], expected: Mapping[Key, int], *, timeout_seconds: float
    ) -> int:
        """Send; returns the sequence of the last one."""
        batch = new_id() if len(prepared) > 1 else None
        guarded: set[Key] = set()
        for number, one in enumerate(prepared, start=1):
            headers = {**CONTENT_HEADERS, "Nats-Msg-Id": one.envelope.id}
            if one.key not in guarded:
                # Within a batch the server checks against the state before it: once per aggregate is enough.
                guarded.add(one.key)
                headers["Nats-Expected-Last-Subject-Sequence"] = str(expected[one.key])
                headers["Nats-Expected-Last-Subject-Sequence-Subject"] = self._filter(one.key)
            if batch is not None:
                headers["Nats-Batch-Id"] = batch
                headers["Nats-Batch-Sequence"] = str(number)
            if number < len(prepared):
                await self._bus.wait_connected(timeout_seconds, subject=one.subject)
                await self._bus.send(one.subject, one.payload, headers=headers)
                continue
            if batch is not None:
                headers["Nats-Batch-Commit"] = "1"
            ack = await self._js.publish(one.subject, one.payload, headers=headers, timeout_seconds=timeout_seconds)
        return ack.seq

    async def _find(
        self, prepared: Sequence[_Prepared], expected: Mapping[Key, int], *, deadline: float, cause: CalqueError
    ) -> list[Recorded] | None:
        """The events as stored if they are; ``None`` if not."""
        sequences: dict[str, int] = {}
        remaining = max(deadline - asyncio.get_running_loop().time(), ATTEMPT_SECONDS)
        for (aggregate, id), after in expected.items():
            try:
                found = await self.load(aggregate, id, after=after, timeout_seconds=remaining)
            except CalqueError:
                raise cause from None
            sequences.update({one.envelope.id: one.sequence for one in found})
        if all(one.envelope.id in sequences for one in prepared):
            return [self._recorded(one, sequences[one.envelope.id]) for one in prepared]
        return None

    def _recorded(self, one: _Prepared, sequence: int) -> Recorded:
        aggregate, id = one.key
        return Recorded(sequence, self._writer, aggregate, id, one.event, one.envelope)

    def _attempt(self, deadline: float) -> float:
        return max(min(ATTEMPT_SECONDS, deadline - asyncio.get_running_loop().time()), 0.5)

    # --- loading

    def _filter(self, key: Key) -> str:
        return _possible(events_of_aggregate, writer=self._writer, aggregate=key[0], id=key[1])

    async def _load(self, aggregate: str, id: str, *, after: int) -> list[Recorded]:
        """All that the stream's leader has, read from whichever replica answers."""
        if self._bus.settings.replicas == 1:
            return await self._get(aggregate, id, after=after)
        last = await self._js.last_of(self._stream, self._filter((aggregate, id)))
        if last <= after:
            return []
        loaded = await self._get(aggregate, id, after=after)
        if not loaded or loaded[-1].sequence < last:
            raise CalqueError(temporary("lagging", f"a replica of {self._stream} has not stored {last} yet"))
        return loaded

    async def _get(self, aggregate: str, id: str, *, after: int) -> list[Recorded]:
        """Batched direct get (NATS ADR-31): one request, as many replies as there are events, then ``204``."""
        loaded: list[Recorded] = []
        subject = f"{self._js.prefix}.DIRECT.GET.{self._stream}"
        filter = self._filter((aggregate, id))
        while True:
            request = f'{{"seq":{after + 1},"batch":{LOAD_BATCH},"next_by_subj":"{filter}"}}'
            previous: int | None = None
            complete = False
            await self._bus.wait_connected(ATTEMPT_SECONDS, subject=subject)
            replies = self._bus.replies(subject, request.encode(), gap_seconds=ATTEMPT_SECONDS)
            async for message in replies:
                headers = message.headers or {}
                if "Nats-Sequence" not in headers:  # not a stored message, whose headers may look like a status
                    if message.status == "404":
                        return loaded
                    if message.status == "204":
                        complete = previous == int(headers.get("Nats-Last-Sequence", "-1"))
                        break
                    raise CalqueError(temporary("jetstream", f"{subject}: {message.status} {headers}"))
                if previous is not None and int(headers["Nats-Last-Sequence"]) != previous:
                    break
                previous = int(headers["Nats-Sequence"])
                loaded.append(self._read(message))
            await replies.aclose()
            if not complete:
                # What came is good as far as it goes; go on behind it, unless nothing came at all.
                if previous is None:
                    raise timed_out(subject, seconds=ATTEMPT_SECONDS)
                after = previous
                continue
            if headers.get("Nats-Num-Pending", "0") == "0":
                return loaded
            after = loaded[-1].sequence

    def _read(self, message: Message) -> Recorded:
        headers = message.headers or {}
        return record(sequence=int(headers["Nats-Sequence"]), subject=headers["Nats-Subject"], payload=message.payload)


def _possible(made: Callable[..., str], **parts: str) -> str:
    """A subject of an event. Raises :class:`CalqueError` for an id, that somebody else may have chosen, that none can
    have."""
    try:
        return made(**parts)
    except SubjectError as error:
        raise CalqueError(invalid("id", str(error), "use an id as the schemas say")) from None
