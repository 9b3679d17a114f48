"""A replay of ``EVENTS`` from zero in a process of its own, compared with a snapshot that the hub has just written.

``python -m hub.replaying GENERATION`` reads the hub's settings from stdin, and tells on stdout, one JSON document per
line, how far it is and at last what came of it. So neither the hub's loop nor its memory is burdened with it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

import msgspec

from bus.connection import Bus
from bus.feed import EventsFeed
from bus.pieces import digest_of
from bus.snapshots import Manifest, Snapshots
from bus.streams import EVENTS
from hub.projections.dump import differences, dump_lines
from hub.projections.quick import QuickFold, no_collection
from hub.projections.state import Projections
from hub.settings import HubSettings
from schemas.base import Fact
from schemas.upkeep import RowDifference, VerificationView

CONNECT_SECONDS = 30.0
TELL_SECONDS = 0.5
CUT = 2000
MOST = 20


class Told(Fact, frozen=True, kw_only=True):
    """One line of what this process says."""

    read: int = 0
    of: int = 0
    outcome: VerificationView | None = None


async def compare(bus: Bus, generation: int) -> None:
    """Replay up to the event that the snapshot ends with, and tell what differs."""
    began = time.monotonic()
    store = Snapshots(bus)
    manifest = next(
        (each.manifest for each in await store.all() if each.generation == generation and each.manifest is not None),
        None,
    )
    if manifest is None:
        raise SystemExit(f"there is no snapshot {generation}")
    state = await _replayed(bus, manifest)
    lines = list(dump_lines(state))
    digest = digest_of(lines)
    same = digest == manifest.state_sha256
    found = [] if same else differences([piece.plain() for piece in await store.pieces(manifest)], lines, most=MOST)
    _tell(
        Told(
            read=manifest.mark.sequence,
            of=manifest.mark.sequence,
            outcome=VerificationView(
                same=same,
                position=manifest.mark.sequence,
                events=state.events,
                generation=generation,
                sha256=manifest.state_sha256,
                replayed_sha256=digest,
                seconds=round(time.monotonic() - began, 3),
                differences=tuple(
                    RowDifference(table=each.table, key=each.key, live=_cut(each.one), replayed=_cut(each.other))
                    for each in found
                ),
            ),
        )
    )


async def _replayed(bus: Bus, manifest: Manifest) -> Projections:
    state, last = Projections(), manifest.mark.sequence
    told = time.monotonic()
    feed = EventsFeed(bus, stream=EVENTS)
    fold = QuickFold(state)
    with no_collection():
        await feed.drain(fold.take, after=0, until=last)
    if feed.position >= last:
        return state
    batches = feed.read(after=feed.position)
    try:
        async for batch in batches:
            state.apply(each for each in batch if each.sequence <= last)
            if feed.position >= last:
                return state
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                _tell(Told(read=feed.position, of=last))
    finally:
        await batches.aclose()
    return state


def _cut(row: str | None) -> str | None:
    return row if row is None or len(row) <= CUT else row[:CUT] + "..."


def _tell(told: Told) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
    sys.stdout.flush()


async def _run(settings: HubSettings, generation: int) -> None:
    bus = await Bus.connect(settings.bus.connection(), deadline_seconds=CONNECT_SECONDS)
    try:
        await compare(bus, generation)
    finally:
        await bus.close()


def main() -> None:
    """Compare once; exit code 0 when it came to its end, whatever it found."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    settings = HubSettings.model_validate_json(sys.stdin.buffer.read())
    asyncio.run(_run(settings, int(sys.argv[1])))


if __name__ == "__main__":
    main()
