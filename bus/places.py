"""Where consumers go on in a stream that has the same events in another order of writers. Pure.

A sequence means nothing there. A place is carried over by what it stood for: of each writer, the last event up to it. A
consumer begins anew at the first event that is not among those, of whichever writer; some events come to it again, none
is left out.

    old      n1 n2 s1 h1 | n3 s2          acknowledged up to h1: of north n2, of south s1, of the hub h1
    new      h1 s1 n1 n2 n3 s2            begins at n3
             s1 s2 n1 ...                 begins at s2; n1 n2 h1 come again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from schemas.base import Fact


class Place(Fact, frozen=True, kw_only=True):
    """A durable consumer, and of each writer the id of the last event up to where it has acknowledged all."""

    config: dict[str, Any]
    last: dict[str, str]


class Event(NamedTuple):
    """An event as far as places are concerned."""

    sequence: int
    subject: str
    writer: str
    id: str


class Seeking:
    """Finds where consumers begin in a stream that has the events in another order. Pure."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        self._filters = [_filters(place.config) for place in places]
        self._starts: list[int | None] = [None] * len(places)
        self._marks: dict[tuple[str, str], list[int]] = {}
        for number, place in enumerate(places):
            for mark in place.last.items():
                self._marks.setdefault(mark, []).append(number)
        self._writers: dict[str, _Writer] = {}

    def take(self, event: Event) -> None:
        """The next event of the stream."""
        writer = self._writers.get(event.writer)
        if writer is None:
            known = {number for number, place in enumerate(self._places) if event.writer in place.last}
            writer = self._writers[event.writer] = _Writer(set(range(len(self._places))) - known, known, {})
        if writer.open or writer.unseen:
            wanting = {number for number in writer.open | writer.unseen if _wants(self._filters[number], event.subject)}
            for number in wanting & writer.open:
                self._note(number, event.sequence)
            writer.first.update(dict.fromkeys(wanting & writer.unseen, event.sequence))
            writer.open.difference_update(wanting)
            writer.unseen.difference_update(wanting)
        for number in self._marks.get((event.writer, event.id), ()):
            writer.unseen.discard(number)
            writer.first.pop(number, None)
            writer.open.add(number)

    def starts(self, last: int) -> list[int]:
        """By place: the sequence to begin at, behind ``last`` when everything was acknowledged."""
        for writer in self._writers.values():
            # The event up to which all was acknowledged is not there: rather all of its writer again than none.
            for number, sequence in writer.first.items():
                self._note(number, sequence)
        return [last + 1 if start is None else start for start in self._starts]

    def _note(self, number: int, sequence: int) -> None:
        start = self._starts[number]
        self._starts[number] = sequence if start is None else min(start, sequence)


class _Writer(NamedTuple):
    """What consumers wait for, of one writer: ``open`` its next event that they want, for all before is acknowledged;
    the others the last one that is, and meanwhile ``first`` is the first that they want, of all but the ``unseen``."""

    open: set[int]
    unseen: set[int]
    first: dict[int, int]


def _filters(config: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    found = config.get("filter_subjects") or ([config["filter_subject"]] if config.get("filter_subject") else [])
    return tuple(tuple(each.split(".")) for each in found)


def _wants(filters: Sequence[Sequence[str]], subject: str) -> bool:
    tokens = subject.split(".")
    return not filters or any(_matches(each, tokens) for each in filters)


def _matches(pattern: Sequence[str], tokens: Sequence[str]) -> bool:
    for number, part in enumerate(pattern):
        if part == ">":
            return len(tokens) > number
        if number >= len(tokens) or part not in ("*", tokens[number]):
            return False
    return len(pattern) == len(tokens)
