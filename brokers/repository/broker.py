"""A copy repository broker: what the site's agent asks of it, on an opened repository and its endpoint.

A package of its own adds where the repository lies (:meth:`RepositoryBroker.open_repository`), its settings (a
subclass of :class:`brokers.repository.settings.RepositorySettings`) and its main (:func:`brokers.sdk.main.run_broker`).
"""

import abc
import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import ClassVar

from brokers.repository import summaries
from brokers.repository.endpoint_errors import storage_problem
from brokers.repository.errors import AlreadyCommitted, StorageFailed
from brokers.repository.grants import Grants
from brokers.repository.opened import RESERVED_FREE_BYTES, CommittedCopy, CopyRepository, Verification
from brokers.repository.opened import Collected as Freed
from brokers.repository.retention import CopyLocked
from brokers.repository.serving import Served
from brokers.repository.settings import RepositorySettings
from brokers.repository.threads import in_thread
from brokers.repository.transfer import Transfer
from brokers.sdk.errors import permanent_error
from brokers.sdk.progress import Reporter
from brokers.sdk.service import Broker
from schemas.brokers import (
    SERVICE_VERSION,
    AbortCopy,
    Collect,
    Collected,
    CommitCopy,
    Committed,
    CopyDescription,
    CopyList,
    CrbInfo,
    DataServiceHealth,
    DeleteCopy,
    DescribeCopy,
    Done,
    ForgetImage,
    Granted,
    Health,
    ImageList,
    InfoRequest,
    ListCopies,
    ListedImage,
    ListImages,
    OpenRead,
    OpenWrite,
    RecordImage,
    RepairRepository,
    Repositories,
    RepositoriesRequest,
    RepositoryRepaired,
    RepositoryStats,
    StatsRequest,
    TransferCopy,
    Verified,
    VerifyCopy,
)
from schemas.problems import CalqueError, Problem
from schemas.values import CopyPart, CopySummary

logger = logging.getLogger(__name__)

OPENING_SECONDS = 5.0
UNLIMITED_BYTES = 1 << 60
"""What is told as free space by a store that has no end."""


