"""The membership of a site: what its heartbeats, or their absence, say. Events are written on change only."""

from __future__ import annotations

from schemas.events import Event, SiteJoined, SiteOffline, SiteOnline, SiteStale
from schemas.values import SiteState

STALE_AFTER_SECONDS = 10.0
OFFLINE_AFTER_SECONDS = 60.0


def evolve(state: SiteState | None, event: Event) -> SiteState | None:
    """The state after ``event``; ``None`` for a site that was never heard of."""
    match event:
        case SiteJoined():
            return "joining"
        case SiteOnline():
            return "online"
        case SiteStale():
            return "stale"
        case SiteOffline():
            return "offline"
    return state


def decide(state: SiteState | None, *, heard: bool, silence_seconds: float) -> list[Event]:
    """What has changed. ``silence_seconds`` counts from the last heartbeat or, when this hub has not ``heard`` one
    yet, from its own start: a hub that was away knows nothing about the time before."""
    if heard and silence_seconds < STALE_AFTER_SECONDS:
        if state is None:
            return [SiteJoined(), SiteOnline()]
        return [] if state in ("online", "retired") else [SiteOnline()]
    if silence_seconds >= OFFLINE_AFTER_SECONDS:
        return [SiteOffline()] if state in ("joining", "online", "stale") else []
    if silence_seconds >= STALE_AFTER_SECONDS:
        return [SiteStale()] if state in ("joining", "online") else []
    return []
