"""The volume broker: what each operation of a data service broker means here."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

import msgspec

from brokers.sdk.copystream import CopyReader, CopyStreamError, CopyWriter
from brokers.sdk.errors import moment_lost, permanent_error
from brokers.sdk.progress import Reporter
from brokers.sdk.service import Broker
from brokers.volume.ahead import Ahead
from brokers.volume.existing import check_tree, existing_tree
from brokers.volume.filling import fill, fill_here
from brokers.volume.inventory import Origin
from brokers.volume.moments import Moments, Note
from brokers.volume.paths import WrongCopy, encode
from brokers.volume.reading import ChangedSince, entries
from brokers.volume.restoring import Restorer
from brokers.volume.settings import VolumeSettings
from brokers.volume.threads import in_thread
from brokers.volume.volumes import Labels, Volumes, name_of
from schemas.brokers import (
    SERVICE_VERSION,
    Attach,
    Attachable,
    Bind,
    Bound,
    Copied,
    CopyData,
    CopyGrant,
    DataServiceHealth,
    DataServicesDescription,
    Deprovision,
    DescribeDataServices,
    DiscardCopy,
    Done,
    DsbInfo,
    Existing,
    Health,
    InfoRequest,
    PrepareCopy,
    Prepared,
    Provision,
    Provisioned,
    StageCopy,
    Unbind,
)
from schemas.problems import CalqueError, Problem, invalid, not_found, permanent, temporary
from schemas.values import CopyPart, Plan

logger = logging.getLogger(__name__)

COPY_FORMAT = "volume-tree"
TREE_PART = "tree"
KEPT_GONE = "kept_gone"
PLANS = (
    Plan(
        name="small",
        description="a directory tree of its own on the site's disk",
        limits={"size": "10 GiB, not enforced"},
    ),
)
STAGED_SECONDS = 3600.0
SWEEP_SECONDS = 5.0
FULL_BYTES = 64 << 20
TELL_BYTES = 8 << 20


class VolumeBroker(Broker):
    """A directory tree per data service; every binding is its path."""

    description = "Volumes: a directory tree per data service"

    def __init__(self, settings: VolumeSettings) -> None:
        super().__init__(settings)
        self._plans = settings.priced(PLANS)
        self._volumes = Volumes(settings.volumes_dir)
        self._paranoid = settings.paranoid
        latest = None if settings.paranoid else self._volumes.latest
        self._moments = Moments(self._volumes.moments, trash=self._volumes.trash, latest=latest)
        self._sweeping: asyncio.Task[None] | None = None
        self._sweep_now = asyncio.Event()

    async def start(self) -> None:
        """Make the directories, and begin to remove what is left of earlier work."""
        await asyncio.to_thread(self._volumes.open)
        await asyncio.to_thread(self._moments.open)
        self._sweeping = asyncio.create_task(self._sweep_for_ever(), name="sweep volumes")

    async def stop(self) -> None:
        """Stop removing."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait({self._sweeping})

    def explain(self, error: BaseException) -> Problem | None:
        """Errors of the file system, and copies that are no trees."""
        if isinstance(error, WrongCopy):
            return permanent("wrong_copy", str(error), field="restore")
        if not isinstance(error, OSError):
            return None
        said = f"{_shown(error)}: {error.strerror}" if error.filename else str(error.strerror)
        if error.errno in (errno.EACCES, errno.EPERM):
            return permanent("not_permitted", said, remedy="let the broker's user own what lies in volumes_dir")
        if error.errno in (errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV):
            return temporary("unavailable", said, retry_after_seconds=5.0)
        return None

    async def info(self, _request: InfoRequest) -> DsbInfo:
        """What this broker offers."""
        return DsbInfo(
            name=self.settings.name,
            version=SERVICE_VERSION,
            types=("volume",),
            plans=self._plans,
            attributes=("path",),
            secret_attributes=(),
            protocols=("http",),
            copy_formats=(COPY_FORMAT,),
            engine="volume",
            can_attach=True,
        )

    async def attach(self, request: Attach, _reporter: Reporter) -> Attachable:
        """Look whether the directory is there and can be read. What lies in it is looked at when it is copied."""
        if request.type != "volume":
            raise CalqueError(invalid("type", f"this broker has no {request.type}", "attach a volume"))
        tree = await self._tree(request.service_id, request.existing)
        return Attachable(resource={"path": str(tree)})

    async def provision(self, request: Provision, reporter: Reporter) -> Provisioned:
        """A tree, blank or restored. Half of one, from a run that was cut off, is removed and made anew."""
        _check(request)
        service_id = request.service_id
        labels = await asyncio.to_thread(self._volumes.complete, service_id)
        if labels is None:
            labels = Labels(service_id=service_id, labels=request.labels, plan=request.plan)
            begun = labels
            try:
                making = await in_thread(lambda _: self._volumes.begin(begun))
                self._sweep_now.set()
                if request.restore is not None:
                    size = await self._restore(service_id, making, request.restore, reporter)
                    labels = msgspec.structs.replace(labels, restored_bytes=size)
                whole = labels
                await in_thread(lambda _: self._volumes.finish(whole))
            except BaseException:
                await self._abandon(service_id)
                raise
        return Provisioned(resource={"path": str(self._volumes.tree(service_id))}, restored_bytes=labels.restored_bytes)

    async def deprovision(self, request: Deprovision, _reporter: Reporter) -> Done:
        """The tree goes, and its prepared copies."""
        self._moments.discard_service(request.service_id)
        await in_thread(lambda stop: self._volumes.remove(request.service_id, stop))
        self._sweep_now.set()
        return Done()

    async def bind(self, request: Bind) -> Bound:
        """The path; whoever runs at the site may use it, so there is no secret."""
        tree = await self._tree(request.service_id, request.existing)
        return Bound(attributes={"path": str(tree)}, secrets={})

    async def unbind(self, _request: Unbind) -> Done:
        """Nothing was made for the binding."""
        return Done()

    async def stage_copy(self, request: StageCopy, reporter: Reporter) -> Done:
        """Copy all of it ahead, so that only what changes until the moment is copied while writers wait."""
        tree = await self._tree(request.service_id, request.existing)
        loop, told = asyncio.get_running_loop(), 0

        def tell(done: int) -> None:
            nonlocal told
            if done - told >= TELL_BYTES:
                told = done
                loop.call_soon_threadsafe(report, done)

        def report(done: int) -> None:
            reporter.report(done=done)

        await self._moments.stage(
            copy=request.copy,
            service_id=request.service_id,
            tree=tree,
            hold_seconds=STAGED_SECONDS,
            name=_own_name(request.service_id, request.existing),
            tell=tell,
            ahead=Ahead(request.grant, TREE_PART, progress=report) if request.grant is not None else None,
        )
        return Done()

    async def prepare_copy(self, request: PrepareCopy) -> Prepared:
        """The tree as it is now, whole on disk before this answers."""
        found = self._moments.find(request.copy)
        if found is not None and found.state == "prepared":
            return found.answer()
        tree = await self._tree(request.service_id, request.existing)
        note = await self._moments.prepare(
            copy=request.copy,
            service_id=request.service_id,
            tree=tree,
            hold_seconds=request.hold_seconds,
            name=_own_name(request.service_id, request.existing),
        )
        logger.info("copy %s: %s", request.copy, note.moment)
        return note.answer()

    async def copy(self, request: CopyData, reporter: Reporter) -> Copied:
        """Stream the moment, but for what the copy before holds."""
        note = self._moments.get(copy=request.copy, service_id=request.service_id)
        name = _own_name(request.service_id, request.existing)
        self._moments.begin_copy(request.copy)
        try:
            try:
                part = await self._stream(request, note, reporter, on_kept=True)
            except CopyStreamError as error:
                if error.problem.code != KEPT_GONE:
                    raise
                logger.info("copy %s: all of it is sent: %s", request.copy, error.problem.message)
                part = await self._stream(request, note, reporter, on_kept=False)
            self._moments.check(request.copy)
            if name:
                inventory, _ = self._moments.files(request.copy)
                origin = Origin(request.copy, part.digest, part.entries)
                await asyncio.to_thread(self._volumes.latest.keep, name, inventory, origin)
        except FileNotFoundError:
            raise moment_lost(request.copy, "its files are gone") from None
        except ChangedSince as error:
            # The next moment keeps the bytes of all files itself.
            await asyncio.to_thread(self._volumes.latest.forget, name)
            cause = f"{error} was taken for unchanged, is not in this repository, and was written to since"
            raise moment_lost(request.copy, cause) from None
        finally:
            self._moments.end_copy(request.copy)
        return Copied(copy_format=COPY_FORMAT, parts=(part,), engine="volume")

    async def _stream(self, request: CopyData, note: Note, reporter: Reporter, *, on_kept: bool) -> CopyPart:
        done = 0

        def passed(count: int) -> None:
            nonlocal done
            done += count
            reporter.report(done=done, total=note.size)

        inventory, content = self._moments.files(request.copy)
        writer = CopyWriter(request.grant, progress=passed)
        parent = request.grant.parent if on_kept and not self._paranoid else ""
        # Numbers of entries say something only of the copy that they were taken from.
        origin = note.origin if note.origin is not None and note.origin.copy == parent else None
        if on_kept and note.ahead:
            origin = note.origin
        if origin is not None and note.same:
            part = await writer.keep_part(TREE_PART, of=origin.digest)
            if part.digest == origin.digest:
                return part
            logger.warning("copy %s: what is kept of %s is not what was written", request.copy, parent)
            origin, parent = None, ""
        with content.open("rb") as file:
            async with writer.passing(file.fileno()) as placed:
                source = entries(
                    inventory,
                    content,
                    check=lambda: self._moments.check(request.copy),
                    known=writer.known(TREE_PART) if parent and origin is None else None,
                    tree=await self._tree(request.service_id, request.existing),
                    placed=placed,
                    origin=origin,
                )
                async with aclosing(source):
                    return await writer.write_entries(TREE_PART, source)

    async def discard_copy(self, request: DiscardCopy) -> Done:
        """What was copied for the moment goes; so does a copy that streams from it."""
        self._moments.discard(request.copy)
        self._sweep_now.set()
        return Done()

    async def describe(self, request: DescribeDataServices) -> DataServicesDescription:
        """Our trees, by the labels beside them."""
        found = await asyncio.to_thread(self._volumes.describe, request.service_id)
        return DataServicesDescription(resources=found)

    async def health(self, request: DataServiceHealth) -> Health:
        """Whether there is a disk that can be written to with room on it, and the data service's tree."""
        try:
            if request.existing is not None:
                await self._tree("", request.existing)
                return Health(healthy=True)
            if request.service_id is not None:
                await self._require(request.service_id)
            return await asyncio.to_thread(_disk, self._volumes.trees)
        except CalqueError as error:
            return Health(healthy=False, message=error.problem.message)
        except OSError as error:
            return Health(healthy=False, message=f"{_shown(error)}: {error.strerror}")

    async def _tree(self, service_id: str, existing: Existing | None) -> Path:
        """The tree of a data service: of our own, or one that was there before."""
        if existing is None:
            return await self._require(service_id)
        tree = existing_tree(existing, ours=self._volumes.trees.parent)
        await asyncio.to_thread(check_tree, tree)
        return tree

    async def _require(self, service_id: str) -> Path:
        if await asyncio.to_thread(self._volumes.complete, service_id) is None:
            raise CalqueError(not_found("service_id", f"no data service {service_id} is here", "provision it first"))
        return self._volumes.tree(service_id)

    async def _restore(self, service_id: str, making: Path, grant: CopyGrant, reporter: Reporter) -> int:
        """Make every entry of the copy; how many bytes of data they have."""
        done = 0

        def passed(count: int) -> None:
            nonlocal done
            done += count
            reporter.report(done=done, total=total)

        reader = CopyReader(grant, progress=passed)
        part = next((part for part in (await reader.describe()).parts if part.name == TREE_PART), None)
        if part is None:
            raise permanent_error("wrong_copy", f"the copy has no part {TREE_PART!r}", field="restore")
        total = part.size
        with Restorer(making, notes=self._volumes.notes(service_id)) as restorer:
            if not await reader.take_entries(TREE_PART, partial(fill_here, restorer, TREE_PART)):
                await fill(restorer, reader.read_entries(TREE_PART))
        return total

    async def _abandon(self, service_id: str) -> None:
        """Take half a tree away now; if that fails, the next try or a deprovision does."""
        try:
            await asyncio.to_thread(self._volumes.abandon, service_id)
        except OSError as error:
            logger.warning("half of the volume %s is left for now: %s", name_of(service_id), error.strerror)
        self._sweep_now.set()

    async def _sweep_for_ever(self) -> None:
        while True:
            self._sweep_now.clear()
            try:
                await asyncio.to_thread(self._moments.sweep)
                await in_thread(self._volumes.trash.empty)
            except OSError as error:
                logger.warning("what is left of earlier work could not be removed: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._sweep_now.wait()


def _own_name(service_id: str, existing: Existing | None) -> str:
    """The name of a tree of ours; nothing is kept of one that was there before."""
    return name_of(service_id) if existing is None else ""


def _check(request: Provision) -> None:
    if request.type != "volume":
        raise CalqueError(invalid("type", f"this broker offers no {request.type}", "ask for a volume"))
    if request.plan not in {plan.name for plan in PLANS}:
        offered = ", ".join(plan.name for plan in PLANS)
        raise CalqueError(invalid("plan", f"there is no plan {request.plan!r}", f"choose one of: {offered}"))
    if request.parameters:
        raise CalqueError(invalid("parameters", f"{', '.join(sorted(request.parameters))}: volumes take none"))
    if request.restore is not None and request.copy_format != COPY_FORMAT:
        raise CalqueError(
            invalid("copy_format", f"{request.copy_format!r} can't be restored here", f"use {COPY_FORMAT}")
        )


def _disk(directory: Path) -> Health:
    if not os.access(directory, os.W_OK | os.X_OK):
        return Health(healthy=False, message=f"{directory} can't be written to")
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if free < FULL_BYTES:
        return Health(healthy=False, message=f"the disk of {directory} is full: {free >> 20} MiB are free")
    return Health(healthy=True)


def _shown(error: OSError) -> str:
    name = error.filename
    return encode(name) if isinstance(name, bytes) else str(name)
