"""What an operator has the hub do for itself: snapshots, and a replay beside it that checks what it knows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime

import msgspec

from bus.connection import Bus
from bus.rebuilding import Rebuild, Rebuilding
from bus.snapshots import Contended, Manifest
from bus.streams import EVENTS
from hub.application.projector import Projector
from hub.application.snapshots import Condition, Snapshotter
from hub.domain.received import check_id
from hub.replaying import Told
from hub.settings import HubSettings
from schemas.envelope import Envelope, timestamp, wrap
from schemas.ids import new_id
from schemas.names import is_token
from schemas.problems import CalqueError, conflict, invalid, temporary
from schemas.signals import Progress
from schemas.subjects import HUB, principal_of, progress
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

logger = logging.getLogger(__name__)

VERIFY_SECONDS = 3600.0
WAIT_SECONDS = 5.0


class Upkeep:
    """One method per query and act. Each raises :class:`CalqueError` with the problem that the caller gets."""

    def __init__(
        self,
        bus: Bus,
        settings: HubSettings,
        snapshotter: Snapshotter,
        projector: Projector,
        *,
        restart: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._snapshotter = snapshotter
        self._projector = projector
        self._restart = restart
        self._rebuilding = Rebuilding(bus, run=new_id())
        self._verifying = asyncio.Lock()

    async def snapshots(self, _query: SnapshotsQuery, _envelope: Envelope) -> SnapshotsView:
        """``snapshots``"""
        return SnapshotsView(snapshots=tuple(_place(each) for each in await self._snapshotter.checked()))

    async def snapshot(self, _request: TakeSnapshot, _envelope: Envelope, _subject: str) -> SnapshotsView:
        """``snapshot``"""
        return SnapshotsView(snapshots=(_described(await self._taken()),))

    async def verify(self, request: VerifyReplay, _envelope: Envelope, _subject: str) -> VerificationView:
        """``verify``"""
        if not is_token(request.id):
            raise CalqueError(invalid("id", f"{request.id!r} can't stand in a subject", "use a UUID"))
        if self._verifying.locked():
            raise CalqueError(temporary("busy", "this hub verifies already", retry_after_seconds=WAIT_SECONDS))
        async with self._verifying, asyncio.timeout(VERIFY_SECONDS):
            manifest = await self._taken()
            found: VerificationView | None = None
            async for told in self._replay(manifest.generation):
                await self._progress(request.id, told)
                found = told.outcome or found
            if found is None:
                raise CalqueError(temporary("replay_failed", "the replay beside the hub did not come to its end"))
        if not found.same:
            rows = ", ".join(f"{each.table} {each.key}" for each in found.differences)
            logger.error("at event %d the projections are not what a replay makes: %s", found.position, rows)
            await self._snapshotter.distrust(found.generation)
        return found

    async def rebuild_events(self, request: RebuildEvents, _envelope: Envelope, subject: str) -> RebuildView:
        """``rebuild_events``: written down, and done by the next start of this hub or another."""
        if problem := check_id(request.id, field="id"):
            raise CalqueError(problem)
        states = self._projector.state.sites.states
        for site in request.sites:
            if states.get(site) != "online":
                message = f"site {site!r} is {states.get(site, 'not known')}: it can't send its events again now"
                raise CalqueError(conflict("sites", message, "leave it out: what the hub has of it stays"))
        wanted = await self._rebuilding.request(id=request.id, by=principal_of(subject), sites=request.sites)
        self._restart(f"{EVENTS} is made anew")
        return _rebuild(wanted)

    async def rebuild(self, _query: RebuildQuery, _envelope: Envelope) -> RebuildView:
        """``rebuild``"""
        state = await self._rebuilding.state()
        return RebuildView() if state is None else _rebuild(state)

    async def _taken(self) -> Manifest:
        try:
            return await self._snapshotter.take(self._projector)
        except Contended as error:
            raise CalqueError(temporary("busy", str(error), retry_after_seconds=WAIT_SECONDS)) from None

    async def _replay(self, generation: int) -> AsyncGenerator[Told, None]:
        """What the process beside says, until it ends."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "hub.replaying", str(generation)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(self._settings.model_dump_json().encode())
            process.stdin.close()
            while line := await process.stdout.readline():
                yield msgspec.json.decode(line, type=Told)
            if code := await process.wait():
                logger.warning("the replay beside the hub ended with exit code %d", code)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _progress(self, id: str, told: Told) -> None:
        data = Progress(operation=id, step="replay", part="events", done=told.read, total=told.of)
        now = timestamp(datetime.now(UTC))
        try:
            await self._bus.publish(progress(site=HUB, operation=id), wrap(data, id=new_id(), source=HUB, time=now))
        except CalqueError as error:
            logger.debug("no progress: %s", error)


def _rebuild(state: Rebuild) -> RebuildView:
    return RebuildView(
        id=state.id,
        state="done" if state.phase == "done" else "working" if state.run else "wanted",
        by=state.by,
        at=state.at,
        sites=state.sites,
        before=state.before,
        after=state.after,
        consumers=state.consumers,
    )


def _place(condition: Condition) -> SnapshotPlace:
    manifest = condition.found.manifest
    if manifest is None:
        return SnapshotPlace(generation=condition.found.generation, reason=condition.reason, wrong=condition.wrong)
    return msgspec.structs.replace(_described(manifest), reason=condition.reason, wrong=condition.wrong)


def _described(manifest: Manifest) -> SnapshotPlace:
    return SnapshotPlace(
        generation=manifest.generation,
        position=manifest.mark.sequence,
        taken=manifest.taken,
        written_at=manifest.written_at,
        by=manifest.by,
        make=manifest.make,
        size=manifest.size,
        plain_size=manifest.plain_size,
        sha256=manifest.state_sha256,
    )
