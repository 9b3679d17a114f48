"""The PostgreSQL broker: what each operation of a data service broker means here."""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar
from urllib.parse import quote

import msgspec

from brokers.postgres.databases import CONNECTION_LIMIT, Databases, Mark
from brokers.postgres.existing import ExistingDatabase, check_readable, explained
from brokers.postgres.instant.kept import KeptDatabases
from brokers.postgres.instant.tidying import Tidying
from brokers.postgres.logical import FORMATS, LOGICAL, Logical
from brokers.postgres.masking import Masker
from brokers.postgres.masking_requests import MaskingRequests
from brokers.postgres.moments import Moments, Source
from brokers.postgres.names import database_of
from brokers.postgres.programs import ProgramFailed
from brokers.postgres.rights import rights_of
from brokers.postgres.server import Lost, Server, explain
from brokers.postgres.settings import PostgresSettings
from brokers.postgres.tools import Tools
from brokers.sdk.copystream import CopyReader
from brokers.sdk.progress import Reporter
from brokers.sdk.service import Broker
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
    Health,
    InfoRequest,
    MaskingPreview,
    PrepareCopy,
    Prepared,
    PreviewMasking,
    Provision,
    Provisioned,
    StageCopy,
    Unbind,
)
from schemas.problems import CalqueError, Problem, invalid, permanent
from schemas.secrets import Secret
from schemas.values import Plan

logger = logging.getLogger(__name__)

PLANS = (
    Plan(
        name="small",
        description="a database of its own on the shared server",
        limits={"connections": str(CONNECTION_LIMIT)},
    ),
)
ABANDON_SECONDS = 60.0
STOPPING_ABANDON_SECONDS = 2.0


