"""Every fault that fate knows, and every place that it can strike: what the report of a run is made of.

A place that was never struck stands there with a zero. The places come from the product (its messages, its contracts
of brokers, the steps that its sagas took in the run) and from the points of the simulated brokers' work, so that a
new step or point is in the report without anybody thinking of it.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from schemas.brokers import CONTRACTS
from schemas.commands import Command
from schemas.events import Event
from schemas.registry import MESSAGES

Hits = Counter[tuple[str, str]]

AT_WORK = (
    "broker killed",
    "agent killed",
    "both killed",
    "temporary problem",
    "permanent problem",
    "fails unexpectedly",
    "slow",
    "hangs",
)
ON_REQUESTS = ("request lost", "request late", "request twice", "answer lost", "link cut")
ON_APPENDS = ("append lost", "append late", "ack lost", "store away", "store full", "killed before", "killed after")
ON_DELIVERIES = ("delivery lost", "delivery twice", "delivery overtaken", "killed amid", "queue ack lost")
ON_COMMANDS = (*ON_DELIVERIES, "command lost", "command ack lost", "command again")
ON_PROCESSES = ("killed", "killed between", "killed for good", "frozen", "cut off", "clock forward", "clock back")
ON_SNAPSHOTS = ("snapshot torn", "snapshot rotten")
ON_LINKS = ("link down", "beat lost", "events late", "feed late", "reply lost")
FROM_OUTSIDE = ("app ill", "copy taken", "strange image", "forged event", "unknown event", "no command")

NODES = ("hub", "agent", "postgres", "s3", "channels", "process", "files", "vault")
LINKS = ("north", "south", "hub", "client")
OUTSIDE = ("app service", "files", "vault", "its own stream", "another's aggregate", "JOBS", "CMD")
UNSIMULATED = frozenset({"webhook"})
"""Aggregates that no part of the simulated world writes: webhooks have tests of their own."""


class Table(NamedTuple):
    """Some faults, and the places that they can strike, given what was seen in the run."""

    title: str
    faults: tuple[str, ...]
    places: Callable[[Counter[str]], Iterable[str]]


def points() -> list[str]:
    """Every point of the simulated brokers' work: ``<operation> <where>``."""
    found: dict[str, None] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "point":
                words = [
                    each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)
                ]
                if len(words) == 2:
                    found[f"{words[0]} {words[1]}"] = None
    return sorted(found)


def requests() -> list[str]:
    """Every operation that an agent asks of brokers, of another site and of the hub."""
    operations = {name for kind in ("dsb", "psb", "crb") for name in CONTRACTS[kind]}
    return sorted(operations | {"grant", "set_secret", "signers"})


def events() -> list[str]:
    """Every event but those of operations, whose steps have a table of their own."""
    kinds = {kind for kind in MESSAGES.values() if issubclass(kind, Event)}
    named = {f"{kind.AGGREGATE}.{kind.EVENT}" for kind in kinds if kind.AGGREGATE not in UNSIMULATED}
    return sorted(name for name in named if not name.startswith("operation."))


def commands() -> list[str]:
    """Every command, by the queue that it comes from."""
    found: set[str] = set()
    for type, kind in MESSAGES.items():
        if issubclass(kind, Command) and kind.AGGREGATE not in UNSIMULATED:
            found.add(f"{'cmd' if type.startswith('calque.command.site.') else 'jobs'} {kind.VERB}")
    found.update(f"local {verb}" for verb in ("deploy", "start", "stop", "delete"))
    return sorted(found)


TABLES = (
    Table("steps of operations, as they are recorded", ON_APPENDS, lambda seen: sorted(seen)),
    Table("other events, as they are recorded", ON_APPENDS, lambda _: events()),
    Table("points of a broker's work", AT_WORK, lambda _: points()),
    Table("requests of an agent", ON_REQUESTS, lambda _: requests()),
    Table("commands", ON_COMMANDS, lambda _: commands()),
    Table(
        "events that a hub reacts to", ON_DELIVERIES, lambda seen: [f"on {each}" for each in (*sorted(seen), *events())]
    ),
    Table("processes", ON_PROCESSES, lambda _: NODES),
    Table("links", ON_LINKS, lambda _: LINKS),
    Table("snapshots", ON_SNAPSHOTS, lambda _: ("write", "disk")),
    Table("from outside", FROM_OUTSIDE, lambda _: OUTSIDE),
)
KINDS = tuple(dict.fromkeys(fault for table in TABLES for fault in table.faults))


def never_fired(hits: Hits) -> list[str]:
    """The kinds of faults that struck nothing at all."""
    fired = {fault for (fault, _), times in hits.items() if times}
    return [kind for kind in KINDS if kind not in fired]


def never_struck(hits: Hits, seen: Counter[str]) -> dict[str, list[str]]:
    """Per table the places that nothing struck."""
    found: dict[str, list[str]] = {}
    for table in TABLES:
        struck = {where for (fault, where), times in hits.items() if times and fault in table.faults}
        left = [place for place in table.places(seen) if place not in struck]
        if left:
            found[table.title] = left
    return found
