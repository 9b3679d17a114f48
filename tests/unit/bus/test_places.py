"""Places of consumers in a stream whose events came back in another order: nothing is skipped."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bus.places import Event, Place, Seeking

WRITERS = ("north", "south", "hub")


@st.composite
def orders(draw: st.DrawFn, story: dict[str, int]) -> list[tuple[str, int]]:
    """Events by writer and number, each writer's in their order."""
    turns = draw(st.permutations([writer for writer, count in story.items() for _ in range(count)]))
    given_: dict[str, int] = {}
    found = []
    for writer in turns:
        given_[writer] = given_.get(writer, 0) + 1
        found.append((writer, given_[writer]))
    return found


def subject(writer: str, number: int) -> str:
    return f"calque.evt.{writer}.{'copy' if number % 2 else 'image'}.x.y"


@settings(max_examples=300)
@given(st.data())
def test_whatever_was_not_acknowledged_comes_and_little_else(data: st.DataObject) -> None:
    story = {writer: data.draw(st.integers(0, 6)) for writer in WRITERS}
    old, new = data.draw(orders(story)), data.draw(orders(story))
    lost = data.draw(st.sampled_from([None, *new])) if new else None
    new = [each for each in new if each != lost]
    floor = data.draw(st.integers(0, len(old)))
    filters = data.draw(st.sampled_from([[], ["calque.evt.north.>"], ["calque.evt.*.copy.*.y", "calque.evt.hub.>"]]))
    last = {writer: f"{writer}/{number}" for writer, number in old[:floor]}
    config = {"durable_name": "d", "filter_subjects": filters}
    seeking = Seeking([Place(config=config, last=last), Place(config={"durable_name": "all"}, last={})])
    for sequence, (writer, number) in enumerate(new, start=1):
        seeking.take(Event(sequence, subject(writer, number), writer, f"{writer}/{number}"))
    start, zero = seeking.starts(len(new))
    assert zero == 1
    wanted = {
        (writer, number)
        for writer, number in new
        if not filters
        or (filters[0] == "calque.evt.north.>" and writer == "north")
        or (len(filters) == 2 and (number % 2 or writer == "hub"))
    }
    due = [sequence for sequence, each in enumerate(new, 1) if each in wanted and each not in old[:floor]]
    assert all(sequence >= start for sequence in due)
    if lost is None:
        assert start == min(due, default=len(new) + 1)