class PostgresBroker(Broker):
    """A database and an owner role per data service, a login role per binding."""

    description = "PostgreSQL: a database and an owner role per data service"
    all_plans: ClassVar[tuple[Plan, ...]] = PLANS

    def __init__(self, settings: PostgresSettings) -> None:
        super().__init__(settings)
        self._plans = settings.priced(self.all_plans)
        self._own = settings
        self._server = Server(settings.admin.login)
        self._tools = Tools(settings.bin_dir)
        self._databases = Databases(self._server)
        self._moments = Moments(
            self._server,
            self._databases,
            bin_dir=settings.bin_dir,
            notes=settings.state_dir / "moments",
            parallel=settings.parallel,
        )
        self._masker = Masker({name: each.custom() for name, each in settings.transformers.items()})
        self._logical = Logical(settings, self._server, self._moments, self._masker)
        self._kept = KeptDatabases(self._server, self._databases, settings.instant)
        self._tidying = Tidying(self._kept)
        self._masking = MaskingRequests(self._masker, self._server, self._databases)
        self._version = ""
        self._known_limits: tuple[str, ...] = ()

    async def start(self) -> None:
        """Nothing that needs the server."""
        self._moments.open()
        self._tidying.start()

    async def stop(self) -> None:
        """The moments end with the process in any case; here their sessions end in order."""
        await self._tidying.stop()
        await self._moments.close()

    def explain(self, error: BaseException) -> Problem | None:
        """Errors of the server, and of its programs."""
        if isinstance(error, ProgramFailed):
            return permanent("postgres", str(error))
        return explain(error)

    async def info(self, _request: InfoRequest) -> DsbInfo:
        """What this broker offers; the server's version while it is known."""
        return DsbInfo(
            name=self.settings.name,
            version=SERVICE_VERSION,
            types=("database",),
            plans=self._plans,
            attributes=("host", "port", "database", "user"),
            secret_attributes=("password", "uri"),
            protocols=("http",),
            copy_formats=FORMATS,
            engine="postgresql",
            engine_version=await self._engine_version(),
            can_attach=True,
            can_mask=True,
            limits=await self._limits(),
        )

    async def attach(self, request: Attach, _reporter: Reporter) -> Attachable:
        """Look whether the database is there and all of it can be read; nothing is written."""
        if request.type != "database":
            raise CalqueError(invalid("type", f"PostgreSQL has no {request.type}", "attach a database"))
        existing = ExistingDatabase(request.existing)
        async with existing.session() as session:
            await check_readable(session, user=existing.login.user)
            await self._tools.check_dump(session)
            return Attachable(resource=existing.resource(version=session.version))

    async def provision(self, request: Provision, reporter: Reporter) -> Provisioned:
        """A database, blank or restored. Half of one, from a run that was cut off, is dropped and made anew."""
        _check(request)
        mark = await self._databases.complete(request.service_id)
        if mark is None:
            mark = Mark(service_id=request.service_id, labels=request.labels, plan=request.plan)
            try:
                if request.restore is None:
                    await self._databases.create(mark)
                    await self._databases.finish(mark)
                else:
                    mark = await self._made_of_copy(mark, request.restore, reporter)
            except asyncio.CancelledError:
                seconds = ABANDON_SECONDS if reporter.cancelling else STOPPING_ABANDON_SECONDS
                await self._abandon(request.service_id, seconds=seconds)
                raise
            except Exception:
                await self._abandon(request.service_id, seconds=ABANDON_SECONDS)
                raise
        reachable = self._own.reachable
        name = database_of(request.service_id)
        return Provisioned(
            resource={"database": name, "owner": name, "host": reachable.host, "port": str(reachable.port)},
            restored_bytes=mark.restored_bytes,
            method=mark.method,
        )

    async def deprovision(self, request: Deprovision, _reporter: Reporter) -> Done:
        """Everything of the data service goes, sessions and prepared copies first."""
        await self._moments.discard_service(request.service_id)
        await self._databases.drop(request.service_id)
        return Done()

    async def bind(self, request: Bind) -> Bound:
        """A login role with the proposed secret as its password; of an existing database, the user's own."""
        if request.existing is not None:
            return ExistingDatabase(request.existing).bound()
        login = await self._databases.bind(
            service_id=request.service_id, binding_id=request.binding_id, secret=request.secret
        )
        reachable, database = self._own.reachable, database_of(request.service_id)
        uri = (
            f"postgresql://{login}:{quote(request.secret.value, safe='')}@{reachable.host}:{reachable.port}/{database}"
        )
        return Bound(
            attributes={
                "host": reachable.host,
                "port": str(reachable.port),
                "database": database,
                "user": login,
            },
            secrets={"password": request.secret, "uri": Secret(value=uri)},
        )

    async def unbind(self, request: Unbind) -> Done:
        """The login role goes, and its sessions."""
        await self._databases.unbind(service_id=request.service_id, binding_id=request.binding_id)
        return Done()

    async def stage_copy(self, request: StageCopy, _reporter: Reporter) -> Done:
        """A logical copy has nothing that can be copied ahead. Whether masking rules fit is said here."""
        await self._masking.check(request)
        return Done()

    async def preview_masking(self, request: PreviewMasking) -> MaskingPreview:
        """What the rules do to the schema and to some rows. Nothing is written or kept."""
        return await self._masking.preview(request)

    async def prepare_copy(self, request: PrepareCopy) -> Prepared:
        """An exported snapshot with all its locks."""
        if request.existing is None:
            return await self._moments.prepare(
                service_id=request.service_id, copy=request.copy, hold_seconds=request.hold_seconds
            )
        existing = ExistingDatabase(request.existing)
        source = Source(existing.server, existing.login.database, existing.login)
        async with explained():
            return await self._moments.prepare(
                service_id=request.service_id, copy=request.copy, hold_seconds=request.hold_seconds, source=source
            )

    async def copy(self, request: CopyData, reporter: Reporter) -> Copied:
        """Stream the database as it was at the moment."""
        return await self._logical.copy(request, reporter)

    async def discard_copy(self, request: DiscardCopy) -> Done:
        """The session of the moment ends; so does a copy that streams from it."""
        await self._moments.discard(request.copy)
        return Done()

    async def describe(self, request: DescribeDataServices) -> DataServicesDescription:
        """Our databases and roles, known by their names and comments: no state of the broker is needed."""
        resources = await self._databases.describe(request.service_id)
        if request.service_id is None:
            resources += await self._kept.describe()
        return DataServicesDescription(resources=resources)

    async def health(self, request: DataServiceHealth) -> Health:
        """Whether the server, or the data service's database, answers."""
        try:
            if request.existing is not None:
                async with ExistingDatabase(request.existing).session() as session:
                    await session.value("SELECT 1")
                return Health(healthy=True)
            if request.service_id is None:
                async with self._server.session() as session:
                    lacking = (await rights_of(session)).problem()
                return Health(healthy=lacking is None, message=lacking.sentence() if lacking else "")
            if await self._databases.complete(request.service_id) is None:
                return Health(healthy=False, message="the database is not there, or not complete")
            async with self._server.session(database=database_of(request.service_id)) as session:
                await session.value("SELECT 1")
        except Lost as error:
            problem = explain(error)
            return Health(healthy=False, message=problem.message if problem else "PostgreSQL does not answer")
        except CalqueError as error:
            return Health(healthy=False, message=error.problem.message)
        return Health(healthy=True)

    async def _made_of_copy(self, mark: Mark, grant: CopyGrant, reporter: Reporter) -> Mark:
        """A complete database of a copy: the clone of one that is kept of it, else restored, and kept where it pays."""
        head = await CopyReader(grant).describe()
        if method := await self._kept.clone(mark, head):
            reporter.report(done=head.logical_bytes, total=head.logical_bytes)
            mark = msgspec.structs.replace(mark, restored_bytes=head.logical_bytes, method=method)
            await self._databases.finish(mark)
            return mark
        await self._databases.create(mark)
        restored = await self._logical.restore(mark.service_id, grant, reporter)
        mark = msgspec.structs.replace(mark, restored_bytes=restored, method=LOGICAL)
        await self._databases.finish(mark)
        await self._kept.keep(mark.service_id, head)
        return mark

    async def _abandon(self, service_id: str, *, seconds: float) -> None:
        """Drop half a database now, if the server lets us; if not, the next try or a deprovision does."""
        try:
            async with asyncio.timeout(seconds):
                await self._databases.drop(service_id)
        except Exception as error:
            logger.warning("half of the data service %s is left for now: %s", service_id, type(error).__name__)

    async def _limits(self) -> tuple[str, ...]:
        """What its role may not do; what was found last while the server does not answer."""
        try:
            async with self._server.session() as session:
                self._known_limits = (await rights_of(session)).limits
        except (Lost, CalqueError) as error:
            logger.info("the rights of the broker's role are not known now: %s", type(error).__name__)
        return self._known_limits

    async def _engine_version(self) -> str:
        if not self._version:
            try:
                async with self._server.session() as session:
                    self._version = session.version
            except (Lost, CalqueError) as error:
                logger.info("the version of the server is not known yet: %s", type(error).__name__)
        return self._version


def _check(request: Provision) -> None:
    if request.type != "database":
        raise CalqueError(invalid("type", f"PostgreSQL offers no {request.type}", "ask for a database"))
    if request.plan not in {plan.name for plan in PLANS}:
        offered = ", ".join(plan.name for plan in PLANS)
        raise CalqueError(invalid("plan", f"there is no plan {request.plan!r}", f"choose one of: {offered}"))
    if request.parameters:
        raise CalqueError(invalid("parameters", f"{', '.join(sorted(request.parameters))}: PostgreSQL takes none"))
    if request.restore is not None and request.copy_format not in FORMATS:
        known = f"use one of: {', '.join(FORMATS)}"
        raise CalqueError(invalid("copy_format", f"{request.copy_format!r} can't be restored here", known))
