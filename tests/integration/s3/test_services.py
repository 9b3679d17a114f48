"""Buckets, bindings, what is described, what is refused."""

import asyncio

import msgspec
import pytest
from botocore.exceptions import ClientError

from schemas.brokers import Bind, Bound, DataServiceHealth, Deprovision, Done, DsbInfo, Health, InfoRequest, Provisioned
from schemas.ids import new_id
from schemas.problems import Actor
from schemas.secrets import Secret
from tests.integration.s3.services import LABELS, S3, SECRET, Bucket, as_app


async def refused(call: str, bucket: Bucket, **arguments: object) -> str:
    """The code of a call that the server refuses."""
    with pytest.raises(ClientError) as failed:
        await asyncio.to_thread(getattr(bucket.client, call), **arguments)
    return str(failed.value.response["Error"]["Code"])


async def test_info_names_plans_and_attributes(broker: S3) -> None:
    info = await broker.ask("info", InfoRequest(), DsbInfo)
    assert info.types == ("objectstore",)
    assert [plan.name for plan in info.plans] == ["small"]
    assert info.attributes == ("endpoint", "bucket", "region", "access_key")
    assert info.secret_attributes == ("secret_key",)


async def test_an_app_uses_its_bucket_and_no_other(broker: S3) -> None:
    await broker.provision("mine")
    await broker.provision("yours")
    mine, yours = await broker.bucket("mine"), await broker.bucket("yours")
    await mine.put("notes/one.txt", b"one", ContentType="text/plain")
    await yours.put("theirs", b"secret")
    assert await mine.content() == {"notes/one.txt": b"one"}
    assert await refused("get_object", mine, Bucket=yours.name, Key="theirs") == "AccessDenied"
    assert await refused("put_object", mine, Bucket=yours.name, Key="x", Body=b"") == "AccessDenied"
    assert await refused("list_objects_v2", mine, Bucket=yours.name) == "AccessDenied"
    source = f"{yours.name}/theirs"
    assert await refused("copy_object", mine, Bucket=mine.name, Key="x", CopySource=source) == "AccessDenied"
    assert await refused("delete_bucket", mine, Bucket=yours.name) == "AccessDenied"
    assert await refused("create_bucket", mine, Bucket="calque-another") == "AccessDenied"


async def test_an_app_cannot_undo_what_a_moment_relies_on(broker: S3) -> None:
    await broker.provision("versions")
    app = await broker.bucket("versions")
    await app.put("a", b"1")
    versions = broker.as_admin(app.name).client.list_object_versions(Bucket=app.name)["Versions"]
    suspended = {"Status": "Suspended"}
    assert await refused("put_bucket_versioning", app, Bucket=app.name, VersioningConfiguration=suspended)
    version = versions[0]["VersionId"]
    assert await refused("delete_object", app, Bucket=app.name, Key="a", VersionId=version) == "AccessDenied"
    assert await refused("delete_bucket", app, Bucket=app.name) == "AccessDenied"
    assert await app.content() == {"a": b"1"}
    await app.delete("a")
    assert await app.content() == {}


async def test_every_step_may_be_repeated_at_once_and_later(broker: S3) -> None:
    requests = [broker.provision_request("again") for _ in range(3)]
    first, *_ = await asyncio.gather(*(broker.run("provision", request, Provisioned) for request in requests * 2))
    bound = await asyncio.gather(*(broker.bind("again") for _ in range(4)))
    assert all(one == bound[0] for one in bound)
    await as_app(bound[0]).put("a", b"1")
    assert await broker.provision("again") == first
    assert await as_app(await broker.bind("again")).content() == {"a": b"1"}
    await asyncio.gather(*(broker.unbind("again") for _ in range(3)))
    await broker.unbind("again", binding="never")
    deprovision = Deprovision(id=new_id(), service_id="again")
    await asyncio.gather(*(broker.run("deprovision", deprovision, Done) for _ in range(3)))
    await broker.deprovision("again")
    assert await broker.describe("again") == ()
    assert await broker.provision("again") == first
    assert await (await broker.bucket("again")).content() == {}


