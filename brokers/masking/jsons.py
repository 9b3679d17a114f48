"""JSON values, each leaf changed by what is said of its place. Keys stay; so do the order and twins of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

Change = Callable[[str, "str | None"], "str | None"]
Place = tuple[str, ...]
ANY = "*"


class _Object(NamedTuple):
    pairs: list[tuple[str, object]]


class _Number(NamedTuple):
    text: str
    whole: bool


_decode = json.JSONDecoder(
    object_pairs_hook=_Object,
    parse_int=lambda text: _Number(text, True),
    parse_float=lambda text: _Number(text, False),
).decode


def each_leaf(
    texts: Mapping[Place, Change],
    *,
    integers: Mapping[Place, Change],
    numbers: Mapping[Place, Change],
    kept: Collection[Place],
) -> Change:
    """A function that changes the leaves of a JSON text: each by what is said of the longest place that it lies in.

    Texts, whole numbers of up to 64 bits and other numbers have their own functions; a boolean becomes false. What lies
    in one of the ``kept`` places stays.
    """

    def said_of(place: Place) -> Place | None:
        for length in range(len(place), -1, -1):
            for known in texts:
                if len(known) == length and all(a in (ANY, b) for a, b in zip(known, place, strict=False)):
                    return known
        return None

    def walk(value: object, place: Place, by: str | None) -> Iterator[str]:
        if isinstance(value, _Object):
            yield "{"
            for number, (key, each) in enumerate(value.pairs):
                yield (", " if number else "") + json.dumps(key, ensure_ascii=False) + ": "
                yield from walk(each, (*place, key), by)
            yield "}"
        elif isinstance(value, list):
            yield "["
            for number, each in enumerate(value):
                if number:
                    yield ", "
                yield from walk(each, (*place, str(number)), by)
            yield "]"
        else:
            yield leaf(value, said_of(place), by)

    def leaf(value: object, said: Place | None, by: str | None) -> str:
        if value is None:
            return "null"
        if said is None or said in kept:
            return value.text if isinstance(value, _Number) else json.dumps(value, ensure_ascii=False)
        if isinstance(value, str):
            made = texts[said](value, by)
            return "null" if made is None else json.dumps(made, ensure_ascii=False)
        if isinstance(value, _Number):
            small = value.whole and len(value.text) < 19
            made = (integers if small else numbers)[said](value.text, by)
            return "null" if made is None else made
        return "null" if texts[said]("", by) is None else "false"

    return lambda value, by: "".join(walk(_decode(value), (), by))
