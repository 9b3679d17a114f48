"""Checks about messages that went astray: dead letters, events that were set apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from hub.cli.findings import Finding, ok, problem
from hub.cli.output import age, printable, size
from schemas.letters import LettersView
from schemas.queries import SiteView
from schemas.room import Fill, StreamFill
from schemas.strays import FORGED, StraysView
from schemas.subjects import HUB, outbox

_SHOWN = 3


def check_letters(found: LettersView) -> list[Finding]:
    """Messages that could not be handled and wait for somebody, by place."""
    findings = []
    for place, number in sorted(Counter(letter.site for letter in found.letters).items()):
        here = [letter for letter in found.letters if letter.site == place]
        codes = ", ".join(f"{count} {code}" for code, count in Counter(letter.code for letter in here).most_common())
        examples = tuple(f"{letter.id}: {letter.code}: {printable(letter.reason)}" for letter in here[-_SHOWN:])
        findings.append(
            problem(
                "letters",
                place,
                f"{number} messages could not be handled ({codes}), the last {age(here[-1].at)} ago",
                f"see 'calque dlq list --site {place}', then retry or discard them",
                details=examples,
            )
        )
    return findings or [ok("letters", "there are none")]


def check_room(streams: Collection[StreamFill], sites: Collection[SiteView]) -> list[Finding]:
    """Streams that refuse what does not fit, and are nearly full: nothing new is begun then."""
    fills = [Fill(HUB, each.stream, each.used, each.limit) for each in streams if each.refuses]
    for site in sites:
        if (said := site.condition) is not None:
            fills.append(Fill(site.name, outbox(site.name), said.outbox_bytes, said.outbox_limit_bytes))
    findings = [
        problem(
            "room",
            f"{fill.stream} at {fill.place}",
            f"{size(fill.used)} of {size(fill.limit)} are used: nothing new is begun, what runs goes on",
            f"raise max_bytes of the stream at the server of {fill.place}; it goes on by itself",
        )
        for fill in fills
        if fill.low
    ]
    return findings or [ok("room", f"{len(fills)} streams have room")]


def check_strays(found: StraysView) -> list[Finding]:
    """Events that nobody takes in, by writer and reason."""
    return [
        problem(
            "strays",
            each.writer or "?",
            f"{each.count} of its events are set apart: {each.reason}",
            f"site {each.writer} speaks for others: find out what runs there with its key"
            if each.reason == FORGED
            else "see what writes them, and its version; nothing else stops",
            details=tuple(printable(example) for example in each.examples[-_SHOWN:]),
        )
        for each in found.strays
    ] or [ok("strays", "every event in the record is its writer's to write")]
