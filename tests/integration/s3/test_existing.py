"""A bucket that was there before is bound and copied with keys that may only read, and nothing of it changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
import pytest_asyncio
from botocore.exceptions import ClientError

from schemas.brokers import (
    Attach,
    Attachable,
    Bind,
    Bound,
    Copied,
    CopyData,
    DataServiceHealth,
    Existing,
    Health,
    PrepareCopy,
    Prepared,
)
from schemas.ids import new_id
from schemas.problems import Problem
from schemas.secrets import Secret
from tests.integration.broker_process import eventually
from tests.integration.filesystem.site import Site
from tests.integration.s3.services import S3, Bucket
from tests.servers import RunningS3

pytestmark = pytest.mark.asyncio(loop_scope="session")

OBJECTS = {f"documents/{n:03}": str(n).encode() * n for n in range(60)} | {"odd\tkey": b"odd", "big": b"x" * 6_000_000}
READ_ONLY = (
    "s3:GetObject",
    "s3:ListBucket",
    "s3:GetBucketLocation",
    "s3:List*",
    "s3:GetBucketVersioning",
    "s3:GetObjectVersion",
)


@dataclass(frozen=True)
class Production:
    """A bucket that somebody else made, as its owner, and with keys that may only read."""

    owner: Bucket
    url: str
    secret: str

    @property
    def existing(self) -> Existing:
        return Existing(url=self.url, secret=Secret(value=self.secret))

    async def everything(self) -> tuple[Any, ...]:
        """All versions with their times and tags, and the settings of the bucket."""

        def look() -> tuple[Any, ...]:
            client, name = self.owner.client, self.owner.name
            pages = client.get_paginator("list_object_versions").paginate(Bucket=name)
            found = [
                (one["Key"], one.get("VersionId"), one["ETag"], one["LastModified"])
                for page in pages
                for one in page.get("Versions", ())
            ]
            return found, client.get_bucket_versioning(Bucket=name).get("Status")

        return *(await asyncio.to_thread(look)), await self.owner.content()


@contextlib.asynccontextmanager
async def production(broker: S3, server: RunningS3, *, name: str, versioned: bool) -> AsyncIterator[Production]:
    address = server.server
    keys = [file.read_text().strip() for file in (address.access_key_file, address.secret_key_file)]
    owner = Bucket(endpoint=address.endpoint, bucket=name, access_key=keys[0], secret_key=keys[1])
    await asyncio.to_thread(owner.client.create_bucket, Bucket=name)
    if versioned:
        status = {"Status": "Enabled"}
        await asyncio.to_thread(owner.client.put_bucket_versioning, Bucket=name, VersioningConfiguration=status)
    await owner.fill(OBJECTS)
    iam = boto3.session.Session().client(
        "iam",
        endpoint_url=address.endpoint,
        region_name="us-east-1",
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
    )
    user = f"reader-{name}"
    iam.create_user(UserName=user)
    statement = {
        "Effect": "Allow",
        "Action": list(READ_ONLY),
        "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=user, PolicyName="read", PolicyDocument=policy)
    made = iam.create_access_key(UserName=user)["AccessKey"]
    url = f"s3://{name}?endpoint={address.endpoint}&access_key={made['AccessKeyId']}"
    reader = Bucket(
        endpoint=address.endpoint, bucket=name, access_key=made["AccessKeyId"], secret_key=made["SecretAccessKey"]
    )
    await eventually(lambda: _may_read(reader), seconds=20, what="the server knows the new keys")
    try:
        yield Production(owner, url, made["SecretAccessKey"])
    finally:
        iam.delete_access_key(UserName=user, AccessKeyId=made["AccessKeyId"])
        iam.delete_user_policy(UserName=user, PolicyName="read")
        iam.delete_user(UserName=user)
        iam.close()


def _may_read(reader: Bucket) -> bool:
    try:
        reader.client.head_object(Bucket=reader.name, Key="documents/001")
    except ClientError:
        return False
    return True


@pytest_asyncio.fixture(loop_scope="session", params=["versioned", "plain"])
async def shop(request: pytest.FixtureRequest, broker: S3, s3_server: RunningS3) -> AsyncIterator[Production]:
    name = f"production-{request.param}-{new_id()[-6:]}"
    async with production(broker, s3_server, name=name, versioned=request.param == "versioned") as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def plain(broker: S3, s3_server: RunningS3) -> AsyncIterator[Production]:
    async with production(broker, s3_server, name=f"plain-{new_id()[-6:]}", versioned=False) as made:
        yield made


def attach(existing: Existing) -> Attach:
    return Attach(id=new_id(), service_id="existing", type="objectstore", existing=existing)


async def prepare(broker: S3, shop: Production, copy: str) -> Prepared:
    request = PrepareCopy(id=new_id(), service_id="existing", copy=copy, hold_seconds=60, existing=shop.existing)
    return await broker.ask("prepare_copy", request, Prepared)


def copying(shop: Production, repository: Site, copy: str) -> CopyData:
    grant = repository.open_write(copy)
    return CopyData(id=new_id(), service_id="existing", copy=copy, grant=grant, existing=shop.existing)


async def why_not(broker: S3, existing: Existing) -> Problem:
    return await broker.fails("attach", attach(existing))


async def test_it_is_copied_with_keys_that_may_only_read_and_stays_as_it_is(
    broker: S3, shop: Production, repository: Site
) -> None:
    before, copy = await shop.everything(), f"copy-{shop.owner.name}"
    versioned = before[1] == "Enabled"
    found = await broker.run("attach", attach(shop.existing), Attachable)
    assert found.resource["versioned"] == ("yes" if versioned else "no")
    assert (await prepare(broker, shop, copy)).level == ("application" if versioned else "crash")
    await broker.run("copy", copying(shop, repository, copy), Copied)
    repository.repository.commit(copy)
    service = f"from-{shop.owner.name}"
    await broker.provision(service, restore=repository.open_read(copy))
    assert await (await broker.bucket(service)).content() == OBJECTS
    await broker.deprovision(service)
    await broker.unbind("existing")
    await broker.deprovision("existing")
    assert await shop.everything() == before


@pytest.mark.full
async def test_a_versioned_one_is_copied_as_it_was_whatever_is_written_then(
    broker: S3, shop: Production, repository: Site
) -> None:
    if (await shop.everything())[1] != "Enabled":
        pytest.skip("without versions what is written then is noticed, see below")
    copy = f"copy-later-{shop.owner.name}"
    await prepare(broker, shop, copy)
    await shop.owner.put("documents/007", b"too late")
    await shop.owner.delete("documents/008")
    await broker.run("copy", copying(shop, repository, copy), Copied)
    repository.repository.commit(copy)
    service = f"later-{shop.owner.name}"
    await broker.provision(service, restore=repository.open_read(copy))
    assert await (await broker.bucket(service)).content() == OBJECTS
    await broker.deprovision(service)


@pytest.mark.parametrize("key", ["documents/007", "odd\tkey"])
@pytest.mark.full
async def test_an_object_that_changes_in_a_bucket_without_versions_fails_the_copy(
    broker: S3, plain: Production, repository: Site, key: str
) -> None:
    copy = f"copy-changed-{plain.owner.name}-{len(key)}"
    await prepare(broker, plain, copy)
    await plain.owner.put(key, b"another")
    problem = await broker.fails("copy", copying(plain, repository, copy))
    assert problem.code == "entry_changed"
    assert repr(key) in problem.message


async def test_a_binding_hands_through_the_user_s_own_keys(broker: S3, plain: Production) -> None:
    request = Bind(
        id=new_id(), service_id="existing", binding_id="b", secret=Secret(value="proposed"), existing=plain.existing
    )
    bound = await broker.ask("bind", request, Bound)
    assert bound.attributes["bucket"] == plain.owner.name
    assert bound.secrets["secret_key"].value == plain.secret
    app = Bucket(
        endpoint=bound.attributes["endpoint"],
        bucket=bound.attributes["bucket"],
        access_key=bound.attributes["access_key"],
        secret_key=bound.secrets["secret_key"].value,
    )
    assert (await app.get("odd\tkey"))[0] == b"odd"


async def test_what_can_t_be_attached_says_why(broker: S3, plain: Production) -> None:
    wrong = await why_not(broker, Existing(url=plain.url, secret=Secret(value="wrong")))
    assert (wrong.code, wrong.field) == ("unauthorised", "attach")
    assert "calque secret set" in (wrong.remedy or "")
    bare = await why_not(broker, Existing(url=plain.url))
    assert "--attach-secret" in (bare.remedy or "")
    for url in ("s3://", "s3://bucket/prefix", "https://bucket", f"{plain.url}&acl=public", "s3://b?endpoint=ftp://x"):
        problem = await why_not(broker, Existing(url=url, secret=Secret(value="s")))
        assert (problem.code, problem.field) == ("invalid", "attach"), url
    nowhere = plain.url.replace(plain.owner.name, "there-is-none")
    assert not (await why_not(broker, Existing(url=nowhere, secret=Secret(value=plain.secret)))).temporary


async def test_health_is_that_of_the_bucket(broker: S3, plain: Production) -> None:
    there = DataServiceHealth(service_id="existing", existing=plain.existing)
    assert (await broker.ask("health", there, Health)).healthy
    wrong = DataServiceHealth(service_id="existing", existing=Existing(url=plain.url, secret=Secret(value="wrong")))
    assert not (await broker.ask("health", wrong, Health)).healthy


async def test_a_writer_beside_the_copy_of_a_bucket_without_versions_is_noticed_or_not_met(
    broker: S3, plain: Production, repository: Site
) -> None:
    """Whatever is written between the listing and the reading: what is committed is what was listed."""
    listed = {**OBJECTS, "long": b"a" * (9 << 20)}
    for number, keys in enumerate(["new", "long", "documents/059"]):
        await plain.owner.fill({key: listed[key] for key in {keys, "long"} & listed.keys()})
        before, copy = await plain.owner.content(), f"copy-beside-{number}-{plain.owner.name}"
        assert (await prepare(broker, plain, copy)).level == "crash"
        stop, written = asyncio.Event(), asyncio.Event()
        writer = asyncio.create_task(
            _write_until(stop, plain.owner, keys, size=len(before.get(keys, b"1")), told=written)
        )
        try:
            if number % 2:
                await written.wait()
            request = copying(plain, repository, copy)
            await broker.begin("copy", request)
            ended = await broker.ended(request.id)
        finally:
            stop.set()
            await writer
        if keys == "new":
            assert ended.state == "succeeded", ended.problem
        if ended.state == "succeeded":
            repository.repository.commit(copy)
            service = f"beside-{number}-{plain.owner.name}"
            await broker.provision(service, restore=repository.open_read(copy))
            assert await (await broker.bucket(service)).content() == before
            await broker.deprovision(service)
        else:
            assert ended.problem is not None
            assert (ended.problem.code, ended.problem.temporary) == ("entry_changed", True)
            assert repr(keys) in ended.problem.message


async def _write_until(stop: asyncio.Event, owner: Bucket, key: str, *, size: int, told: asyncio.Event) -> None:
    """Other bytes of the same number under the key, again and again."""
    for round_ in range(1_000_000):
        await owner.put(key, bytes([round_ % 26 + 97]) * size if round_ else b"b" * size)
        told.set()
        if stop.is_set():
            return
