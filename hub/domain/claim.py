"""The claim aggregate: a name belongs to at most one owner per team and kind."""

from __future__ import annotations

from schemas.base import Fact
from schemas.events import ClaimReleased, ClaimTaken, Event


class ClaimState(Fact, frozen=True, kw_only=True):
    """Whose the name is; ``None`` when it is free."""

    owner: str | None = None


def evolve(state: ClaimState, event: Event) -> ClaimState:
    """The state after ``event``."""
    match event:
        case ClaimTaken(owner=owner):
            return ClaimState(owner=owner)
        case ClaimReleased(owner=owner) if state.owner == owner:
            return ClaimState()
    return state


def release(state: ClaimState, owner: str) -> list[Event]:
    """Free the name if it is ``owner``'s."""
    return [ClaimReleased(owner=owner)] if state.owner == owner else []
