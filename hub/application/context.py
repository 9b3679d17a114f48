"""What every part of the application shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from hub.application.ports import Clock, EventLog, Outbound
from hub.application.projector import Projector
from hub.projections.state import Projections
from hub.projections.views import site_states
from schemas.problems import CalqueError, temporary
from schemas.values import SiteState, Template

TRIES = 8


@dataclass(frozen=True, kw_only=True)
class Context:
    """The hub's own stream, what it sends, what it knows, and the time."""

    events: EventLog
    outbound: Outbound
    projector: Projector
    clock: Clock
    sites: tuple[str, ...]
    applied: dict[str, Template] = field(default_factory=dict)
    """Templates that were read from the hub's stream. A version that was applied never changes."""

    @property
    def state(self) -> Projections:
        return self.projector.state

    def site_states(self) -> Mapping[str, SiteState]:
        """The state of every site that is configured or was heard of."""
        return site_states(self.state, self._joining)

    @cached_property
    def _joining(self) -> dict[str, SiteState]:
        return dict.fromkeys(self.sites, "joining")


def contended(what: str) -> CalqueError:
    """Others kept changing the same aggregate."""
    return CalqueError(temporary("contended", f"{what} is being changed by others at the same time"))
