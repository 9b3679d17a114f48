"""Where the projections begin: from the newest snapshot that is sound, and of this very ``EVENTS``; and writing them.

A snapshot only saves time. Whatever is wrong with one is logged and counted, and an older one is taken, or none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from bus.jetstream import JetStream
from bus.pieces import Packed, Unsound, pack
from bus.snapshots import Contended, Found, Manifest, Mark, Snapshots
from bus.streams import EVENTS
from hub.application.made_by import make_of_state
from hub.application.projector import Begin, Place, Projector
from hub.projections.dump import load_pieces
from hub.projections.moving import MovingDump
from hub.projections.state import Projections
from schemas.envelope import timestamp
from schemas.problems import CalqueError, conflict, temporary
from schemas.unreadable import UNREADABLE

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
START_SECONDS = 60.0
GAP_SECONDS = 10.0
GAP_TIMES = 20
"""A snapshot that took a second is not followed by another for 20 s."""
ROWS_AT_ONCE = 200
MOST_ROUNDS = 500
"""Rows that change while a snapshot is written are written again, so many at once, until so few are left."""
AFTER_FAILURE_SECONDS = 60.0


class Policy(NamedTuple):
    """When snapshots are written - after so many events, or so many seconds if there was any - and how many stay."""

    events: int = 20_000
    seconds: float = 3600.0
    keep: int = 3


class Condition(NamedTuple):
    """A generation as it is judged: ``wrong`` is empty for one that the hub would start from."""

    found: Found
    reason: str = ""
    wrong: str = ""


class Snapshotter:
    """Starts the projections, and writes their snapshots. Several hubs may do so at once.

    For metrics: ``last`` is the newest snapshot that this hub knows of; ``written`` counts its own, ``held_seconds`` is
    for how long the last one kept events from being taken in, ``started_from`` the sequence that it started from, 0 for
    the beginning. ``failures`` counts by reason: ``torn``, ``corrupt``, ``other_make``, ``ahead`` and ``foreign`` are
    snapshots that were passed over at the start, ``read`` and ``write`` work that failed, ``different`` a replay that
    made something else.
    """

    def __init__(
        self,
        store: Snapshots,
        js: JetStream,
        *,
        name: str,
        clock: Callable[[], datetime],
        policy: Policy = Policy(),
        make: str | None = None,
    ) -> None:
        self._store = store
        self._js = js
        self._name = name
        self._clock = clock
        self._policy = policy
        self._make = make or make_of_state()
        self._created = ""
        self._bad: dict[int, tuple[str, str]] = {}
        self._one_by_one = asyncio.Lock()
        self._distrusted = False
        self.last: Manifest | None = None
        self.written = 0
        self.failures: Counter[str] = Counter()
        self.held_seconds = 0.0
        self._seconds = 0.0
        self.started_from = 0

    # --- starting

    async def start(self) -> Begin:
        """The state to begin with, and its last event. Never raises for what is wrong with snapshots."""
        try:
            async with asyncio.timeout(START_SECONDS):
                self._created = await self._creation()
                for condition in await self.conditions():
                    manifest = condition.found.manifest
                    if condition.wrong or manifest is None:
                        self._refuse(condition)
                        continue
                    state = await self._load(manifest)
                    if state is not None:
                        return Begin(state, Place(manifest.mark.sequence, manifest.mark.id))
        except (CalqueError, TimeoutError) as error:
            self.failures["read"] += 1
            logger.warning("snapshots can't be read, all events are: %s", error or "no answer in time")
        return Begin(Projections(), None)

    async def _load(self, manifest: Manifest) -> Projections | None:
        began = time.monotonic()
        try:
            pieces = await self._store.pieces(manifest)
            state = await asyncio.to_thread(load_pieces, pieces)
            if state.taken != manifest.taken:
                raise Unsound("corrupt", f"snapshot {manifest.generation} holds other events than its manifest says")
        except (Unsound, *UNREADABLE) as error:
            reason = error.reason if isinstance(error, Unsound) else "corrupt"
            self._bad[manifest.generation] = reason, f"snapshot {manifest.generation} can't be read: {error}"
            self.failures[reason] += 1
            logger.warning("snapshot %d can't be read: %s: it is passed over", manifest.generation, error)
            return None
        state.position = self.started_from = manifest.mark.sequence
        self.last = manifest
        logger.info(
            "start from snapshot %d at event %d: %d events, %d bytes, read in %.2f s",
            manifest.generation,
            manifest.mark.sequence,
            state.events,
            manifest.plain_size,
            time.monotonic() - began,
        )
        return state

    def _refuse(self, condition: Condition) -> None:
        self.failures[condition.reason] += 1
        logger.warning("%s: it is passed over", condition.wrong)

    async def conditions(self) -> list[Condition]:
        """All generations, newest first, and what is wrong with each as far as it shows without reading it whole."""
        found = await self._store.all()
        last = await self._js.last_sequence(EVENTS) if found else 0
        return [await self._condition(each, last=last) for each in found]

    async def _condition(self, found: Found, *, last: int) -> Condition:
        if found.unsound is not None or found.manifest is None:
            unsound = found.unsound or Unsound("torn", f"snapshot {found.generation} has no manifest")
            return Condition(found, unsound.reason, str(unsound))
        name, mark = f"snapshot {found.generation}", found.manifest.mark
        if found.manifest.make != self._make:
            return Condition(found, "other_make", f"{name} was made by {found.manifest.make}, this is {self._make}")
        if found.generation in self._bad:
            return Condition(found, *self._bad[found.generation])
        if mark.sequence > last:
            return Condition(found, "ahead", f"{name} is of event {mark.sequence}, and {EVENTS} ends with {last}")
        if await self._store.mark(EVENTS, mark.sequence) != mark:
            return Condition(found, "foreign", f"{name} is of another {EVENTS}: event {mark.sequence} is not the same")
        return Condition(found)

    async def checked(self) -> list[Condition]:
        """The same, with every byte read."""
        found = []
        for condition in await self.conditions():
            if not condition.wrong and condition.found.manifest is not None:
                try:
                    await self._store.pieces(condition.found.manifest)
                except Unsound as error:
                    condition = Condition(condition.found, error.reason, str(error))
            found.append(condition)
        return found

    # --- writing

    async def run(self, projector: Projector) -> None:
        """Write snapshots when it is time, for ever."""
        last_at, not_before = time.monotonic(), 0.0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = time.monotonic()
            if self._distrusted or now < not_before or not self._due(projector.state, seconds=now - last_at):
                continue
            try:
                if not await self._others_did(projector.state):
                    await self.take(projector)
                last_at = time.monotonic()
                not_before = last_at + max(GAP_SECONDS, GAP_TIMES * self._seconds)
            except Contended:
                not_before = now + GAP_SECONDS
            except Exception as error:
                # Snapshots only save time: the hub does not stop for one, whatever is wrong.
                self.failures["write"] += 1
                not_before = now + AFTER_FAILURE_SECONDS
                if isinstance(error, CalqueError):
                    logger.warning("no snapshot was written: %s", error)
                else:
                    logger.exception("no snapshot was written")

    def _due(self, state: Projections, *, seconds: float) -> bool:
        since = state.events - (sum(self.last.taken.values()) if self.last is not None else 0)
        return since >= self._policy.events or (since > 0 and seconds >= self._policy.seconds)

    async def _others_did(self, state: Projections) -> bool:
        """Whether another hub wrote one that is new enough."""
        before = self.last.generation if self.last is not None else 0
        for condition in await self.conditions():
            manifest = condition.found.manifest
            if manifest is not None and not condition.wrong:
                self.last = manifest
                return manifest.generation > before and not self._due(state, seconds=0.0)
        return False

    async def take(self, projector: Projector) -> Manifest:
        """Write a snapshot of the present state, and drop those that are not needed any more.

        Raises :class:`Contended`, :class:`CalqueError`, and ``OverflowError`` for what can't be dumped.
        """
        async with self._one_by_one:
            began = time.monotonic()
            packed, place, taken = await self._packed(projector)
            self._seconds = time.monotonic() - began
            self.last = await self._store.write(
                packed,
                make=self._make,
                by=self._name,
                written_at=timestamp(self._clock()),
                mark=await self._mark(place),
                taken=taken,
            )
            self.written += 1
            logger.info(
                "wrote snapshot %d at event %d: %d bytes, %.3f s",
                self.last.generation,
                place.sequence,
                packed.size,
                time.monotonic() - began,
            )
            await self._drop_old()
            return self.last

    async def _packed(self, projector: Projector) -> tuple[Packed, Place, dict[str, int]]:
        """What is known now; the last event in it, and how many of each writer are."""
        async with projector.held() as (state, place):
            if place is None:
                raise CalqueError(conflict("events", "there are no events yet", "nothing needs a snapshot"))
            began = time.monotonic()
            moving = MovingDump(state)
            held = time.monotonic() - began
        try:
            await asyncio.to_thread(moving.write)
            for _ in range(MOST_ROUNDS):
                if moving.write_changed(most=ROWS_AT_ONCE) < ROWS_AT_ONCE:
                    break
                await asyncio.sleep(0)
            async with projector.held() as (_, last):
                began = time.monotonic()
                moving.finish()
                taken = dict(state.taken)
                self.held_seconds = held + time.monotonic() - began
            return await asyncio.to_thread(pack, moving.pieces()), last or place, taken
        finally:
            moving.close()

    async def distrust(self, generation: int) -> None:
        """Drop this generation and all before it, and write no others: what this hub knows is not what was told."""
        self.failures["different"] += 1
        self._distrusted = True
        for found in await self._store.all():
            if found.generation <= generation:
                await self._store.drop(found.generation)

    async def _mark(self, place: Place) -> Mark:
        """The mark of the last event taken in, once it is sure that ``EVENTS`` is still what was read."""
        mark = await self._store.mark(EVENTS, place.sequence)
        if mark is None or mark.id != place.id or await self._creation() != self._created:
            raise CalqueError(temporary("events_replaced", f"{EVENTS} is not the stream that was read any more"))
        return mark

    async def _creation(self) -> str:
        info = await self._js.stream(EVENTS)
        return str(info["created"]) if info is not None else ""

    async def _drop_old(self) -> None:
        """Keep the newest sound ones; what is older than those goes, whatever it is, and so do remains."""
        conditions = await self.conditions()
        sound = [each.found.generation for each in conditions if not each.wrong]
        oldest = sound[: self._policy.keep][-1] if sound else 0
        for condition in conditions:
            generation = condition.found.generation
            # One that is being written by another hub is newer than the newest that is whole.
            if generation < oldest or (condition.reason in ("torn", "corrupt", "foreign") and generation < sound[0]):
                await self._store.drop(generation)
