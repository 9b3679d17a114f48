"""Which subjects hold the events of some sites and types."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.events import Event
from schemas.names import check_name
from schemas.problems import Problem, invalid
from schemas.registry import MESSAGES
from schemas.subjects import ALL_EVENTS, HUB, events_matching

MOST_FILTERS = 100
KINDS: dict[str, frozenset[str]] = {}
for _kind in MESSAGES.values():
    if issubclass(_kind, Event):
        KINDS[_kind.AGGREGATE] = KINDS.get(_kind.AGGREGATE, frozenset()) | {_kind.EVENT}


def subjects_of(*, sites: Sequence[str], types: Sequence[str]) -> tuple[str, ...] | Problem:
    """The filters of subjects, none of which lies in another; or what is wrong."""
    for site in sites:
        if site != HUB and (problem := check_name(site, field="sites")):
            return problem
    wanted: set[tuple[str, str]] = set()
    for text in types:
        kind, _, event = text.removeprefix("calque.event.").removesuffix(".v1").partition(".")
        if kind not in KINDS:
            return invalid("types", f"there are no events of {kind!r}", f"use one of: {', '.join(sorted(KINDS))}")
        if event and event not in KINDS[kind]:
            known = ", ".join(f"{kind}.{each}" for each in sorted(KINDS[kind]))
            return invalid("types", f"there is no event {text!r}", f"use one of: {known}")
        wanted.add((kind, event or "*"))
    narrow = {(kind, event) for kind, event in wanted if event == "*" or (kind, "*") not in wanted}
    if not sites and not narrow:
        return (ALL_EVENTS,)
    found = sorted(
        events_matching(site, kind, "*", event)
        for site in set(sites) or {"*"}
        for kind, event in narrow or {("*", "*")}
    )
    if len(found) > MOST_FILTERS:
        message = f"{len(found)} combinations of site and type are more than {MOST_FILTERS}"
        return invalid("types", message, "name fewer, or leave the sites out")
    return tuple(found)
