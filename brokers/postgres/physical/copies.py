"""Physical copies: the files are staged ahead, a restore point is the moment, and the log goes from one to the other.

What is staged and what is prepared lies beside the cluster, and a replication slot keeps the log meanwhile: a moment
outlives the broker. Writers wait only for the restore point and for the switch to the next file of the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec

from brokers.postgres.names import database_of
from brokers.postgres.physical.changes import Beginning
from brokers.postgres.physical.cluster import Cluster
from brokers.postgres.physical.files import LABEL, LOG_DIRECTORY
from brokers.postgres.physical.keeping import unchanged
from brokers.postgres.physical.sending import Sent, entries_of, placed_entries_of
from brokers.postgres.physical.staging import Staged, stage
from brokers.postgres.server import ServerError
from brokers.sdk.atomic import write_atomically
from brokers.sdk.copystream import CopyWriter, EntrySource, KeptEntry
from brokers.sdk.errors import moment_lost
from brokers.sdk.progress import Reporter
from schemas.brokers import Copied, CopyData, PrepareCopy, Prepared
from schemas.problems import CalqueError, not_found
from schemas.values import CopyPart

logger = logging.getLogger(__name__)

PHYSICAL_FORMAT = "postgres-physical-2"
TARRED_FORMAT = "postgres-physical-1"
"""Its base is one tar file. It is restored, and written no more."""
PHYSICAL = "physical"
CLUSTER_PART, BASE_PART, LOG_PART = "cluster", "base", "wal"
BASE_TYPE = "application/vnd.postgresql.cluster"
JSON_TYPE = "application/json"
LOG_TYPE = "application/vnd.postgresql.wal"
STAGED_SECONDS = 24 * 3600.0
SEGMENT = re.compile(r"[0-9A-F]{24}")
_CONTENT, _STAGED, _PREPARED = "content", "staged.json", "prepared.json"
_MAKE_SLOT = """
    SELECT pg_create_physical_replication_slot(%(slot)s::text, true)
    WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %(slot)s::text)
"""
_DROP_SLOT = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
_POINT = """
    SELECT pg_create_restore_point(%s::text)::text, to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS.US TZ')
"""
_SEQUENCES = """
    SELECT format('%I.%I', schemaname, sequencename), last_value FROM pg_sequences WHERE last_value IS NOT NULL
