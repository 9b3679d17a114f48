"""The upkeep of the hub itself, for operators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from bus.connection import Bus, Message
from hub.client.asking import Asking
from schemas import queries, subjects
from schemas.envelope import decode, unwrap
from schemas.ids import new_id
from schemas.signals import Progress
from schemas.upkeep import (
    RebuildEvents,
    RebuildQuery,
    RebuildView,
    SnapshotPlace,
    SnapshotsQuery,
    SnapshotsView,
    TakeSnapshot,
    VerificationView,
    VerifyReplay,
)

T = TypeVar("T", bound=queries.View)

SNAPSHOT_SECONDS = 60.0
VERIFY_SECONDS = 3600.0


class UpkeepVerbs(Asking):
    """Snapshots, and whether the hub knows what a replay of its events makes."""

    _bus: Bus
    _principal: str

    async def snapshots(self) -> tuple[SnapshotPlace, ...]:
        """The snapshots that lie at the hub, newest first, with what is wrong with them."""
        subject = subjects.query("snapshots")
        view = await self._ask_on(subject, SnapshotsQuery(), SnapshotsView, seconds=SNAPSHOT_SECONDS)
        return view.snapshots

    async def write_snapshot(self) -> SnapshotPlace:
        """Have a snapshot written now. Raises as all verbs do; ``busy`` when others write too."""
        (written,) = (await self._do("snapshot", TakeSnapshot(), SnapshotsView, seconds=SNAPSHOT_SECONDS)).snapshots
        return written

    async def verify_replay(
        self, *, timeout: float | None = None, observer: Callable[[Progress], None] | None = None
    ) -> VerificationView:
        """Have what the hub knows compared with a replay of its events from zero; ``observer`` is told how far it is.

        Raises as all verbs do; ``busy`` when the hub verifies already.
        """
        id = new_id()

        async def heard(message: Message) -> None:
            if observer is not None:
                observer(unwrap(decode(message.payload), Progress))

        listening = await self._bus.subscribe(subjects.progress(site=subjects.HUB, operation=id), heard)
        try:
            return await self._do("verify", VerifyReplay(id=id), VerificationView, seconds=timeout or VERIFY_SECONDS)
        finally:
            await asyncio.shield(listening.drop())

    async def rebuild_events(self, *, sites: Sequence[str] = (), command: str | None = None) -> RebuildView:
        """Have the hub's ``EVENTS`` deleted and made anew; the hub is away for that time. :meth:`rebuild` says how far
        it is. The events of ``sites``, which have to be online, are sent by them again."""
        data = RebuildEvents(id=command or new_id(), sites=tuple(sites))
        return await self._do("rebuild_events", data, RebuildView, seconds=SNAPSHOT_SECONDS)

    async def rebuild(self) -> RebuildView:
        """The last rebuilding of ``EVENTS``."""
        return await self._ask_on(subjects.query("rebuild"), RebuildQuery(), RebuildView, seconds=5.0)

    async def _do(self, what: str, data: queries.Query, reply: type[T], *, seconds: float) -> T:
        subject = subjects.act(principal=self._principal, what=what)
        return await self._ask_on(subject, data, reply, seconds=seconds, give_up="busy")
