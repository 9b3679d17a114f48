"""Snapshots of what a reader made of a stream, kept in a stream of their own: generations of compressed parts.

    calque.snap.<generation>.begin       who writes it; stored once, so two writers never share a generation
    calque.snap.<generation>.<n>         part n of the compressed bytes, from 0
    calque.snap.<generation>.manifest    written last: what it is of, how many parts, digests

A generation without a manifest, or with other bytes than its manifest says, does not count. What a snapshot is of is
said by a :class:`Mark`: a message of the stream that was read, by its sequence *and* the moment at which the server
stored it there. A stream that was deleted and filled again, or restored from a backup and continued, has another
message at that sequence (or none), and the snapshot is not of it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from bus.connection import Bus
from bus.jetstream import IN_FLIGHT, NO_MESSAGE, WRONG_LAST_SEQUENCE, JetStream, JetStreamError
from bus.pieces import Packed, Piece, Unsound, unpack
from bus.streams import MIB, keep_stream
from schemas.base import Fact
from schemas.envelope import decode
from schemas.subjects import REBUILD, parse_snapshot, snapshot
from schemas.subjects import SNAPSHOTS as SUBJECTS
from schemas.unreadable import UNREADABLE

logger = logging.getLogger(__name__)

STREAM = "SNAPSHOTS"
STREAM_BYTES = 256 * MIB
BEGIN, MANIFEST = "begin", "manifest"
AT_ONCE = 16
ANSWER_SECONDS = 10.0
TRIES = 8


class Mark(Fact, frozen=True, kw_only=True):
    """An event of a stream: nothing else was ever stored at that sequence at that moment (RFC 3339, nanoseconds)."""

    sequence: int
    stored_at: str
    subject: str
    id: str


class Manifest(Fact, frozen=True, kw_only=True):
    """What a snapshot is of. ``make`` says what wrote and can read it; ``taken`` is the vector of its position: how
    many events of each writer are in it. ``sha256`` is of the bytes that are stored, ``state_sha256`` of what is in the
    pieces."""

    generation: int
    make: str
    by: str
    written_at: str
    mark: Mark
    taken: dict[str, int]
    parts: int
    size: int
    plain_size: int
    sha256: str
    state_sha256: str


class Sealed(Fact, frozen=True, kw_only=True):
    """A manifest as it is stored, under its own digest."""

    sha256: str
    manifest: msgspec.Raw


class Contended(Exception):
    """Others write snapshots at the same time: one is enough."""


class Found(NamedTuple):
    """A generation as it lies there: its number, and its manifest or why there is none that counts."""

    generation: int
    manifest: Manifest | None
    unsound: Unsound | None = None


class Snapshots:
    """The generations of one stream of snapshots. Every method raises :class:`CalqueError` when the bus does."""

    def __init__(self, bus: Bus, *, stream: str = STREAM) -> None:
        self._bus = bus
        self._js = JetStream(bus)
        self._stream = stream
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def open(self) -> None:
        """Make the stream, or bring it to its settings."""
        await keep_stream(
            self._js,
            {"name": self._stream, "subjects": [SUBJECTS, f"{REBUILD}.>"], "discard": "new", "max_bytes": STREAM_BYTES}
            | {"max_msgs_per_subject": 1, "allow_direct": True},
        )

    async def all(self) -> list[Found]:
        """All generations, newest first."""
        parts = await self._parts()
        return [await self._found(generation, parts[generation]) for generation in sorted(parts, reverse=True)]

    async def pieces(self, manifest: Manifest) -> Iterator[Piece]:
        """The pieces of a snapshot whose bytes are what its manifest says. Raises :class:`Unsound`."""
        names = [str(number) for number in range(manifest.parts)]
        parts = await asyncio.gather(*(self._get(manifest.generation, name) for name in names))
        digest = hashlib.sha256()
        sound: list[bytes] = []
        for number, part in enumerate(parts):
            if part is None:
                raise Unsound("torn", f"part {number} of snapshot {manifest.generation} is missing")
            digest.update(part)
            sound.append(part)
        if digest.hexdigest() != manifest.sha256:
            raise Unsound("corrupt", f"the bytes of snapshot {manifest.generation} are not those that were written")
        return unpack(sound, generation=manifest.generation)

    async def write(
        self, packed: Packed, *, make: str, by: str, written_at: str, mark: Mark, taken: dict[str, int]
    ) -> Manifest:
        """Store a new generation: its parts, and its manifest when they are all there."""
        generation = await self._claim(by)
        await asyncio.gather(*(self._put(generation, str(number), part) for number, part in enumerate(packed.parts)))
        manifest = Manifest(
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
        body = msgspec.json.encode(manifest)
        sealed = Sealed(sha256=hashlib.sha256(body).hexdigest(), manifest=msgspec.Raw(body))
        await self._put(generation, MANIFEST, msgspec.json.encode(sealed))
        return manifest

    async def drop(self, generation: int) -> None:
        """Remove a generation, its manifest first. Gone is done."""
        await self._js.call(f"STREAM.PURGE.{self._stream}", {"filter": snapshot(generation, MANIFEST)})
        await self._js.call(f"STREAM.PURGE.{self._stream}", {"filter": snapshot(generation, ">")})

    async def mark(self, stream: str, sequence: int) -> Mark | None:
        """The mark of the event at ``sequence`` of ``stream``; ``None`` if there is none."""
        try:
            answer = await self._js.call(f"STREAM.MSG.GET.{stream}", {"seq": sequence})
        except JetStreamError as error:
            if error.err_code == NO_MESSAGE:
                return None
            raise
        message: dict[str, Any] = answer["message"]
        return Mark(
            sequence=int(message["seq"]),
            stored_at=message["time"],
            subject=message["subject"],
            id=decode(base64.b64decode(message.get("data", ""))).id,
        )

    async def _parts(self) -> dict[int, set[str]]:
        """The names of what is there of each generation."""
        found: dict[int, set[str]] = {}
        offset = 0
        while True:
            request = {"subjects_filter": SUBJECTS, "offset": offset}
            state = (await self._js.call(f"STREAM.INFO.{self._stream}", request))["state"]
            subjects: dict[str, int] = state.get("subjects") or {}
            for subject in subjects:
                generation, part = parse_snapshot(subject)
                found.setdefault(generation, set()).add(part)
            offset += len(subjects)
            if not subjects or offset >= int(state.get("num_subjects", 0)):
                return found

    async def _found(self, generation: int, parts: set[str]) -> Found:
        raw = await self._get(generation, MANIFEST) if MANIFEST in parts else None
        if raw is None:
            return Found(generation, None, Unsound("torn", f"snapshot {generation} has no manifest"))
        try:
            sealed = msgspec.json.decode(raw, type=Sealed)
            if hashlib.sha256(sealed.manifest).hexdigest() != sealed.sha256:
                raise msgspec.DecodeError("its digest is another")
            manifest = msgspec.json.decode(sealed.manifest, type=Manifest)
        except UNREADABLE as error:
            unsound = Unsound("corrupt", f"the manifest of snapshot {generation} can't be used: {error}")
            return Found(generation, None, unsound)
        missing = {str(number) for number in range(manifest.parts)} - parts
        if missing:
            text = f"part {min(missing, key=int)} of snapshot {generation} is missing"
            return Found(generation, manifest, Unsound("torn", text))
        return Found(generation, manifest)

    async def _claim(self, by: str) -> int:
        """A generation of which nothing is there, and of which nobody else will write anything."""
        generation = max(await self._parts(), default=0) + 1
        for _ in range(TRIES):
            subject = snapshot(generation, BEGIN)
            try:
                headers = {"Nats-Expected-Last-Subject-Sequence": "0"}
                await self._js.publish(subject, by.encode(), headers=headers, timeout_seconds=ANSWER_SECONDS)
            except JetStreamError as error:
                if error.err_code not in (WRONG_LAST_SEQUENCE, IN_FLIGHT):
                    raise
                generation += 1
            else:
                return generation
        raise Contended(f"others began {TRIES} snapshots at this moment")

    async def _put(self, generation: int, part: str, payload: bytes) -> None:
        async with self._slots:
            subject = snapshot(generation, part)
            await self._js.publish(subject, payload, headers={}, timeout_seconds=ANSWER_SECONDS)

    async def _get(self, generation: int, part: str) -> bytes | None:
        async with self._slots:
            subject = f"{self._js.prefix}.DIRECT.GET.{self._stream}.{snapshot(generation, part)}"
            message = await self._bus.call(subject, b"", timeout_seconds=ANSWER_SECONDS)
        return message.payload if "Nats-Sequence" in (message.headers or {}) else None