"""
_SEGMENTS = """
    SELECT pg_walfile_name(%s::pg_lsn), pg_walfile_name(%s::pg_lsn),
           (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size')
"""


class ClusterPart(msgspec.Struct, frozen=True, kw_only=True):
    """What a physical copy says of itself: the part ``cluster``. ``database`` is also the role that owns all in it.

    ``sequences`` are the last values of those that were used, by qualified and quoted name: the log is ahead of them.
    ``directories`` are those of the cluster, parents first.
    """

    major: int
    version: str
    database: str
    point: str
    lsn: str
    sequences: dict[str, int] = {}
    directories: list[str] = []


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A prepared moment, as it is kept on disk. Times are seconds of Unix time."""

    cluster: ClusterPart
    segments: tuple[str, ...]
    segment_bytes: int
    answer: Prepared
    hold_seconds: float
    until: float


class PhysicalCopies:
    """The copies of one cluster."""

    def __init__(self, cluster: Cluster, *, notes: Path, copying: set[str]) -> None:
        self._cluster = cluster
        self._notes = notes
        self._copying = copying

    async def stage(self, copy: str, reporter: Reporter | None = None) -> None:
        """Take the base backup, unless that was done."""
        place = self._place(copy)
        self._check_kept(copy)
        if (place / _STAGED).exists():
            return
        self._ready()
        half = place / "half"
        await asyncio.to_thread(_empty, half)
        async with self._cluster.server.session() as session:
            await session.run(_MAKE_SLOT, {"slot": _slot(copy)})
        told = None if reporter is None else lambda done, total: reporter.report(done=done, total=max(done, total))
        staged = await stage(
            self._cluster.server, self._cluster.data, half / _CONTENT, label=f"calque {digest_of(copy)}", told=told
        )
        self._check_kept(copy)
        (half / _CONTENT).rename(place / _CONTENT)
        write_atomically(place / _STAGED, msgspec.json.encode(staged))
        half.rmdir()

    async def prepare(self, request: PrepareCopy) -> Prepared:
        """Set the restore point, or repeat its answer."""
        copy, place = request.copy, self._place(request.copy)
        if moment := self._held(copy):
            return moment.answer
        await self.stage(copy)
        staged = self._staged(copy)
        point = f"calque_{digest_of(copy)}"
        database = database_of(request.service_id)
        async with self._cluster.server.session(database=database) as session:
            ((lsn, at),) = await session.rows(_POINT, (point,))
            await session.value("SELECT pg_switch_wal()")
            sequences = {str(name): int(value) for name, value in await session.rows(_SEQUENCES)}
            first, last, segment_bytes = (await session.rows(_SEGMENTS, (staged.start, lsn)))[0]
            version, major = session.version, session.server_version // 10000
        segments = _between(str(first), str(last), segment_bytes=int(segment_bytes))
        moment = Moment(
            cluster=ClusterPart(
                major=major,
                version=version,
                database=database,
                point=point,
                lsn=str(lsn),
                sequences=sequences,
                directories=staged.directories,
            ),
            segments=segments,
            segment_bytes=int(segment_bytes),
            answer=Prepared(
                moment=f"restore point {point} at WAL {lsn}, {at}",
                level="application",
                estimated_bytes=staged.size + len(segments) * int(segment_bytes),
            ),
            hold_seconds=request.hold_seconds,
            until=time.time() + request.hold_seconds,
        )
        self._check_kept(copy)
        write_atomically(place / _PREPARED, msgspec.json.encode(moment))
        return moment.answer

    async def copy(self, request: CopyData, reporter: Reporter) -> Copied:
        """Stream the backup and the log up to the moment."""
        moment, place = self._held(request.copy), self._place(request.copy)
        if moment is None:
            raise moment_lost(request.copy, "it was not prepared here")
        done, total = 0, int(moment.answer.estimated_bytes or 0)

        def passed(count: int) -> None:
            nonlocal done
            done += count
            reporter.report(done=done, total=max(done, total))

        writer = CopyWriter(request.grant, progress=passed)
        self._copying.add(request.copy)
        try:
            parts = (
                await writer.write_stream(
                    CLUSTER_PART, _once(msgspec.json.encode(moment.cluster)), media_type=JSON_TYPE
                ),
                await self._write_base(request, writer),
                await writer.write_entries(LOG_PART, self._log(request.copy, moment), media_type=LOG_TYPE),
            )
        except (FileNotFoundError, EOFError):
            self._check_kept(request.copy)
            raise moment_lost(request.copy, "what was staged of it is gone") from None
        finally:
            self._copying.discard(request.copy)
            if (place / _PREPARED).exists() and not self._note(request.copy).exists():
                later = msgspec.structs.replace(moment, until=time.time() + moment.hold_seconds)
                write_atomically(place / _PREPARED, msgspec.json.encode(later))
        reporter.report(done=done, total=done)
        return Copied(
            copy_format=PHYSICAL_FORMAT,
            parts=parts,
            engine="postgresql",
            engine_version=moment.cluster.version,
            method=PHYSICAL,
        )

    @staticmethod
    def note_discarded(notes: Path, copy: str) -> None:
        """Never again, wherever it is asked for. Blocking."""
        write_atomically(notes / digest_of(copy), b"it was discarded")

    async def discard(self, copy: str) -> None:
        """Let go of all that was staged, if it was here. The note comes first."""
        if not self._place(copy).exists():
            return
        await asyncio.to_thread(shutil.rmtree, self._place(copy), ignore_errors=True)
        try:
            async with self._cluster.server.session() as session:
                await session.run(_DROP_SLOT, (_slot(copy),))
        except (ServerError, OSError) as error:
            logger.warning("the slot of copy %s is dropped later: %s", copy, type(error).__name__)

    def discard_all(self) -> None:
        """Note that all copies of the cluster, which goes, are lost. Blocking."""
        if self._cluster.staged.is_dir():
            for place in self._cluster.staged.iterdir():
                write_atomically(self._notes / place.name, b"its data service was removed")

    async def tidy(self) -> None:
        """Let go of what is held for too long, and of slots that nothing needs."""
        if not self._cluster.staged.is_dir():
            return
        now = time.time()
        needed: set[str] = set()
        for place in list(self._cluster.staged.iterdir()):
            moment = _read(place / _PREPARED)
            if place.name in {digest_of(copy) for copy in self._copying}:
                needed.add(place.name)
            elif (moment and moment.until < now) or (not moment and place.stat().st_mtime < now - STAGED_SECONDS):
                held = f"it was held for {moment.hold_seconds:.0f} s and dropped" if moment else "it was never prepared"
                write_atomically(self._notes / place.name, held.encode())
                await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
            else:
                needed.add(place.name)
        async with self._cluster.server.session() as session:
            for (slot,) in await session.rows(
                "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'calque\\_%'"
            ):
                if str(slot).removeprefix("calque_") not in needed:
                    await session.run(_DROP_SLOT, (slot,))

    def _ready(self) -> str:
        record = self._cluster.record()
        if record is None or not record.ready:
            raise CalqueError(not_found("service_id", "no complete data service is here", "provision it first"))
        return record.service_id

    def _held(self, copy: str) -> Moment | None:
        """Raises ``moment_lost`` for one that was discarded or is over."""
        self._check_kept(copy)
        moment = _read(self._place(copy) / _PREPARED)
        if moment is not None and copy not in self._copying and moment.until < time.time():
            raise moment_lost(copy, f"it was held for {moment.hold_seconds:.0f} s and dropped")
        return moment

    async def _write_base(self, request: CopyData, writer: CopyWriter) -> CopyPart:
        """What did not change since the parent is kept."""
        copy, staged, record = request.copy, self._staged(request.copy), self._cluster.record()
        beginning = Beginning(record.made if record else "", staged.timeline, staged.start)
        kept: Mapping[str, KeptEntry] = {}
        if request.grant.parent:
            kept = await unchanged(writer.known(BASE_PART), staged.files, beginning, self._cluster.server)
        content = self._place(copy) / _CONTENT
        files = (
            kept.get(file.path)
            or Sent(file.path, content, file.size, file.at, beginning.metadata if file.path == LABEL else {})
            for file in staged.files
        )
        with content.open("rb") as opened:
            async with writer.passing(opened.fileno()) as placed:
                entries = (placed_entries_of if placed else entries_of)(files, check=lambda: self._check_kept(copy))
                return await writer.write_entries(BASE_PART, entries, media_type=BASE_TYPE)

    def _log(self, copy: str, moment: Moment) -> AsyncIterator[EntrySource | KeptEntry]:
        log = self._cluster.data / LOG_DIRECTORY
        if gone := [name for name in moment.segments if _size(log / name) != moment.segment_bytes]:
            raise moment_lost(copy, f"the server has not kept {gone[0]} of its log")
        files = (Sent(name, log / name, moment.segment_bytes) for name in moment.segments)
        return entries_of(files, check=lambda: self._check_kept(copy))

    def _staged(self, copy: str) -> Staged:
        try:
            return msgspec.json.decode((self._place(copy) / _STAGED).read_bytes(), type=Staged)
        except FileNotFoundError:
            self._check_kept(copy)
            raise moment_lost(copy, "what was staged of it is gone") from None

    def _check_kept(self, copy: str) -> None:
        if self._note(copy).exists():
            raise moment_lost(copy, self._note(copy).read_text())

    def _note(self, copy: str) -> Path:
        return self._notes / digest_of(copy)

    def _place(self, copy: str) -> Path:
        return self._cluster.staged / digest_of(copy)


def digest_of(copy: str) -> str:
    """What stands for a copy in names of files, slots and restore points."""
    return hashlib.sha256(copy.encode()).hexdigest()[:24]


def _slot(copy: str) -> str:
    return f"calque_{digest_of(copy)}"


def _empty(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True, mode=0o700)


def _read(path: Path) -> Moment | None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return msgspec.json.decode(path.read_bytes(), type=Moment)
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _between(first: str, last: str, *, segment_bytes: int) -> tuple[str, ...]:
    """The names of all files of the log from ``first`` to ``last``, which are of one timeline."""
    per_id = (1 << 32) // segment_bytes
    timeline = last[:8]

    def number(name: str) -> int:
        return int(name[8:16], 16) * per_id + int(name[16:], 16)

    return tuple(f"{timeline}{n // per_id:08X}{n % per_id:08X}" for n in range(number(first), number(last) + 1))


async def _once(block: bytes) -> AsyncIterator[bytes]:
    yield block
