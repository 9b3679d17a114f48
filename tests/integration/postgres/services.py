"""Data services of the PostgreSQL broker, as tests make and use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, LiteralString

import psycopg

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
    Unbind,
)
from schemas.ids import new_id
from schemas.secrets import Secret
from tests.integration.broker_process import BrokerProcess
from tests.servers import RunningPostgres

PASSWORD = "pass/word?&%' \"of-this-test"
LABELS = {"instance": "i1", "instance_name": "hackathon", "data_service": "ideas"}


class Postgres(BrokerProcess):
    """The broker, with its requests in brief."""

    def __init__(
        self,
        server: RunningPostgres,
        *,
        bus: Bus,
        nats_url: str,
        directory: Path,
        name: str,
        admin: dict[str, Any] | None = None,
        bin_dir: Path | None = None,
        **settings: Any,
    ) -> None:
        address = server.server
        super().__init__(
            "brokers.postgres",
            bus=bus,
            nats_url=nats_url,
            kind="dsb",
            name=name,
            directory=directory,
            admin=admin
            or {
                "host": address.host,
                "port": address.port,
                "user": address.user,
                "password_file": str(address.password_file),
            },
            bin_dir=str(bin_dir or address.bin_dir),
            **settings,
        )
        self.server = server

    def provision_request(self, service_id: str, *, restore: CopyGrant | None = None) -> Provision:
        return Provision(
            id=new_id(),
            service_id=service_id,
            type="database",
            plan="small",
            labels=LABELS,
            restore=restore,
            copy_format="pg_dump-custom" if restore else None,
        )

    async def provision(self, service_id: str, *, restore: CopyGrant | None = None) -> Provisioned:
        return await self.run("provision", self.provision_request(service_id, restore=restore), Provisioned)

    async def deprovision(self, service_id: str) -> None:
        await self.run("deprovision", Deprovision(id=new_id(), service_id=service_id), Done)

    async def bind(self, service_id: str, *, binding: str = "b1", password: str = PASSWORD) -> Bound:
        request = Bind(id=new_id(), service_id=service_id, binding_id=binding, secret=Secret(value=password))
        return await self.ask("bind", request, Bound)

    async def unbind(self, service_id: str, *, binding: str = "b1") -> None:
        await self.ask("unbind", Unbind(id=new_id(), service_id=service_id, binding_id=binding), Done)

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

    async def connect(self, service_id: str, *, binding: str = "b1") -> psycopg.AsyncConnection[tuple[Any, ...]]:
        """As the app of a binding."""
        bound = await self.bind(service_id, binding=binding)
        return await psycopg.AsyncConnection.connect(bound.secrets["uri"].value, autocommit=True)

    async def admin(self, *, database: str = "postgres") -> psycopg.AsyncConnection[tuple[Any, ...]]:
        address = self.server.server
        return await psycopg.AsyncConnection.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=self.server.password,
            dbname=database,
            autocommit=True,
        )


async def rows(connection: psycopg.AsyncConnection[tuple[Any, ...]], query: LiteralString) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query)).fetchall()
