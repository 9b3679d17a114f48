"""Judges what hubs and agents know at the end: it is what a replay of the streams from zero comes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from bus.records import Recorded
from hub.projections.dump import dump_lines
from hub.projections.state import Projections
from schemas import events as ev
from site_agent.domain.site import Site
from tests.simulation.world import World

NOT_STATE = frozenset({("images", "changed_copies")})
"""What a table notes for its own upkeep."""
OF_SEVERAL_SITES = frozenset({("images", "by_copy"), ("apps", "by_name"), ("apps", "by_id")})
"""Indexes whose entries are of several writers: the order between those is not defined, and a snapshot's is another."""


def streams(world: World, events: list[Recorded]) -> Iterator[str]:
    for writer, stream in world.own.items():
        own = [one.id for one in stream.messages]
        if own != [each.envelope.id for each in events if each.writer == writer]:
            yield f"EVENTS does not tell what {stream.name} holds"
        if len(set(own)) != len(own):
            yield f"{stream.name} holds an event twice"


def projections(world: World, events: list[Recorded]) -> Iterator[str]:
    """What a hub knows against a replay from zero."""
    fresh = Projections()
    fresh.apply(each for each in events if each.refused is None)
    fresh.position = events[-1].sequence if events else 0
    wanted, canonical = _tables(fresh), bytes_of(fresh)
    for hub in world.living_hubs():
        if hub.context is None:
            continue
        if bytes_of(hub.context.state) != canonical:
            yield f"{hub.name} would dump other bytes than a replay"
        live = _tables(hub.context.state)
        for table, content in wanted.items():
            if live[table] != content:
                yield f"{hub.name} shows other {table} than a replay: {_difference(live[table], content)}"


def strange(events: list[Recorded], everything: list[Recorded]) -> Iterator[str]:
    """What sites forged, and what nobody knows yet, changes nothing of all the rest."""
    if len(events) == len(everything):
        return
    without, accepted = Projections(), Projections()
    without.apply(events)
    accepted.apply(each for each in everything if each.refused is None)
    wanted, found = _tables(without), _tables(accepted)
    for table, content in wanted.items():
        if table not in ("stopped", "position") and found[table] != content:
            yield f"forged events change {table}: {_difference(found[table], content)}"


def bytes_of(state: Projections) -> bytes:
    """The dump that a snapshot would hold: it is the same whatever a hub started from."""
    return b"".join(dump_lines(state))


def _tables(state: Projections) -> dict[str, Any]:
    found: dict[str, Any] = {"stopped": state.stopped, "position": state.position}
    for name in ("templates", "apps", "images", "operations", "sites"):
        for table, content in vars(getattr(state, name)).items():
            if (name, table) in OF_SEVERAL_SITES:
                found[f"{name}.{table}"] = {key: sorted(entries) for key, entries in content.items()}
            elif (name, table) not in NOT_STATE and not table.startswith("_"):
                found[f"{name}.{table}"] = content
    return found


def _difference(live: Any, wanted: Any) -> str:
    if isinstance(live, dict) and isinstance(wanted, dict):
        keys = [key for key in {**live, **wanted} if live.get(key) != wanted.get(key)]
        return "; ".join(f"{key}: {live.get(key)} / {wanted.get(key)}"[:600] for key in keys[:2])
    return f"{live} / {wanted}"[:600]


def journal(world: World, site: str) -> Iterator[str]:
    """What the agent knows against a replay of its stream."""
    known = world.agents[site].journal
    if known is None:
        return
    fresh = Site(site, policy=known.site.policy)
    for recorded in world.own[site].decoded():
        if isinstance(recorded.event, ev.Event):
            fresh.apply(
                recorded.aggregate,
                recorded.id,
                recorded.event,
                time=recorded.envelope.time,
                sequence=recorded.sequence,
                causation=recorded.envelope.causationid,
            )
    live, wanted = vars(known.site), vars(fresh)
    for name, content in wanted.items():
        if _plain(live[name]) != _plain(content):
            yield f"the agent of {site} knows other {name} than a replay: {_difference(live[name], content)}"


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, str_keys=True) if isinstance(value, msgspec.Struct) else value
