"""Reading what is stored never fails, whatever it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.jetstream import position, sequences
from bus.records import UnknownEvent, record
from schemas.envelope import Envelope, encode, to_raw, wrap
from schemas.events import Event, InstanceRunning

SUBJECT = "calque.evt.north.instance.i1.running"


def stored(event: Event, *, source: str = "north") -> bytes:
    return encode(wrap(event, id="north/1", source=source, time="2030-01-01T00:00:00Z"))


def raw(type: str, data: object) -> bytes:
    envelope = Envelope(id="1", type=type, source="north", time="t", specversion="1.0", data=to_raw(data))
    return encode(envelope)


def test_a_known_event_is_decoded() -> None:
    one = record(sequence=7, subject=SUBJECT, payload=stored(InstanceRunning(url="http://x")))
    assert (one.sequence, one.writer, one.aggregate, one.id) == (7, "north", "instance", "i1")
    assert one.event == InstanceRunning(url="http://x")
    assert one.refused is None


def test_a_newer_field_is_ignored() -> None:
    one = record(sequence=1, subject=SUBJECT, payload=raw("calque.event.instance.running.v1", {"new": 1}))
    assert one.event == InstanceRunning()


@pytest.mark.parametrize(
    ("type", "data"),
    [
        ("calque.event.instance.running.v2", {"x": 1}),
        ("calque.event.instance.running.v1", {"url": 5}),
        ("calque.command.hub.instance.stop.v1", {}),
        ("calque.problem.v1", {}),
        ("anything", None),
    ],
)
def test_what_is_not_known_is_kept_raw(type: str, data: object) -> None:
    one = record(sequence=1, subject=SUBJECT, payload=raw(type, data))
    assert isinstance(one.event, UnknownEvent)
    assert one.event == UnknownEvent(type, bytes(to_raw(data)))
    assert one.refused is None


def test_a_writer_speaks_for_itself_only() -> None:
    one = record(sequence=1, subject=SUBJECT, payload=stored(InstanceRunning(), source="south"))
    assert one.refused == "source 'south' in the stream of 'north'"


def test_a_type_stands_on_its_own_subject_only() -> None:
    subject = "calque.evt.north.template.t1.applied"
    one = record(sequence=1, subject=subject, payload=stored(InstanceRunning()))
    assert one.refused is not None
    assert "template.applied" in one.refused


@given(st.binary(), st.text())
def test_nothing_raises(payload: bytes, subject: str) -> None:
    assert record(sequence=1, subject=subject, payload=payload).refused is not None
    assert record(sequence=1, subject=SUBJECT, payload=payload).refused is not None


def test_positions_are_read_from_both_forms() -> None:
    old = position("$JS.ACK.EVENTS.reader.1.42.7.1795168287075426761.9")
    new = position("$JS.ACK.hub.abcd.EVENTS.reader.1.42.7.1795168287075426761.9.rnd")
    assert old == new
    assert sequences("$JS.ACK.EVENTS.reader.1.42.7.1795168287075426761.9") == (42, 7)
    assert sequences("$JS.ACK.hub.abcd.EVENTS.reader.1.42.7.1795168287075426761.9.rnd") == (42, 7)
    assert (old.delivered, old.stream_sequence, old.consumer_sequence, old.pending) == (1, 42, 7, 9)