class RepositoryBroker(Broker, abc.ABC):
    """One repository, wherever it lies."""

    description = "copy repository"

    waits_for_store: ClassVar[bool] = False
    """Whether the store may be away when the broker starts. Requests get a temporary problem until it is there."""

    def __init__(self, settings: RepositorySettings) -> None:
        super().__init__(settings)
        self._config = settings
        self._served: Served | None = None
        self._missing = StorageFailed("the repository is not open").problem
        self._opening: asyncio.Task[None] | None = None

    @abc.abstractmethod
    def open_repository(self) -> CopyRepository:
        """Opens the repository, making it if there is none. Called in a thread, once per start, and again when it
        failed and the broker waits for its store."""

    async def start(self) -> None:
        """Opens the repository and listens. Raises CalqueError if the repository or the port is taken."""
        try:
            self._served = await Served.begin(self._config, self.open_repository)
        except CalqueError as error:
            if not (self.waits_for_store and error.problem.temporary):
                raise
            self._missing = error.problem
            self._opening = asyncio.create_task(self._open_later())

    async def _open_later(self) -> None:
        while self._served is None:
            logger.warning("the repository can't be opened, this is tried again: %s", self._missing.sentence())
            await asyncio.sleep(self._missing.retry_after_seconds or OPENING_SECONDS)
            try:
                self._served = await Served.begin(self._config, self.open_repository)
            except CalqueError as error:
                self._missing = error.problem  # whoever looks after the store may mend also what looks permanent
        logger.info("the repository is open")

    async def stop(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        served, self._served = self._served, None
        if served is not None:
            await served.close()

    def explain(self, error: BaseException) -> Problem | None:
        """The file system's errors; those of the repository explain themselves."""
        if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
            return storage_problem(error).problem
        return None

    async def info(self, _request: InfoRequest) -> CrbInfo:
        return CrbInfo(
            name=self.settings.name,
            version=SERVICE_VERSION,
            repositories=(self.settings.name,),
            protocols=("http",),
            fingerprint=self._issuer.fingerprint,
            format=self._store.format,
            signing_key=self._store.public_key,
            retention_seconds=self._store.retention_seconds,
        )

    async def repositories(self, _request: RepositoriesRequest) -> Repositories:
        return Repositories(repositories=(self.settings.name,))

    async def open_write(self, request: OpenWrite) -> Granted:
        parent = ""
        try:
            parent = await in_thread(self._begin, request)
        except AlreadyCommitted:
            # A request that comes again late: the grant opens nothing any more.
            logger.info("copy %s is committed already", request.copy)
        return Granted(grant=self._issuer.issue(request.copy, "write", seconds=request.ttl_seconds, parent=parent))

    async def commit(self, request: CommitCopy, reporter: Reporter) -> Committed:
        committed = await in_thread(self._commit, request)
        size = committed.manifest.logical_bytes
        reporter.report(done=size, total=size)
        return Committed(summary=summaries.summary(committed))

    async def abort(self, request: AbortCopy) -> Done:
        await in_thread(self._store.abort, request.copy)
        return Done()

    async def open_read(self, request: OpenRead) -> Granted:
        await in_thread(self._store.committed, request.copy)
        return Granted(
            grant=self._issuer.issue(
                request.copy, "read", seconds=request.ttl_seconds, client_fingerprint=request.client_fingerprint
            )
        )

    async def list(self, request: ListCopies) -> CopyList:
        token = await in_thread(self._store.listing_token)
        if request.known and request.known == token:
            return CopyList(copies=(), token=token, unchanged=True)
        return CopyList(copies=await in_thread(self._summaries), token=token)

    async def images(self, request: ListImages) -> ImageList:
        token = await in_thread(self._store.listing_token)
        if request.known and request.known == token:
            return ImageList(images=(), token=token, unchanged=True)
        found, more = await in_thread(self._images, request.after, request.limit)
        return ImageList(images=found, token=token, more=more)

    async def describe(self, request: DescribeCopy) -> CopyDescription:
        return summaries.description(await in_thread(self._store.committed, request.copy))

    async def verify(self, request: VerifyCopy, reporter: Reporter) -> Verified:
        loop = asyncio.get_running_loop()
        total = (await in_thread(self._store.committed, request.copy)).manifest.logical_bytes

        def progress(done: int) -> None:
            loop.call_soon_threadsafe(lambda: reporter.report(done=done, total=total))

        def run(cancelled: Callable[[], bool]) -> Verification:
            return self._store.verify(request.copy, depth=request.depth, progress=progress, cancelled=cancelled)

        found = await _cancellable(run)
        return Verified(copy=request.copy, faults=tuple(finding.message for finding in found.findings))

    async def delete(self, request: DeleteCopy, _reporter: Reporter) -> Done:
        await in_thread(self._remove, request.copy, operation=request.operation)
        return Done()

    async def transfer(self, request: TransferCopy, reporter: Reporter) -> Committed:
        if request.grant.copy != request.copy:
            raise permanent_error("wrong_grant", f"the grant is for copy {request.grant.copy}", field="grant")
        moving = Transfer(
            self._store,
            request.grant,
            certificate=self._config.tls.cert,
            key=self._config.tls.key,
            progress=lambda done, total: reporter.report(done=done, total=total),
            pace=self._open.endpoint.pace,
            operation=request.operation,
        )
        if (known := await in_thread(moving.committed_here)) is not None:
            return Committed(summary=summaries.summary(known))
        try:
            committed = await moving.run()
        except asyncio.CancelledError:
            if reporter.cancelling:
                # Also if it was committed in the same moment: cancelled work takes back what it did.
                with contextlib.suppress(CopyLocked):  # then another operation brought it here
                    await in_thread(self._remove, request.copy, operation=request.operation)
            raise
        return Committed(summary=summaries.summary(committed))

    async def record_image(self, request: RecordImage) -> Done:
        await in_thread(self._store.record_image, request.content)
        return Done()

    async def forget_image(self, request: ForgetImage) -> Done:
        await in_thread(self._store.forget_image, request.image, operation=request.operation)
        return Done()

    async def collect(self, _request: Collect, _reporter: Reporter) -> Collected:
        found = await in_thread(self._free, compact=True)
        if found.blocked is not None:
            raise permanent_error("collection_blocked", found.blocked, remedy="delete the damaged copy, then collect")
        return Collected(chunks=found.chunks, bytes=found.freed_bytes)

    async def repair(self, request: RepairRepository, _reporter: Reporter) -> RepositoryRepaired:
        found = await in_thread(self._store.repair, read_all=request.read_all)
        return RepositoryRepaired(indexes=found.indexes, healed=found.healed, damaged=found.damaged)

    async def stats(self, _request: StatsRequest) -> RepositoryStats:
        found = await in_thread(self._store.stats)
        return RepositoryStats(
            copies=found.copies,
            images=found.images,
            chunks=found.chunks,
            stored=found.stored_bytes,
            free=found.free_bytes if found.free_bytes is not None else UNLIMITED_BYTES,
            staging=found.staging_bytes,
            retention_seconds=self._store.retention_seconds,
            locked_copies=found.locked_copies,
            locked=found.locked_bytes,
            locked_until=found.locked_until,
        )

    async def health(self, _request: DataServiceHealth) -> Health:
        if self._served is None:
            return Health(healthy=False, message=self._missing.sentence())
        free = await in_thread(self._store.free_bytes)
        if free is not None and free < RESERVED_FREE_BYTES:
            return Health(healthy=False, message=f"where the repository lies only {free} bytes are left")
        return Health(healthy=True)

    @property
    def _store(self) -> CopyRepository:
        return self._open.repository

    @property
    def _issuer(self) -> Grants:
        return self._open.grants

    @property
    def _open(self) -> Served:
        if self._served is None:
            raise CalqueError(self._missing)
        return self._served

    def _begin(self, request: OpenWrite) -> str:
        """Opens the copy. The parent that counts: the one that was asked for, if it is sound and here."""
        opened = self._store.open_write(request.copy, summaries.opening(request.source))
        parent = request.parent
        if parent:
            try:
                fits = summaries.same_service(request.source, self._store.committed(parent))
            except CalqueError as error:
                logger.info("copy %s is not taken on top of %s: %s", request.copy, parent, error)
                fits = False
            if not fits or parent in self._open.endpoint.unfit:
                parent = ""
        opened.take_on(parent)
        return parent

    def _commit(self, request: CommitCopy) -> CommittedCopy:
        store = self._store
        named = _by_name(request.copied.parts)
        try:
            known = store.committed(request.copy)
        except CalqueError as error:
            if error.problem.code != "not_found":
                raise
        else:
            _same_parts(named, _by_name(tuple(summaries.copy_part(part) for part in known.parts)))
            # Again, since a crash right after the commit may have left what belongs to an open copy.
            return store.commit(request.copy)
        opened = store.writing(request.copy)
        _same_parts(named, _by_name(tuple(summaries.copy_part(part) for part in opened.sealed().values())))
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        info = summaries.closing(opened.info.source, request, created=created, parent=opened.parent)
        return store.commit(request.copy, info=info, operation=request.operation)

    def _summaries(self) -> tuple[CopySummary, ...]:
        found = []
        for listed in self._store.copies():
            if listed.committed is None:
                logger.error("a copy is not listed: %s", listed.problem)
            else:
                found.append(summaries.summary(listed.committed))
        return tuple(found)

    def _remove(self, copy: str, *, operation: str) -> None:
        """Removes the copy, committed or not: a transfer that a crash cut off has left a half behind."""
        if not self._store.delete(copy, operation=operation):
            self._store.abort(copy)
        self._free()

    def _images(self, after: str, limit: int) -> tuple[tuple[ListedImage, ...], bool]:
        found: list[ListedImage] = []
        for image in self._store.images():
            if image.image <= after:
                continue
            if image.content is None:
                logger.error("an image is not listed: %s", image.problem)
                continue
            if len(found) >= limit:
                return tuple(found), True
            found.append(ListedImage(content=image.content, signed_by=image.signed_by))
        return tuple(found), False

    def _free(self, *, compact: bool = False) -> Freed:
        found = self._store.collect(compact=compact)
        if found.blocked is not None:
            logger.error("nothing can be collected: %s", found.blocked)
        return found


async def _cancellable(run: Callable[[Callable[[], bool]], Verification]) -> Verification:
    """Runs long work in a thread that asks whether it was cancelled."""
    stop = asyncio.Event()
    task = asyncio.ensure_future(asyncio.to_thread(run, stop.is_set))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({task})
        raise


def _by_name(parts: tuple[CopyPart, ...]) -> dict[str, tuple[int, str]]:
    return {part.name: (part.size, part.digest) for part in parts}


def _same_parts(announced: dict[str, tuple[int, str]], received: dict[str, tuple[int, str]]) -> None:
    if announced == received:
        return
    names = sorted(name for name in announced.keys() | received.keys() if announced.get(name) != received.get(name))
    raise permanent_error(
        "parts_differ",
        f"the data service broker and the repository disagree about {', '.join(names)}",
        field="copied.parts",
        remedy="copy again",
    )
