"""The whole broker: data services on the shared server, and those with a server of their own."""

from __future__ import annotations

import msgspec

from brokers.postgres.broker import PLANS, PostgresBroker
from brokers.postgres.logical import FORMATS
from brokers.postgres.physical.services import DEDICATED, PLAN, DedicatedServices, not_maskable
from brokers.postgres.server import Lost, Server, explain
from brokers.postgres.settings import PostgresSettings
from brokers.sdk.progress import Reporter
from schemas.brokers import (
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
from schemas.problems import CalqueError


class PostgresBrokerWithServers(PostgresBroker):
    """Which way a request goes follows from the plan when a data service is made, and from what is there afterwards."""

    all_plans = (*PLANS, PLAN)

    def __init__(self, settings: PostgresSettings) -> None:
        super().__init__(settings)
        self._dedicated = DedicatedServices(
            settings.dedicated, bin_dir=settings.bin_dir, restores=dict.fromkeys(FORMATS, self._restore_logical)
        )

    async def start(self) -> None:
        """As ever, and the servers that should run are looked after."""
        await super().start()
        await self._dedicated.open()

    async def stop(self) -> None:
        """The servers go on."""
        await self._dedicated.close()
        await super().stop()

    async def info(self, request: InfoRequest) -> DsbInfo:
        """With the plan ``dedicated`` where it can be had."""
        known = await super().info(request)
        offered = tuple(plan for plan in known.plans if plan.name != DEDICATED or self._dedicated.offered)
        return msgspec.structs.replace(
            known,
            plans=offered,
            copy_formats=known.copy_formats + self._dedicated.formats,
            limits=known.limits + self._dedicated.limits,
        )

    async def provision(self, request: Provision, reporter: Reporter) -> Provisioned:
        """By the plan."""
        if request.plan == DEDICATED and request.type == "database" and self._dedicated.offered:
            return await self._dedicated.provision(request, reporter)
        return await super().provision(request, reporter)

    async def deprovision(self, request: Deprovision, reporter: Reporter) -> Done:
        """By what is there."""
        if own := self._dedicated.find(request.service_id):
            await self._dedicated.deprovision(own)
            return Done()
        return await super().deprovision(request, reporter)

    async def bind(self, request: Bind) -> Bound:
        """By what is there."""
        if request.existing is None and (own := self._dedicated.find(request.service_id)):
            return await self._dedicated.bind(own, request)
        return await super().bind(request)

    async def unbind(self, request: Unbind) -> Done:
        """By what is there."""
        if own := self._dedicated.find(request.service_id):
            await own.databases.unbind(service_id=request.service_id, binding_id=request.binding_id)
            return Done()
        return await super().unbind(request)

    async def stage_copy(self, request: StageCopy, reporter: Reporter) -> Done:
        """By what is there."""
        if request.existing is None and (own := self._dedicated.find(request.service_id)):
            await self._dedicated.stage(own, request, reporter)
            return Done()
        return await super().stage_copy(request, reporter)

    async def preview_masking(self, request: PreviewMasking) -> MaskingPreview:
        """Of the shared server's alone."""
        if request.existing is None and self._dedicated.find(request.service_id):
            raise not_maskable()
        return await super().preview_masking(request)

    async def prepare_copy(self, request: PrepareCopy) -> Prepared:
        """By what is there."""
        if request.existing is None and (own := self._dedicated.find(request.service_id)):
            return await self._dedicated.prepare(own, request)
        return await super().prepare_copy(request)

    async def copy(self, request: CopyData, reporter: Reporter) -> Copied:
        """By what is there."""
        if request.existing is None and (own := self._dedicated.find(request.service_id)):
            return await self._dedicated.copy(own, request, reporter)
        return await super().copy(request, reporter)

    async def discard_copy(self, request: DiscardCopy) -> Done:
        """A copy is known by its id alone: both ways hear of it."""
        await self._dedicated.discard(request.copy)
        return await super().discard_copy(request)

    async def describe(self, request: DescribeDataServices) -> DataServicesDescription:
        """All of both."""
        known = await super().describe(request)
        return DataServicesDescription(resources=known.resources + self._dedicated.describe(request.service_id))

    async def _restore_logical(self, server: Server, service_id: str, grant: CopyGrant, reporter: Reporter) -> int:
        return await self._logical.restore(service_id, grant, reporter, server=server)

    async def health(self, request: DataServiceHealth) -> Health:
        """By what is there."""
        if request.existing is None and request.service_id is not None:
            own = self._dedicated.find(request.service_id)
            if own is not None:
                try:
                    return await self._dedicated.health(own)
                except Lost as error:
                    problem = explain(error)
                    return Health(healthy=False, message=problem.message if problem else "PostgreSQL does not answer")
                except CalqueError as error:
                    return Health(healthy=False, message=error.problem.message)
        return await super().health(request)
