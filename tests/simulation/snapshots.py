"""Snapshots of the hub's projections on the simulated servers: they are torn, they rot, they are of another stream."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any

from bus.errors import unavailable
from bus.pieces import Packed, Piece, Unsound, unpack
from bus.snapshots import Found, Manifest, Mark, Snapshots
from tests.simulation.fate import Fate
from tests.simulation.loop import Process, SimLoop
from tests.simulation.streams import Stream


class SnapshotDisk:
    """What the servers keep: generation -> parts, and its manifest when they were all there."""

    def __init__(self) -> None:
        self.parts: dict[int, list[bytes]] = {}
        self.manifests: dict[int, Manifest] = {}
        self.written = 0
        self.started = 0


class SimSnapshots(Snapshots):
    """The promises of ``bus.snapshots.Snapshots`` for one process."""

    def __init__(self, loop: SimLoop, fate: Fate, process: Process, disk: SnapshotDisk, events: Stream) -> None:
        self._loop = loop
        self._fate = fate
        self._process = process
        self._disk = disk
        self._events = events

    async def open(self) -> None:
        """It is there."""

    async def all(self) -> list[Found]:
        """All generations, newest first."""
        await self._reach()
        return [self._one(generation) for generation in sorted(self._disk.parts, reverse=True)]

    async def pieces(self, manifest: Manifest) -> Iterator[Piece]:
        """The pieces of a snapshot whose bytes are what its manifest says."""
        await self._reach()
        parts = self._disk.parts[manifest.generation]
        if len(parts) < manifest.parts:
            raise Unsound("torn", f"a part of snapshot {manifest.generation} is missing")
        if hashlib.sha256(b"".join(parts)).hexdigest() != manifest.sha256:
            raise Unsound("corrupt", f"the bytes of snapshot {manifest.generation} are not those that were written")
        return unpack(parts, generation=manifest.generation)

    async def write(
        self, packed: Packed, *, make: str, by: str, written_at: str, mark: Mark, taken: dict[str, int]
    ) -> Manifest:
        """Store a new generation; in some runs its process dies amid, or the disk rots."""
        await self._reach()
        generation = max(self._disk.parts, default=0) + 1
        self._disk.parts[generation] = []
        if self._fate.strikes(self._fate.profile.store * 4):
            self._fate.trace.hit("snapshot torn", "write", who=self._process.name)
            self._process.on_fuse()
        await self._reach()
        self._disk.parts[generation] = list(packed.parts)
        await self._reach()
        manifest = self._disk.manifests[generation] = Manifest(
            generation=generation,
            make=make,
            by=by,
            written_at=written_at,
            mark=mark,
            taken=taken,
            parts=len(packed.parts),
            size=packed.size,
            plain_size=packed.plain_size,
            sha256=packed.sha256,
            state_sha256=packed.state_sha256,
        )
        self._disk.written += 1
        self._fate.trace.note(self._process.name, "wrote snapshot", generation, "of event", mark.sequence)
        if self._fate.strikes(self._fate.profile.store * 8):
            self._fate.trace.hit("snapshot rotten", "disk", who=self._process.name)
            first = bytearray(packed.parts[0])
            first[self._fate.faults.randrange(len(first))] ^= 1 << self._fate.faults.randrange(8)
            self._disk.parts[generation][0] = bytes(first)
        return manifest

    async def drop(self, generation: int) -> None:
        """Remove a generation."""
        await self._reach()
        self._disk.manifests.pop(generation, None)
        self._disk.parts.pop(generation, None)

    async def mark(self, stream: str, sequence: int) -> Mark | None:
        """The mark of the event at ``sequence``."""
        await self._reach()
        if not 0 < sequence <= len(self._events.messages):
            return None
        stored = self._events.messages[sequence - 1]
        return Mark(sequence=sequence, stored_at=f"{stored.at:.9f}", subject=stored.subject, id=stored.id)

    def _one(self, generation: int) -> Found:
        manifest = self._disk.manifests.get(generation)
        if manifest is None:
            return Found(generation, None, Unsound("torn", f"snapshot {generation} has no manifest"))
        return Found(generation, manifest)

    async def _reach(self) -> None:
        await asyncio.sleep(self._fate.delay())
        self._process.check()
        if self._process.cut_off:
            raise unavailable("SNAPSHOTS", "the server is not reached")


class SimJetStream:
    """What the snapshotter asks about ``EVENTS``."""

    def __init__(self, fate: Fate, process: Process, events: Stream) -> None:
        self._fate = fate
        self._process = process
        self._events = events

    async def last_sequence(self, _stream: str) -> int:
        """The last event stored now."""
        await asyncio.sleep(self._fate.delay())
        self._process.check()
        return len(self._events.messages)

    async def stream(self, _stream: str) -> dict[str, Any]:
        """When it was made: it is the same stream for the whole run."""
        await asyncio.sleep(self._fate.delay())
        self._process.check()
        return {"created": "2026-01-01T00:00:00Z"}
