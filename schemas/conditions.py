"""How a hub is, as it sees itself: who reads its streams, and what it has made of them. For people, not for programs
to decide by."""

from __future__ import annotations

from schemas.base import Fact
from schemas.questions import Query, View
from schemas.registry import message


class ConsumerView(Fact, frozen=True, kw_only=True):
    """A durable consumer. ``stalled_seconds`` is for how long it has had work and acknowledged nothing, as far as this
    hub has looked."""

    stream: str
    name: str
    pending: int
    unacknowledged: int
    stalled_seconds: float = 0.0


@message("query.condition")
class ConditionQuery(Query, frozen=True, kw_only=True):
    """How the hub is that answers."""


@message("view.condition")
class ConditionView(View, frozen=True, kw_only=True):
    """``behind`` is how many events of ``EVENTS`` are not in the tables, ``behind_seconds`` for how long.
    ``snapshot_at`` is when the newest snapshot was written, empty without one; ``snapshot_failures`` are counted by
    reason since the hub's start.
    """

    hub: str
    position: int
    behind: int
    behind_seconds: float = 0.0
    events: int = 0
    consumers: tuple[ConsumerView, ...] = ()
    snapshot_at: str = ""
    snapshot_position: int = 0
    snapshot_failures: dict[str, int] = {}
