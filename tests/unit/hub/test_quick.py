"""The quick way of taking events in comes to the same as the ordinary one, whatever lies in the stream."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec

from bus.records import Recorded, record
from hub.projections.dump import dump
from hub.projections.quick import QuickFold
from hub.projections.state import Projections
from schemas import events as ev
from schemas import saga
from schemas.envelope import MAX_EVENT_BYTES, encode, wrap
from schemas.events import Event
from tests.bench.shaped import Told, history
from tests.unit.hub.scenes import BY, accepted

CHANGES: tuple[dict[str, Any], ...] = (
    {"source": "site-0001"},
    {"source": "hub"},
    {"specversion": "0.3"},
    {"specversion": None},
    {"type": "calque.event.copy.prepared.v9"},
    {"type": "calque.event.instance.deleted.v1"},
    {"type": 7},
    {"dataschema": "urn:something:else"},
    {"dataschema": 7},
    {"subject": 7},
    {"replyto": None},
    {"traceparent": "00-1-2-03", "unheard": {"of": [1, 2]}},
    {"traceparent": 1},
    {"data": None},
    {"data": []},
    {"data": {"step": "s", "attempt": "one"}},
    {"time": 0},
)


def changed(told: Told, random: random.Random) -> Told:
    """An event that is not quite as it should be."""
    subject, payload = told
    match random.randrange(6):
        case 0:
            return subject.replace("calque", "clique"), payload
        case 1:
            return subject + ".more", payload
        case 2:
            head, _, _ = subject.rpartition(".")
            return f"{head}.{random.choice(['deleted', 'unheard', 'prepared', 'succeeded'])}", payload
        case 3:
            return subject, payload[: random.randrange(len(payload))]
        case 4:
            return subject, payload[:-1] + b',"extra":"' + b"x" * random.choice([10, MAX_EVENT_BYTES]) + b'"}'
    raw = msgspec.json.decode(payload)
    raw.update(random.choice(CHANGES))
    return subject, msgspec.json.encode(raw)


def spoilt(events: list[Told], random: random.Random) -> Iterator[Told]:
    """Some twice, some changed, some later than they should be, some of another writer."""
    late: list[Told] = []
    for told in events:
        yield told
        if random.random() < 0.05:
            yield told
        if random.random() < 0.05:
            yield changed(told, random)
        if random.random() < 0.03:
            subject, payload = told
            tokens = subject.split(".")
            tokens[2] = random.choice(["hub", "site-0001", "stranger"])
            yield ".".join(tokens), payload
        if random.random() < 0.05:
            late.append(told)
        if len(late) > 20:
            yield late.pop(0)


def test_the_quick_way_and_the_ordinary_way_come_to_the_same() -> None:
    chance = random.Random(5)
    told = list(spoilt(list(history(events=6000, sites=10, seed=5)), chance))
    stream = [(at, *each) for at, each in enumerate(told, start=1)]

    ordinary = Projections()
    refused = []
    last = None
    for sequence, subject, payload in stream:
        recorded = record(sequence=sequence, subject=subject, payload=payload)
        if recorded.refused is None:
            ordinary.apply([recorded])
            last = (sequence, recorded.envelope.id)
        else:
            refused.append(recorded)
    assert len(refused) > 300
    assert len(ordinary.stopped) > 10

    quick = Projections()
    fold = QuickFold(quick)
    left_out = []
    position = 0
    while position < len(stream):
        batch = stream[position : position + chance.randrange(1, 300)]
        if chance.random() < 0.2:  # cut off, begun anew behind the last that was taken in
            fold = QuickFold(quick)
        left_out += fold.take(batch)
        position += len(batch)
        assert quick.position == batch[-1][0]
    assert left_out == refused
    assert dump(quick) == dump(ordinary)
    assert (quick.taken, quick.events, fold.last) == (ordinary.taken, ordinary.events, last)


def test_all_of_a_history_goes_the_quick_way() -> None:
    state = Projections()
    fold = QuickFold(state)
    slow = 0
    slowly = fold._slowly

    def counted(sequence: int, subject: str, payload: bytes, refused: list[Recorded]) -> None:
        nonlocal slow
        slow += 1
        slowly(sequence, subject, payload, refused)

    fold._slowly = counted  # type: ignore[method-assign]
    told = list(history(events=3000, sites=10, seed=6))
    fold.take([(at, *each) for at, each in enumerate(told, start=1)])
    assert slow == len({subject.split(".")[2] for subject, _ in told})  # the first one of each writer


def test_a_result_that_can_not_be_written_does_not_stop_the_fold() -> None:
    plan = accepted()
    events: list[Event] = [*saga.accept(plan)[:1], ev.OperationSucceeded(), ev.CancelRequested(by=BY)]
    payloads = [
        encode(wrap(event, id=f"north/{at}", source="north", time="2026-01-01T00:00:00Z"))
        for at, event in enumerate(events)
    ]
    payloads[1] = payloads[1].replace(b'"data":{}', b'"data":{"result":{"huge":1' + b"0" * 40 + b"}}")
    state = Projections()
    assert not QuickFold(state).take(
        [
            (at, f"calque.evt.north.operation.o.{event.EVENT}", payload)
            for at, (event, payload) in enumerate(zip(events, payloads, strict=True), start=1)
        ]
    )
    (row,) = state.operations.rows.values()
    assert row.state == "succeeded"
    assert not state.operations.live
