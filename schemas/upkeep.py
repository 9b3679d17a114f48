"""The upkeep of a hub: snapshots of its projections, a replay that checks them, ``EVENTS`` made anew."""

from __future__ import annotations

from typing import Literal

from schemas.base import Fact
from schemas.questions import Query, QueryContract, View
from schemas.registry import message


@message("query.snapshots")
class SnapshotsQuery(Query, frozen=True, kw_only=True):
    """The snapshots that lie at the hub, each read and compared with its digest."""


class SnapshotPlace(Fact, frozen=True, kw_only=True):
    """A snapshot: the event that it ends with (``position`` is its sequence in ``EVENTS``), how many events of each
    writer are in it, sizes in bytes. ``wrong`` says why the hub would not start from it."""

    generation: int
    position: int = 0
    taken: dict[str, int] = {}
    written_at: str = ""
    by: str = ""
    make: str = ""
    size: int = 0
    plain_size: int = 0
    sha256: str = ""
    reason: str = ""
    wrong: str = ""


@message("view.snapshots")
class SnapshotsView(View, frozen=True, kw_only=True):
    """Newest first."""

    snapshots: tuple[SnapshotPlace, ...] = ()


@message("act.snapshot")
class TakeSnapshot(Query, frozen=True, kw_only=True):
    """Write a snapshot now. Once more is once more."""


@message("act.verify")
class VerifyReplay(Query, frozen=True, kw_only=True):
    """Compare what the hub knows with a replay of ``EVENTS`` from zero, made in a process beside it.

    The reply comes when that has ended; how far it is is told as progress of the operation ``id``.
    """

    id: str


class RowDifference(Fact, frozen=True, kw_only=True):
    """A row that differs; ``None`` where there is none. Long rows are cut."""

    table: str
    key: str
    live: str | None = None
    replayed: str | None = None


@message("view.verification")
class VerificationView(View, frozen=True, kw_only=True):
    """What came of it: at ``position`` of ``EVENTS`` the two are ``same``, byte for byte, or these rows differ."""

    same: bool
    position: int
    events: int
    generation: int
    sha256: str
    replayed_sha256: str
    seconds: float
    differences: tuple[RowDifference, ...] = ()


@message("act.rebuild_events")
class RebuildEvents(Query, frozen=True, kw_only=True):
    """Delete ``EVENTS`` and make it anew from the streams that it is sourced from; the hub starts again to do so.

    Of ``sites``, which have to be online, the hub's ``IN_<site>`` is deleted too, and the site's outbox sent again.
    Idempotent by ``id``.
    """

    id: str
    sites: tuple[str, ...] = ()


@message("query.rebuild")
class RebuildQuery(Query, frozen=True, kw_only=True):
    """How far the last rebuilding of ``EVENTS`` is."""


@message("view.rebuild")
class RebuildView(View, frozen=True, kw_only=True):
    """``before`` and ``after`` count events; ``consumers`` are the durable ones and the sequence that each begins at.

    ``id`` is empty when it was never asked for.
    """

    id: str = ""
    state: Literal["none", "wanted", "working", "done"] = "none"
    by: str = ""
    at: str = ""
    sites: tuple[str, ...] = ()
    before: int = 0
    after: int = 0
    consumers: dict[str, int] = {}


UPKEEP_QUERIES: dict[str, QueryContract] = {
    "snapshots": QueryContract(SnapshotsQuery, SnapshotsView),
    "rebuild": QueryContract(RebuildQuery, RebuildView),
}

UPKEEP_ACTS: dict[str, QueryContract] = {
    "snapshot": QueryContract(TakeSnapshot, SnapshotsView),
    "verify": QueryContract(VerifyReplay, VerificationView),
    "rebuild_events": QueryContract(RebuildEvents, RebuildView),
}
"""What an operator has a hub do for itself."""
