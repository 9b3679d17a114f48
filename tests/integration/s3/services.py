"""Data services of the S3 broker, as tests make and use them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

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
from tests.servers import RunningS3

SECRET = "secret-key-of-this-test-0123456789abcdef"
LABELS = {"instance": "i1", "instance_name": "hackathon", "data_service": "docs"}


class Bucket:
    """A bucket as somebody with these keys sees it. Calls block."""

    def __init__(self, *, endpoint: str, bucket: str, access_key: str, secret_key: str) -> None:
        self.name = bucket
        self.client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, max_pool_connections=16),
        )

    async def put(self, key: str, body: bytes, **more: Any) -> None:
        await asyncio.to_thread(self.client.put_object, Bucket=self.name, Key=key, Body=body, **more)

    async def fill(self, objects: dict[str, bytes]) -> None:
        for at in range(0, len(objects), 16):
            await asyncio.gather(*(self.put(key, body) for key, body in list(objects.items())[at : at + 16]))

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self.client.delete_object, Bucket=self.name, Key=key)

    async def get(self, key: str) -> tuple[bytes, dict[str, Any]]:
        answer = await asyncio.to_thread(self.client.get_object, Bucket=self.name, Key=key)
        return await asyncio.to_thread(answer["Body"].read), answer

    async def content(self) -> dict[str, bytes]:
        keys = await asyncio.to_thread(self._keys)
        found: dict[str, bytes] = {}
        for at in range(0, len(keys), 16):
            some = keys[at : at + 16]
            found |= zip(some, [body for body, _ in await asyncio.gather(*map(self.get, some))], strict=True)
        return found

    def _keys(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]


class S3(BrokerProcess):
    """The broker, with its requests in brief."""

    def __init__(self, server: RunningS3, *, bus: Bus, nats_url: str, directory: Path, name: str) -> None:
        super().__init__(
            "brokers.s3",
            bus=bus,
            nats_url=nats_url,
            kind="dsb",
            name=name,
            directory=directory,
            endpoint=server.server.endpoint,
            region=server.server.region,
            access_key_file=str(server.server.access_key_file),
            secret_key_file=str(server.server.secret_key_file),
        )
        self.server = server

    def provision_request(self, service_id: str, *, restore: CopyGrant | None = None) -> Provision:
        return Provision(
            id=new_id(),
            service_id=service_id,
            type="objectstore",
            plan="small",
            labels=LABELS,
            restore=restore,
            copy_format="s3-objects" if restore else None,
        )

    async def provision(self, service_id: str, *, restore: CopyGrant | None = None) -> Provisioned:
        return await self.run("provision", self.provision_request(service_id, restore=restore), Provisioned)

    async def deprovision(self, service_id: str) -> None:
        await self.run("deprovision", Deprovision(id=new_id(), service_id=service_id), Done)

    async def bind(self, service_id: str, *, binding: str = "b1", secret: str = SECRET) -> Bound:
        request = Bind(id=new_id(), service_id=service_id, binding_id=binding, secret=Secret(value=secret))
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

    async def bucket(self, service_id: str, *, binding: str = "b1") -> Bucket:
        """The bucket as the app of a binding sees it."""
        return as_app(await self.bind(service_id, binding=binding))

    def as_admin(self, bucket: str) -> Bucket:
        return Bucket(
            endpoint=self.server.server.endpoint,
            bucket=bucket,
            access_key=self.server.access_key,
            secret_key=self.server.secret_key,
        )


def as_app(bound: Bound) -> Bucket:
    return Bucket(
        endpoint=bound.attributes["endpoint"],
        bucket=bound.attributes["bucket"],
        access_key=bound.attributes["access_key"],
        secret_key=bound.secrets["secret_key"].value,
    )
