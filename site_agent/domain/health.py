"""What the health of its parts means for an instance: running or degraded."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from schemas import events as ev
from site_agent.domain import instance as instances
from site_agent.domain.instance import Instance
from site_agent.domain.site import Draft, Site

Change = tuple[str, ev.ServiceHealthChanged | ev.DataServiceHealthChanged]
"""An instance, and what changed about the health of one of its parts."""

_WATCHED = ("running", "degraded")


def moved(instance: Instance) -> bool:
    """Whether the state of the instance does not say what the health of its parts says."""
    return (instance.state == "running") == bool(instance.ill)


def verdicts(site: Site, changed: Iterable[Change], *, seen_well: Collection[str] = ()) -> list[Draft]:
    """The changes, and what they make of the instances that nothing works on.

    Only what was ``seen_well`` is said to be running again: an operation that failed may have stopped a part of which
    nothing ill is on record yet.
    """
    drafts: list[Draft] = []
    after = {one.id: one for one in site.instances.values() if one.state in _WATCHED and site.busy(one.id) is None}
    for id, event in changed:
        if id in after and (now := instances.evolve(after[id], id, event)) is not None:
            drafts.append(Draft("instance", id, event))
            after[id] = now
    for instance in after.values():
        if moved(instance) and instance.ill:
            words = "; ".join(f"{name}: {message or 'not healthy'}" for name, message in instance.ill.items())
            drafts.append(Draft("instance", instance.id, ev.InstanceDegraded(message=words)))
        elif moved(instance) and instance.id in seen_well:
            drafts.append(Draft("instance", instance.id, ev.InstanceRunning(url=instance.url)))
    return drafts
