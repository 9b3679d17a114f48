"""Every version reads what older versions wrote, with the same result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from schemas.events import Event
from schemas.upcasting import UPCASTERS
from tests.golden.reading import expected, histories, history, types_of, types_recorded, versions
from tests.golden.recording import Line, event_types, recorded_of, summary

HOW = "record it: python -m tests.golden add"


def lost(wrote: Any, reads: Any, *, at: str) -> Iterator[str]:
    """What stands in ``wrote`` and is gone, or other, in ``reads``."""
    if isinstance(wrote, dict) and isinstance(reads, dict):
        for name, value in wrote.items():
            if name in reads:
                yield from lost(value, reads[name], at=f"{at}.{name}")
            else:
                yield f"{at}.{name}"
    elif isinstance(wrote, list) and isinstance(reads, list) and len(wrote) == len(reads):
        for number, (one, other) in enumerate(zip(wrote, reads, strict=True)):
            yield from lost(one, other, at=f"{at}[{number}]")
    elif wrote != reads:
        yield f"{at}: {wrote!r} is read as {reads!r}"


def _whole(value: Any) -> Any:
    """A Struct with its defaults, as JSON types."""
    if isinstance(value, msgspec.Struct):
        return {name: _whole(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_whole(each) for each in value]
    return msgspec.to_builtins(value)


@pytest.mark.parametrize("version", versions())
def test_events_of_every_type_are_read_whole(version: str) -> None:
    lines = types_of(version)
    for line, recorded in zip(lines, recorded_of(lines), strict=True):
        kind, data = line["envelope"]["type"], line["envelope"]["data"]
        assert isinstance(recorded.event, Event), f"{kind} of {version} can't be read: {recorded.event}"
        assert recorded.refused is None, f"{kind} of {version} is refused: {recorded.refused}"
        if kind not in UPCASTERS.steps:
            gone = list(lost(data, _whole(recorded.event), at=kind))
            assert not gone, f"{version} wrote what is not read any more: {gone}; give the event a new version"


@pytest.mark.parametrize(("version", "number"), histories())
def test_a_history_adds_up_to_what_its_own_version_made_of_it(version: str, number: int) -> None:
    assert summary(recorded_of(history(version, number))) == expected(version, number)


def test_every_event_type_of_this_version_is_recorded() -> None:
    missing = sorted(set(event_types()) - types_recorded())
    assert not missing, f"no folder below tests/golden/events has {', '.join(missing)}; {HOW}"


def test_every_type_that_was_ever_recorded_is_read_or_leads_on_to_one_that_is() -> None:
    for kind in types_recorded():
        assert UPCASTERS.newest(kind) in event_types(), f"nothing reads {kind} any more: add an upcaster"


def test_a_field_that_is_renamed_or_read_otherwise_is_noticed() -> None:
    wrote = {"a": 1, "b": {"c": [1, 2]}, "d": None}
    assert list(lost(wrote, {"a": 1, "b": {"c": [1, 2]}, "d": None, "new": 0}, at="x")) == []
    assert list(lost(wrote, {"a": 1, "b": {"z": [1, 2]}, "d": None}, at="x")) == ["x.b.c"]
    assert list(lost(wrote, {"a": 1, "b": {"c": [1, 3]}, "d": None}, at="x")) == ["x.b.c[1]: 2 is read as 3"]


def test_a_new_required_field_is_noticed() -> None:
    line: Line = {
        "subject": "calque.evt.north.instance.i.running",
        "envelope": {
            "id": "north/1", "type": "calque.event.instance.degraded.v1", "source": "north", "time": "t",
            "specversion": "1.0", "data": {},
        },
    }  # fmt: skip
    [recorded] = recorded_of([line])
    assert not isinstance(recorded.event, Event)  # ``message`` has no default: such an event stops its aggregate
