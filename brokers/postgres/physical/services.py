"""The data services of the plan ``dedicated``: what each operation of the broker means for one of them.

That a data service has a server of its own is seen by its directory, named after its id. A watch starts servers that
should run and don't: after the machine was started anew, say.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from brokers.postgres.databases import CONNECTION_LIMIT, Mark
from brokers.postgres.logical import LOGICAL
from brokers.postgres.logins import Login
from brokers.postgres.names import PREFIX, database_of
from brokers.postgres.physical.account import Account, account_for, run_as
from brokers.postgres.physical.cluster import Cluster, Record
from brokers.postgres.physical.copies import PHYSICAL, PHYSICAL_FORMAT, TARRED_FORMAT, PhysicalCopies
from brokers.postgres.physical.restoring import restore
from brokers.postgres.physical.settings import DedicatedSection
from brokers.postgres.programs import ProgramFailed
from brokers.postgres.server import Server, ServerError
from brokers.sdk.errors import permanent_error, temporary_error
from brokers.sdk.progress import Reporter
from schemas.brokers import (
    Bind,
    Bound,
    Copied,
    CopyData,
    CopyGrant,
    Health,
    PrepareCopy,
    Prepared,
    Provision,
    Provisioned,
    ResourceDescription,
    StageCopy,
)
from schemas.problems import CalqueError, invalid
from schemas.values import Plan

logger = logging.getLogger(__name__)

DEDICATED = "dedicated"
RestoreLogically = Callable[[Server, str, CopyGrant, Reporter], Awaitable[int]]
PLAN = Plan(
    name=DEDICATED,
    description="a PostgreSQL server of its own, copied and restored as files (unlogged tables come back empty)",
    limits={"connections": str(CONNECTION_LIMIT)},
    can_mask=False,
    copy_formats=(PHYSICAL_FORMAT, TARRED_FORMAT),
)
_FORMATS = PLAN.copy_formats
WATCH_SECONDS = 5.0
ABANDON_SECONDS = 60.0
STOPPING_ABANDON_SECONDS = 2.0
NOTES_KEPT_SECONDS = 8 * 24 * 3600.0
_VERSION_SECONDS = 30.0
_TRIES = 200
_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{24}}")
_MAJOR = re.compile(r"\(PostgreSQL\) (\d+)")


class DedicatedServices:
    """All of them at this broker. Without a ``section`` there are none, and none can be made.

    ``restores`` is how copies of other formats get into the empty database of a new server.
    """

    def __init__(
        self, section: DedicatedSection | None, *, bin_dir: Path, restores: Mapping[str, RestoreLogically]
    ) -> None:
        self._section = section
        self._bin_dir = bin_dir.absolute()
        self._restores = restores
        self._account: Account | None = None
        self._major = 0
        self._why_not = ""
        self._copying: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._watch: asyncio.Task[None] | None = None

    # --- the broker's life

    async def open(self) -> None:
        """Find out whether there can be any, and watch over those that there are."""
        if self._section is None:
            return
        try:
            self._account = account_for(self._section.user)
            self._notes.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._section.directory.chmod(0o711)
            self._why_not = await self._obstacle(self._account)
        except (CalqueError, OSError, ProgramFailed, TimeoutError) as error:
            self._why_not = str(error)
        if self._why_not:
            logger.warning("there is no plan %s: %s", DEDICATED, self._why_not)
        if self._account is not None:
            self._watch = asyncio.create_task(self._for_ever(), name="watch dedicated servers")

    async def close(self) -> None:
        """The servers go on."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plan, where it is offered."""
        return (PLAN,) if self.offered else ()

    @property
    def formats(self) -> tuple[str, ...]:
        """Of copies that only this plan restores."""
        return _FORMATS if self.offered else ()

    @property
    def limits(self) -> tuple[str, ...]:
        """Why it is not offered, though the operator asked for it."""
        return (f"no plan {DEDICATED}: {self._why_not}",) if self._why_not else ()

    @property
    def offered(self) -> bool:
        """Whether there can be any."""
        return self._section is not None and self._account is not None and not self._why_not

    def find(self, service_id: str) -> Cluster | None:
        """The server of a data service, or what is left of it."""
        if self._section is None or self._account is None:
            return None
        cluster = self._cluster(database_of(service_id))
        return cluster if cluster.directory.exists() else None

    # --- operations

    async def provision(self, request: Provision, reporter: Reporter) -> Provisioned:
        """A server, blank or of a physical copy. Half of one, from a run that was cut off, is removed first."""
        assert self._section is not None
        if request.parameters:
            raise CalqueError(invalid("parameters", f"{', '.join(sorted(request.parameters))}: PostgreSQL takes none"))
        known = (*_FORMATS, *self._restores)
        if request.restore is not None and request.copy_format not in known:
            raise CalqueError(
                invalid("copy_format", f"{request.copy_format!r} can't be restored here", f"use {' or '.join(known)}")
            )
        cluster = self._cluster(database_of(request.service_id))
        async with self._locked(cluster):
            record = cluster.record()  # in here: another attempt may just have made it
            if record is None or not record.ready:
                record = await self._make(cluster, request, reporter)
            await cluster.start()
        name = database_of(request.service_id)
        return Provisioned(
            resource={"database": name, "owner": name, "host": self._section.host, "port": str(record.port)},
            restored_bytes=record.restored_bytes,
            method=record.method,
        )

    async def deprovision(self, cluster: Cluster) -> None:
        """The server goes with all that is in it and all that was staged."""
        async with self._locked(cluster):
            await asyncio.to_thread(self._copies(cluster).discard_all)
            await cluster.remove()

    async def bind(self, cluster: Cluster, request: Bind) -> Bound:
        """As on the shared server, by the server's own address."""
        assert self._section is not None
        user = await cluster.databases.bind(
            service_id=request.service_id, binding_id=request.binding_id, secret=request.secret
        )
        login = Login(self._section.host, cluster.login().port, user, database_of(request.service_id), request.secret)
        attributes = {"host": login.host, "port": str(login.port), "database": login.database, "user": user}
        return Bound(attributes=attributes, secrets={"password": request.secret, "uri": login.uri})

    async def stage(self, cluster: Cluster, request: StageCopy, reporter: Reporter) -> None:
        """The base backup. Raises ``not_maskable`` for a copy that is to be masked."""
        if request.masking is not None:
            raise not_maskable()
        await self._copies(cluster).stage(request.copy, reporter)

    async def prepare(self, cluster: Cluster, request: PrepareCopy) -> Prepared:
        """The restore point."""
        return await self._copies(cluster).prepare(request)

    async def copy(self, cluster: Cluster, request: CopyData, reporter: Reporter) -> Copied:
        """The files and the log."""
        if request.masking is not None:
            raise not_maskable()
        return await self._copies(cluster).copy(request, reporter)

    async def discard(self, copy: str) -> None:
        """Wherever it was staged."""
        if self._section is None or self._account is None:
            return
        await asyncio.to_thread(PhysicalCopies.note_discarded, self._notes, copy)
        for cluster in self._clusters():
            await self._copies(cluster).discard(copy)

    async def health(self, cluster: Cluster) -> Health:
        """Whether its server answers."""
        record = cluster.record()
        if record is None or not record.ready:
            return Health(healthy=False, message="the server is not complete")
        if not cluster.running():
            return Health(healthy=False, message="the server does not run")
        async with cluster.server.session(database=database_of(record.service_id)) as session:
            await session.value("SELECT 1")
        return Health(healthy=True)

    def describe(self, service_id: str | None) -> tuple[ResourceDescription, ...]:
        """All servers that are ours, or that of one data service; half ones too."""
        if self._section is None or self._account is None:
            return ()
        own = database_of(service_id) if service_id is not None else None
        found = []
        for cluster in self._clusters():
            name = cluster.directory.name
            if own in (None, name):
                record = cluster.record() or Record(service_id=name)
                labels = {**record.labels, "service_id": record.service_id}
                found.append(ResourceDescription(id=record.service_id, kind="server", name=name, labels=labels))
        return tuple(found)

    # --- inside

    @property
    def _notes(self) -> Path:
        assert self._section is not None
        return self._section.directory / "notes"

    def _cluster(self, name: str) -> Cluster:
        assert self._section is not None
        assert self._account is not None
        directory = self._section.directory.absolute() / name
        return Cluster(directory, account=self._account, bin_dir=self._bin_dir, host=self._section.host)

    def _clusters(self) -> list[Cluster]:
        assert self._section is not None
        names = (path.name for path in self._section.directory.iterdir() if path.is_dir())
        return [self._cluster(name) for name in sorted(names) if _NAME.fullmatch(name)]

    def _copies(self, cluster: Cluster) -> PhysicalCopies:
        return PhysicalCopies(cluster, notes=self._notes, copying=self._copying)

    @asynccontextmanager
    async def _locked(self, cluster: Cluster) -> AsyncIterator[None]:
        """Keeps the watch from starting what somebody makes or removes."""
        async with self._locks.setdefault(cluster.directory.name, asyncio.Lock()):
            yield

    async def _make(self, cluster: Cluster, request: Provision, reporter: Reporter) -> Record:
        if not self.offered:
            raise permanent_error("not_offered", self._why_not, field="plan", remedy="choose another plan")
        mark = Mark(service_id=request.service_id, labels=request.labels, plan=request.plan)
        try:
            await cluster.remove()
            record = Record(
                service_id=request.service_id,
                labels=request.labels,
                plan=request.plan,
                port=self._free_port(),
                made=secrets.token_hex(16),
            )
            cluster.write(record)
            if request.restore is None or request.copy_format not in _FORMATS:
                await cluster.initialise()
                await cluster.start()
                await cluster.databases.create(mark)
                if request.restore is not None:
                    way = self._restores[str(request.copy_format)]
                    restored = await way(cluster.server, request.service_id, request.restore, reporter)
                    record = msgspec.structs.replace(record, restored_bytes=restored, method=LOGICAL)
            else:
                restored = await restore(cluster, mark, request.restore, major=self._major, reporter=reporter)
                record = msgspec.structs.replace(record, restored_bytes=restored, method=PHYSICAL)
            await cluster.databases.finish(mark)
            record = msgspec.structs.replace(record, ready=True)
            cluster.write(record)
        except asyncio.CancelledError:
            await _abandon(cluster, seconds=ABANDON_SECONDS if reporter.cancelling else STOPPING_ABANDON_SECONDS)
            raise
        except Exception:
            await _abandon(cluster, seconds=ABANDON_SECONDS)
            raise
        return record

    def _free_port(self) -> int:
        assert self._section is not None
        taken = {record.port for cluster in self._clusters() if (record := cluster.record())}
        for _ in range(_TRIES):
            port = self._section.first_port + secrets.randbelow(self._section.last_port - self._section.first_port + 1)
            if port not in taken and _is_free(self._section.host, port):
                return port
        raise temporary_error("unavailable", "no port is free for another server", retry_after_seconds=10.0)

    async def _obstacle(self, account: Account) -> str:
        """Why no server can be made; empty when one can."""
        assert self._section is not None
        for program in ("postgres", "initdb", "pg_ctl"):
            path = self._bin_dir / program
            if not path.exists():
                return f"{path} is missing"
            if not account.may_run(path):
                return f"the user of servers can't reach {path}"
        path = self._bin_dir / "postgres"
        said = await run_as(account, path, ("--version",), directory=Path("/"), seconds=_VERSION_SECONDS)
        found = _MAJOR.search(said)
        if found is None:
            return f"{path} does not say its version"
        self._major = int(found[1])
        return ""

    async def _for_ever(self) -> None:
        while True:
            for cluster in self._clusters():
                try:
                    async with self._locked(cluster):
                        record = cluster.record()
                        if record is None or not record.ready:
                            continue
                        if not cluster.running():
                            logger.warning("the server of %s does not run and is started", record.service_id)
                            await cluster.start()
                    await self._copies(cluster).tidy()
                except (ServerError, ProgramFailed, OSError, CalqueError) as error:
                    logger.warning("the server in %s: %s", cluster.directory.name, error)
            oldest = time.time() - NOTES_KEPT_SECONDS
            for note in self._notes.iterdir():
                if note.stat().st_mtime < oldest:
                    note.unlink(missing_ok=True)
            await asyncio.sleep(WATCH_SECONDS)


async def _abandon(cluster: Cluster, *, seconds: float) -> None:
    """Remove half of a server now; if that fails, the next try or a deprovision does."""
    try:
        async with asyncio.timeout(seconds):
            await cluster.remove()
    except Exception as error:
        logger.warning("half of a server is left for now in %s: %s", cluster.directory.name, type(error).__name__)


def not_maskable() -> CalqueError:
    """What is said to who wants to mask one of these."""
    return permanent_error(
        "not_maskable",
        f"a data service with the plan {DEDICATED} is copied as files, which can't be masked",
        field="masking",
        remedy="save from a data service of another plan, or without masking",
    )


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
