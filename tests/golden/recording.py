"""Records a version's folder. Runs on that version's own code: this file is given to its interpreter as a script.

    PYTHONPATH=<checkout> python recording.py FOLDER [--types-only]

Histories are runs of the simulator, which is the real hub and the real agents on simulated brokers: what they store is
what they store anywhere. Those seeds are kept that together show the most event types. Types that no run shows are in
``types.jsonl`` alone. Nothing here is newer than what the oldest version has.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from bus.records import Recorded, record
from hub.projections.state import Projections
from schemas.envelope import Envelope, encode, to_raw
from schemas.events import Event
from schemas.registry import MESSAGES
from site_agent.domain.site import Site

SEEDS = 60
HISTORIES = 3
DEPTH = 8
OF_THE_HUB = frozenset({"template", "catalog", "claim", "membership", "webhook"})
ID = "01977f2e-8d3c-7a4e-9b60-3f1c2d4e5a6b"
TIME = "2026-01-31T12:00:00.000000Z"

Line = dict[str, Any]


def event_types() -> dict[str, type[Event]]:
    """All event types of the version that runs."""
    return {name: kind for name, kind in sorted(MESSAGES.items()) if issubclass(kind, Event)}


def lines_of_types() -> list[Line]:
    """Of each type, an envelope with every field, and one with what is required."""
    lines = []
    for name, kind in event_types().items():
        writer = "hub" if kind.AGGREGATE in OF_THE_HUB else "north"
        subject = f"calque.evt.{writer}.{kind.AGGREGATE}.{ID}.{kind.EVENT}"
        for every in (True, False):
            data = _struct(inspect.type_info(kind), every=every, depth=0)
            event = msgspec.convert(data, kind)  # it is one that the version itself accepts
            envelope = Envelope(
                id=f"{writer}/{ID}",
                type=name,
                source=writer,
                time=TIME,
                specversion="1.0",
                subject=f"{kind.AGGREGATE}/{ID}",
                data=to_raw(data if every else event),
            )
            lines.append({"subject": subject, "envelope": json.loads(encode(envelope))})
    return lines


def _struct(info: Any, *, every: bool, depth: int) -> dict[str, Any]:
    wanted = [field for field in info.fields if field.required or (every and depth < DEPTH)]
    return {field.encode_name: _value(field.type, every=every, depth=depth + 1) for field in wanted}


def _value(info: Any, *, every: bool, depth: int) -> Any:
    match info:
        case inspect.StructType():
            return _struct(info, every=every, depth=depth)
        case inspect.UnionType():
            there = [one for one in info.types if not isinstance(one, inspect.NoneType)]
            return _value(there[0], every=every, depth=depth)
        case inspect.LiteralType():
            return info.values[-1]
        case inspect.EnumType():
            return list(info.cls)[-1].value
        case inspect.StrType():
            return "text"
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return 7
        case inspect.FloatType():
            return 1.5
        case inspect.BytesType():
            return "AAEC"
        case inspect.VarTupleType() | inspect.ListType():
            return [_value(info.item_type, every=every, depth=depth)] if every else []
        case inspect.TupleType():
            return [_value(each, every=every, depth=depth) for each in info.item_types]
        case inspect.DictType():
            return {"key": _value(info.value_type, every=every, depth=depth)} if every else {}
        case inspect.AnyType() | inspect.RawType():
            return {"key": "value"}
    raise TypeError(f"no value for {info!r}")


def recorded_of(lines: Sequence[Line]) -> list[Recorded]:
    """The lines as a reader of ``EVENTS`` has them."""
    return [
        record(sequence=number, subject=line["subject"], payload=json.dumps(line["envelope"]).encode())
        for number, line in enumerate(lines, start=1)
    ]


def summary(events: Sequence[Recorded]) -> dict[str, Any]:
    """What hub and agents make of ``events``: the facts that no version may read otherwise."""
    return {"hub": _hub(events), "sites": {site: _site(site, events) for site in ("north", "south")}}


def _hub(events: Sequence[Recorded]) -> dict[str, Any]:
    state = Projections()
    state.apply(events)
    return {
        "stopped": len(state.stopped),
        "apps": {
            "/".join(key): [
                row.state,
                row.url,
                {name: one.state for name, one in sorted(row.services.items())},
                {name: one.state for name, one in sorted(row.data_services.items())},
            ]
            for key, row in sorted(state.apps.rows.items())
        },
        "operations": {
            "/".join(key): [
                whole.accepted.kind,
                whole.state,
                whole.cleanup,
                whole.problem.code if whole.problem else None,
                {name: one.status for name, one in sorted(whole.steps.items())},
                row.created_at,
                row.ended_at,
            ]
            for key, row in sorted(state.operations.rows.items())
            for whole in (state.operations.whole(row),)
        },
        "rejected": {
            "/".join(key): row.rejected.problem.code
            for key, row in sorted(state.operations.commands.items())
            if row.rejected is not None
        },
        "images": {id: state.images.state_of(id) for id in sorted(state.images.entries)},
        "copies": {"/".join(key): row.state for key, row in sorted(state.images.copies.items())},
        "locations": sorted("/".join(key) for key in state.images.locations),
        "templates": sorted(state.templates.rows),
        "brokers": sorted("/".join(key) for key in state.sites.brokers),
        "sites": dict(sorted(state.sites.states.items())),
    }


def _site(name: str, events: Sequence[Recorded]) -> dict[str, Any]:
    site = Site(name)
    for one in events:
        if one.writer == name and isinstance(one.event, Event):
            envelope = one.envelope
            site.apply(
                one.aggregate,
                one.id,
                one.event,
                time=envelope.time,
                sequence=one.sequence,
                causation=envelope.causationid,
            )
    return {
        "instances": {id: [one.name, one.state, one.url, one.cleaned] for id, one in sorted(site.instances.items())},
        "operations": {
            id: [one.state, one.phase, one.cleanup, one.live] for id, one in sorted(site.operations.items())
        },
        "copies": {id: [one.state, one.level, one.repository] for id, one in sorted(site.copies.items())},
        "images": {id: one.state for id, one in sorted(site.images.items())},
        "locations": sorted(site.locations),
        "brokers": sorted(site.brokers),
        "rejected": {id: problem.code for id, problem in sorted(site.rejected.items())},
        "sequence": site.last_sequence,
    }


def _history(seed: int) -> list[Line]:
    """What is in ``EVENTS`` after a run of the simulator."""
    from tests.simulation import run

    lines: list[Line] = []

    def keep(world: Any, client: Any) -> list[str]:
        for stored in world.events.messages:
            lines.append({"subject": stored.subject, "envelope": json.loads(stored.payload)})
        return []

    run.judge = keep  # type: ignore[attr-defined, unused-ignore]
    run.simulate(seed)
    return lines


def write_types(folder: Path, lines: Sequence[Line]) -> None:
    """Write ``types.jsonl``."""
    (folder / "types.jsonl").write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))


def _write_histories(folder: Path) -> None:
    seen: set[str] = set()
    runs = {seed: _history(seed) for seed in range(SEEDS)}
    for number in range(1, HISTORIES + 1):
        shown = {seed: {line["envelope"]["type"] for line in lines} for seed, lines in runs.items()}
        seed = max(runs, key=lambda each: (len(shown[each] - seen), -len(runs[each])))
        seen |= shown[seed]
        lines = runs.pop(seed)
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
        (folder / f"history-{number}.jsonl.xz").write_bytes(lzma.compress(text.encode(), preset=9))
        expected = json.dumps(summary(recorded_of(lines)), sort_keys=True, indent=1)
        (folder / f"expected-{number}.json").write_text(expected + "\n")
        print(f"history {number}: seed {seed}, {len(lines)} events")
    missing = sorted(set(event_types()) - seen)
    print(f"{len(seen)} types in histories; only in types.jsonl: {', '.join(missing)}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--types-only", action="store_true")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_types(folder, lines_of_types())
    if not arguments.types_only:
        _write_histories(folder)


if __name__ == "__main__":
    main()
