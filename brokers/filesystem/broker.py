"""The filesystem copy repository broker: what the site's agent asks of it, on the repository and its endpoint."""

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from brokers.filesystem import maintenance, summaries
from brokers.filesystem.endpoint import Endpoint, server_context
from brokers.filesystem.endpoint_errors import storage_problem
from brokers.filesystem.errors import AlreadyCommitted, StorageFailed
from brokers.filesystem.grants import Grants
from brokers.filesystem.repository import RESERVED_FREE_BYTES, CommittedCopy, Repository
from brokers.filesystem.settings import FilesystemSettings
from brokers.filesystem.threads import in_thread
from brokers.filesystem.tokens import TokenKey
from brokers.filesystem.transfer import Transfer
from brokers.sdk.atomic import write_atomically
from brokers.sdk.errors import permanent_error, temporary_error
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
    InfoRequest,
    ListCopies,
    OpenRead,
    OpenWrite,
    RecordImage,
    Repositories,
    RepositoriesRequest,
    RepositoryStats,
    StatsRequest,
    TransferCopy,
    Verified,
    VerifyCopy,
)
from schemas.problems import CalqueError, Problem
from schemas.values import CopyPart, CopySummary

logger = logging.getLogger(__name__)


class FilesystemBroker(Broker):
    """One repository in one directory."""

    description = "copy repository in a directory, format 0"

    def __init__(self, settings: FilesystemSettings) -> None:
        super().__init__(settings)
        self._config = settings
        self._repository: Repository | None = None
        self._endpoint: Endpoint | None = None
        self._grants: Grants | None = None

    async def start(self) -> None:
        """Opens the repository and listens. Raises CalqueError if the repository or the port is taken."""
        config = self._config
        state = config.state_dir
        try:
            repository = await in_thread(Repository.open, config.repository_dir, key_path=state / "signing.key")
            self._repository = repository
            tokens = TokenKey.load_or_create(state / "tokens.key", repository.files)
            endpoint = Endpoint(
                repository,
                tokens=tokens,
                tls=server_context(certificate=config.tls.cert, key=config.tls.key, ca=config.tls.ca),
                host=config.host,
            )
            self._endpoint = endpoint
            port = await self._listen(endpoint)
            if not config.port:
                write_atomically(state / "port", str(port).encode())
            self._grants = Grants(
                base_url=f"https://{config.host}:{port}",
                tokens=tokens,
                certificate=config.tls.cert,
                ca=config.tls.ca,
                clock=time.time,
            )
        except BaseException as error:
            await self.stop()
            if isinstance(error, OSError):
                raise temporary_error("unavailable", f"the repository can't be served: {error}") from error
            raise

    async def _listen(self, endpoint: Endpoint) -> int:
        if self._config.port:
            return await endpoint.start(self._config.port)
        try:
            # Grants that were issued before a restart name the port.
            return await endpoint.start(_kept_port(self._config.state_dir / "port"))
        except OSError as error:
            logger.warning("the port of the last run is taken, another one is used: %s", error)
            return await endpoint.start(0)

    async def stop(self) -> None:
        if self._endpoint is not None:
            await self._endpoint.stop()
            self._endpoint = None
        if self._repository is not None:
            self._repository.close()
            self._repository = None

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
        )

    async def repositories(self, _request: RepositoriesRequest) -> Repositories:
        return Repositories(repositories=(self.settings.name,))

    async def open_write(self, request: OpenWrite) -> Granted:
        try:
            await in_thread(self._store.open_write, request.copy, summaries.opening(request.source))
        except AlreadyCommitted:
            # A request that comes again late: the grant opens nothing any more.
            logger.info("copy %s is committed already", request.copy)
        return Granted(grant=self._issuer.issue(request.copy, "write", seconds=request.ttl_seconds))

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

    async def list(self, _request: ListCopies) -> CopyList:
        return CopyList(copies=await in_thread(self._summaries))

    async def describe(self, request: DescribeCopy) -> CopyDescription:
        return summaries.description(await in_thread(self._store.committed, request.copy))

    async def verify(self, request: VerifyCopy, reporter: Reporter) -> Verified:
        loop = asyncio.get_running_loop()
        total = (await in_thread(self._store.committed, request.copy)).manifest.logical_bytes

        def progress(done: int) -> None:
            loop.call_soon_threadsafe(lambda: reporter.report(done=done, total=total))

        def run(cancelled: Callable[[], bool]) -> maintenance.Verification:
            return maintenance.verify(self._store, request.copy, progress=progress, cancelled=cancelled)

        found = await _cancellable(run)
        return Verified(copy=request.copy, faults=tuple(finding.message for finding in found.findings))

    async def delete(self, request: DeleteCopy, _reporter: Reporter) -> Done:
        await in_thread(self._remove, request.copy)
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
        )
        if (known := await in_thread(moving.committed_here)) is not None:
            return Committed(summary=summaries.summary(known))
        try:
            committed = await moving.run()
        except asyncio.CancelledError:
            if reporter.cancelling:
                # Also if it was committed in the same moment: cancelled work takes back what it did.
                await in_thread(self._remove, request.copy)
            raise
        return Committed(summary=summaries.summary(committed))

    async def record_image(self, request: RecordImage) -> Done:
        await in_thread(self._store.images.record, request.content)
        return Done()

    async def forget_image(self, request: ForgetImage) -> Done:
        await in_thread(self._store.images.forget, request.image)
        return Done()

    async def collect(self, _request: Collect, _reporter: Reporter) -> Collected:
        found = await in_thread(self._free)
        if found.blocked is not None:
            raise permanent_error("collection_blocked", found.blocked, remedy="delete the damaged copy, then collect")
        return Collected(chunks=found.chunks, bytes=found.freed_bytes)

    async def stats(self, _request: StatsRequest) -> RepositoryStats:
        store = self._store
        found = await in_thread(maintenance.stats, store)
        return RepositoryStats(
            copies=found.copies,
            images=len(store.images.names()),
            chunks=found.chunks,
            stored=found.stored_bytes,
            free=shutil.disk_usage(store.directory).free,
            staging=found.staging_bytes,
        )

    async def health(self, _request: DataServiceHealth) -> Health:
        free = shutil.disk_usage(self._store.directory).free
        if free < RESERVED_FREE_BYTES:
            return Health(healthy=False, message=f"the repository's file system has only {free} bytes left")
        return Health(healthy=True)

    @property
    def _store(self) -> Repository:
        if self._repository is None:
            raise StorageFailed("the repository is not open")
        return self._repository

    @property
    def _issuer(self) -> Grants:
        if self._grants is None:
            raise StorageFailed("the repository is not served yet")
        return self._grants

    def _commit(self, request: CommitCopy) -> CommittedCopy:
        store = self._store
        named = _by_name(request.copied.parts)
        try:
            known = store.committed(request.copy)
        except CalqueError as error:
            if error.problem.code != "not_found":
                raise
        else:
            _same_parts(named, _by_name(tuple(summaries.copy_part(part) for part in known.manifest.parts)))
            return known
        opened = store.writing(request.copy)
        _same_parts(named, _by_name(tuple(summaries.copy_part(part) for part in opened.sealed().values())))
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        return store.commit(request.copy, info=summaries.closing(opened.record.info.source, request, created=created))

    def _summaries(self) -> tuple[CopySummary, ...]:
        found = []
        for listed in self._store.copies():
            if listed.committed is None:
                logger.error("a copy is not listed: %s", listed.problem)
            else:
                found.append(summaries.summary(listed.committed))
        return tuple(found)

    def _remove(self, copy: str) -> None:
        """Removes the copy, committed or not: a transfer that a crash cut off has left a half behind."""
        if not self._store.delete(copy):
            self._store.abort(copy)
        self._free()

    def _free(self) -> maintenance.Collected:
        found = maintenance.collect(self._store)
        if found.blocked is not None:
            logger.error("nothing can be collected: %s", found.blocked)
        return found


async def _cancellable(run: Callable[[Callable[[], bool]], maintenance.Verification]) -> maintenance.Verification:
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


def _kept_port(path: Path) -> int:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return 0