async def test_a_bind_with_another_secret_renews_the_keys(broker: S3) -> None:
    await broker.provision("renew")
    old = await broker.bind("renew")
    new = await broker.bind("renew", secret="another-secret-key-0123456789abcdef")
    await as_app(new).put("a", b"1")
    assert await refused("list_objects_v2", as_app(old), Bucket=old.attributes["bucket"]) == "SignatureDoesNotMatch"


async def test_unbind_ends_access_and_leaves_other_bindings(broker: S3) -> None:
    await broker.provision("unbind")
    one, other = await broker.bucket("unbind"), await broker.bucket("unbind", binding="b2")
    await one.put("kept", b"1")
    await broker.unbind("unbind")
    assert await refused("list_objects_v2", one, Bucket=one.name) == "InvalidAccessKeyId"
    assert await other.content() == {"kept": b"1"}


async def test_deprovision_leaves_nothing(broker: S3) -> None:
    await broker.provision("gone")
    app = await broker.bucket("gone")
    await app.fill({f"k{n}": b"x" for n in range(30)})
    await app.delete("k1")
    await broker.deprovision("gone")
    assert await refused("list_objects_v2", broker.as_admin(app.name), Bucket=app.name) == "NoSuchBucket"
    assert await refused("list_objects_v2", app, Bucket=app.name) == "InvalidAccessKeyId"
    assert not [one for one in await broker.describe() if one.name.startswith(app.name)]


async def test_orphans_are_described_with_their_labels(broker: S3) -> None:
    name = (await broker.provision("orphan")).resource["bucket"]
    await broker.bind("orphan")
    found = {one.kind: one for one in await broker.describe() if one.name.startswith(name)}
    assert found["bucket"].id == "orphan"
    assert found["bucket"].labels == {**LABELS, "service_id": "orphan"}
    assert found["identity"].labels == found["bucket"].labels
    # half of one, as a broken run leaves it
    admin = broker.as_admin(name)
    await asyncio.to_thread(admin.client.delete_bucket_tagging, Bucket=name)
    await admin.put("half", b"1")
    assert name in {one.id for one in await broker.describe()}
    request = Bind(id=new_id(), service_id="orphan", binding_id="b", secret=Secret(value=SECRET))
    assert (await broker.refuses("bind", request, Bound)).code == "not_found"
    await broker.provision("orphan")
    assert await (await broker.bucket("orphan")).content() == {}


async def test_health_is_what_the_server_says(broker: S3) -> None:
    await broker.provision("well")
    assert (await broker.ask("health", DataServiceHealth(), Health)).healthy
    assert (await broker.ask("health", DataServiceHealth(service_id="well"), Health)).healthy
    assert not (await broker.ask("health", DataServiceHealth(service_id="nobody"), Health)).healthy


@pytest.mark.parametrize(
    ("change", "field"),
    [({"type": "database"}, "type"), ({"plan": "huge"}, "plan"), ({"parameters": {"class": "cold"}}, "parameters")],
)
async def test_a_provision_that_makes_no_sense_names_its_field(
    broker: S3, change: dict[str, object], field: str
) -> None:
    problem = await broker.fails("provision", msgspec.structs.replace(broker.provision_request("no"), **change))
    assert (problem.code, problem.actor, problem.field) == ("invalid", Actor.CALLER, field)
    assert await broker.describe("no") == ()


async def test_no_secret_is_in_the_log_or_the_state(broker: S3) -> None:
    await broker.provision("quiet")
    await broker.bind("quiet")
    for file in (path for path in broker.directory.rglob("*") if path.is_file()):
        content = file.read_bytes()
        assert SECRET.encode() not in content, file
        assert broker.server.secret_key.encode() not in content, file
