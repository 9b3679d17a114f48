"""A simulated data service broker: databases or buckets, bindings, prepared moments that die with the process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from brokers.sdk.errors import moment_lost, permanent_error
from brokers.sdk.progress import Reporter
from schemas import brokers as wire
from schemas.masking import Masked, rules_digest
from schemas.problems import CalqueError
from schemas.secrets import Secret
from schemas.values import CopyPart, DataServiceType, Plan
from tests.simulation.loop import Process
from tests.simulation.repository import Repositories
from tests.simulation.works import MemoryOutcomes, SimBroker, Surroundings

FORMAT = "simulated"
EXISTING = ("sim://production", "sim://other")
"""What was there before at every site."""


@dataclass
class Service:
    """A data service as the technology holds it."""

    labels: dict[str, str]
    complete: bool = False
    restored: str | None = None
    bindings: set[str] = field(default_factory=set)


class Moment(NamedTuple):
    """A prepared moment."""

    service_id: str
    fixed_at: float


@dataclass
class DataDisk:
    """What outlives the broker. ``fixed`` is a diary of moments for the judge: copy -> when it was fixed.

    ``existing`` is what was there before, by URL. A broker must not keep under which ids it was attached; this one
    does (``attached``), and believes whoever asks it to remove one, so that the judge sees what the agent asks for.
    """

    outcomes: MemoryOutcomes = field(default_factory=MemoryOutcomes)
    services: dict[str, Service] = field(default_factory=dict)
    staged: set[str] = field(default_factory=set)
    prepared: set[str] = field(default_factory=set)
    discarded: set[str] = field(default_factory=set)
    fixed: dict[str, list[float]] = field(default_factory=dict)
    existing: dict[str, str] = field(default_factory=lambda: dict.fromkeys(EXISTING, "theirs"))
    attached: dict[str, str] = field(default_factory=dict)


class DataBroker(SimBroker):
    """One kind of data services at one site."""

    def __init__(
        self,
        around: Surroundings,
        process: Process,
        *,
        name: str,
        offers: DataServiceType,
        disk: DataDisk,
        repositories: Repositories,
    ) -> None:
        super().__init__(around, process, kind="dsb", name=name, outcomes=disk.outcomes)
        self._offers: DataServiceType = offers
        self._disk = disk
        self._repositories = repositories
        self.moments: dict[str, Moment] = {}

    async def info(self, _request: wire.InfoRequest) -> wire.DsbInfo:
        return wire.DsbInfo(
            name=self.settings.name,
            version="1",
            types=(self._offers,),
            plans=(Plan(name="small"),),
            attributes=("host", "user"),
            secret_attributes=("uri",),
            protocols=("http",),
            copy_formats=(FORMAT,),
            can_attach=True,
            can_mask=self._offers == "database",
        )

    async def attach(self, request: wire.Attach, _reporter: Reporter) -> wire.Attachable:
        await self.point("attach", "before")
        if request.existing.url not in self._disk.existing:
            raise permanent_error("not_found", "it is not there", field="attach")
        self._disk.attached[request.service_id] = request.existing.url
        await self.point("attach", "after")
        return wire.Attachable(resource={"where": request.existing.url})

    async def provision(self, request: wire.Provision, reporter: Reporter) -> wire.Provisioned:
        services = self._disk.services
        if request.service_id in self._disk.attached:
            self._disk.existing[self._disk.attached[request.service_id]] = "overwritten"
        known = services.get(request.service_id)
        if known is None or not known.complete:
            services.pop(request.service_id, None)
            await self.point("provision", "before")
            made = services[request.service_id] = Service(labels=dict(request.labels))
            try:
                if request.restore is not None:
                    self._repositories.read(request.restore, by=self.around.site)
                    await self.point("restore", "amid", pieces=10)
                    made.restored = request.restore.copy
                await self.point("provision", "amid")
                made.complete = True
            except asyncio.CancelledError:
                if reporter.cancelling and not self.process.dead:
                    services.pop(request.service_id, None)
                raise
            except Exception:
                services.pop(request.service_id, None)
                raise
        try:
            await self.point("provision", "after")
        except asyncio.CancelledError:
            if reporter.cancelling and not self.process.dead:
                services.pop(request.service_id, None)
            raise
        return wire.Provisioned(resource={"database": request.service_id})

    async def deprovision(self, request: wire.Deprovision, _reporter: Reporter) -> wire.Done:
        await self.point("deprovision", "before")
        if request.service_id in self._disk.attached:
            self._disk.existing.pop(self._disk.attached[request.service_id], None)
        for copy in [copy for copy, moment in self.moments.items() if moment.service_id == request.service_id]:
            del self.moments[copy]
        self._disk.services.pop(request.service_id, None)
        await self.point("deprovision", "after")
        return wire.Done()

    async def bind(self, request: wire.Bind) -> wire.Bound:
        await self.point("bind", "before")
        if request.existing is not None:
            return wire.Bound(attributes={"host": "h", "user": "theirs"}, secrets={"uri": Secret(value="theirs")})
        self._service(request.service_id).bindings.add(request.binding_id)
        await self.point("bind", "after")
        return wire.Bound(
            attributes={"host": "h", "user": request.binding_id}, secrets={"uri": Secret(value=request.secret.value)}
        )

    async def unbind(self, request: wire.Unbind) -> wire.Done:
        await self.point("unbind", "before")
        if (service := self._disk.services.get(request.service_id)) is not None:
            service.bindings.discard(request.binding_id)
        await self.point("unbind", "after")
        return wire.Done()

    async def stage_copy(self, request: wire.StageCopy, reporter: Reporter) -> wire.Done:
        await self.point("stage_copy", "before")
        if request.copy in self._disk.discarded:
            raise permanent_error("discarded", f"copy {request.copy} was discarded")
        self._disk.staged.add(request.copy)
        try:
            if request.grant is not None:
                await self.point("stage_copy", "amid", pieces=10)
                try:
                    self._repositories.write_ahead(request.grant, by=self.around.site)
                except CalqueError as error:
                    self.note("stages by itself", f"{request.copy}: {error.problem.code}")
            await self.point("stage_copy", "after")
        except asyncio.CancelledError:
            if reporter.cancelling and not self.process.dead:
                self._disk.staged.discard(request.copy)
            raise
        return wire.Done()

    async def prepare_copy(self, request: wire.PrepareCopy) -> wire.Prepared:
        disk = self._disk
        await self.point("prepare_copy", "before")
        if request.copy in disk.discarded:
            raise moment_lost(request.copy, "it was discarded")
        if request.copy not in self.moments:
            if request.copy in disk.prepared:
                raise moment_lost(request.copy, "the broker was restarted")
            if request.existing is None:
                self._service(request.service_id)
            disk.prepared.add(request.copy)
            now = self.around.loop.time()
            self.moments[request.copy] = Moment(request.service_id, now)
            disk.fixed.setdefault(request.copy, []).append(now)
            self.note("fixed the moment of", request.copy)
        await self.point("prepare_copy", "after")
        return wire.Prepared(moment=f"at {self.moments[request.copy].fixed_at}" if request.copy in self.moments else "")

    async def copy(self, request: wire.CopyData, _reporter: Reporter) -> wire.Copied:
        await self.point("copy", "before")
        parts: list[CopyPart] = []
        for name in ("data", "sequences"):
            moment = self.moments.get(request.copy)
            if moment is None:
                raise moment_lost(request.copy, "it is not held here")
            await self.point("copy", "amid", pieces=10)
            part = CopyPart(name=name, media_type="x", size=10, digest=f"{request.copy}-{name}-{moment.fixed_at}")
            self._repositories.write(request.grant, part, by=self.around.site)
            parts.append(part)
        await self.point("copy", "after")
        masked = Masked(rules=rules_digest(request.masking.rules), columns=1) if request.masking else None
        return wire.Copied(copy_format=FORMAT, parts=tuple(parts), masked=masked)

    async def discard_copy(self, request: wire.DiscardCopy) -> wire.Done:
        await self.point("discard_copy", "before")
        self._disk.discarded.add(request.copy)
        self._disk.staged.discard(request.copy)
        self.moments.pop(request.copy, None)
        await self.point("discard_copy", "after")
        return wire.Done()

    def _service(self, service_id: str) -> Service:
        service = self._disk.services.get(service_id)
        if service is None or not service.complete:
            raise permanent_error("not_found", f"there is no data service {service_id}", field="service_id")
        return service
