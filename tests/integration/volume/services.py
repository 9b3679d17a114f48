"""Data services of the volume broker, as tests make and use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bus.connection import Bus
from schemas.brokers import (
    Bind,
    Bound,
    Copied,
    CopyData,
    CopyGrant,
    DataServicesDescription,
    Deprovision,
    DescribeDataServices,
    DiscardCopy,
    Done,
    PrepareCopy,
    Prepared,
    Provision,
    Provisioned,
    ResourceDescription,
    StageCopy,
    Unbind,
)
from schemas.ids import new_id
from schemas.secrets import Secret
from tests.integration.broker_process import BrokerProcess
from tests.integration.filesystem.site import Site

LABELS = {"instance": "i1", "instance_name": "hackathon", "data_service": "thumbs"}


class Volume(BrokerProcess):
    """The broker, with its requests in brief."""

    def __init__(self, *, bus: Bus, nats_url: str, directory: Path, name: str, **settings: Any) -> None:
        self.volumes = directory / "volumes"
        super().__init__(
            "brokers.volume",
            bus=bus,
            nats_url=nats_url,
            kind="dsb",
            name=name,
            directory=directory,
            volumes_dir=str(self.volumes),
            **settings,
        )

    def provision_request(self, service_id: str, *, restore: CopyGrant | None = None) -> Provision:
        return Provision(
            id=new_id(),
            service_id=service_id,
            type="volume",
            plan="small",
            labels=LABELS,
            restore=restore,
            copy_format="volume-tree" if restore else None,
        )

    async def provision(self, service_id: str, *, restore: CopyGrant | None = None) -> Provisioned:
        return await self.run("provision", self.provision_request(service_id, restore=restore), Provisioned)

    async def tree(self, service_id: str, *, restore: CopyGrant | None = None) -> Path:
        """A new tree, as the app of a binding sees it."""
        await self.provision(service_id, restore=restore)
        return Path((await self.bind(service_id)).attributes["path"])

    async def deprovision(self, service_id: str) -> None:
        await self.run("deprovision", Deprovision(id=new_id(), service_id=service_id), Done)

    async def bind(self, service_id: str, *, binding: str = "b1") -> Bound:
        request = Bind(id=new_id(), service_id=service_id, binding_id=binding, secret=Secret(value="unused"))
        return await self.ask("bind", request, Bound)

    async def unbind(self, service_id: str, *, binding: str = "b1") -> None:
        await self.ask("unbind", Unbind(id=new_id(), service_id=service_id, binding_id=binding), Done)

    async def stage(self, service_id: str, copy: str, *, grant: CopyGrant | None = None) -> None:
        request = StageCopy(id=new_id(), service_id=service_id, copy=copy, grant=grant)
        await self.run("stage_copy", request, Done)

    async def prepare(self, service_id: str, copy: str, *, hold_seconds: float = 60) -> Prepared:
        request = PrepareCopy(id=new_id(), service_id=service_id, copy=copy, hold_seconds=hold_seconds)
        return await self.ask("prepare_copy", request, Prepared)

    def copy_request(self, service_id: str, copy: str, grant: CopyGrant) -> CopyData:
        return CopyData(id=new_id(), service_id=service_id, copy=copy, grant=grant)

    async def copy(self, service_id: str, copy: str, grant: CopyGrant) -> Copied:
        return await self.run("copy", self.copy_request(service_id, copy, grant), Copied)

    async def discard(self, copy: str) -> None:
        await self.ask("discard_copy", DiscardCopy(id=new_id(), copy=copy), Done)

    async def describe(self, service_id: str | None = None) -> tuple[ResourceDescription, ...]:
        answer = await self.ask("describe", DescribeDataServices(service_id=service_id), DataServicesDescription)
        return answer.resources

    async def save(self, repository: Site, service_id: str, copy: str) -> CopyGrant:
        """A committed copy; the grant to read it."""
        await self.stage(service_id, copy, grant=repository.open_write(copy))
        await self.prepare(service_id, copy)
        return await self.finish(repository, service_id, copy)

    async def finish(self, repository: Site, service_id: str, copy: str) -> CopyGrant:
        """Stream what is prepared, and commit it."""
        await self.copy(service_id, copy, repository.open_write(copy))
        repository.repository.commit(copy)
        await self.discard(copy)
        return repository.open_read(copy)

    def leftovers(self) -> set[Path]:
        """What lies on the disk besides trees, their labels, and notes of moments."""
        places = [self.volumes / name for name in ("making", "trash", "moments")]
        return {path for place in places for path in place.iterdir() if path.suffix != ".json"}
