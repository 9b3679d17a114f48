"""Copies: of one moment whatever is done afterwards, restored elsewhere, whole or not at all."""

import asyncio
import hashlib
import io
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from brokers.repository.errors import RepositoryError
from brokers.s3.names import bucket_of
from bus.connection import Bus
from schemas.brokers import CopyGrant, DataServiceHealth, Health, PrepareCopy, Prepared, Provisioned
from schemas.ids import new_id
from tests.integration.filesystem.site import Site
from tests.integration.s3.services import S3
from tests.patience import patience
from tests.servers import NatsServer, run_s3

RANDOM = random.Random(3)
DOCUMENTS = {f"documents/{n:04}.bin": RANDOM.randbytes(RANDOM.choice([0, 1, 900, 40_000])) for n in range(80)}
ODD_KEYS = [
    "with space",
    "100%",
    "a%20b",
    "q?x#y",
    "plus+and&amp",
    "ünï/çødé",
    "日本",
    "~tilde*",
    "[brackets]{}",
    "a:b;c,d",
]


async def save(broker: S3, repository: Site, service_id: str, copy: str) -> CopyGrant:
    """A committed copy; the grant to read it."""
    await broker.prepare(service_id, copy)
    await broker.copy(service_id, copy, repository.open_write(copy))
    repository.repository.commit(copy)
    await broker.discard(copy)
    return repository.open_read(copy)


async def test_a_copy_shows_the_moment_whatever_is_done_after_it(broker: S3, repository: Site) -> None:
    await broker.provision("moment")
    app = await broker.bucket("moment")
    await app.fill({**DOCUMENTS, "deleted before": b"x", "overwritten before": b"old"})
    await app.delete("deleted before")
    await app.put("overwritten before", b"new")
    before = await app.content()
    prepared = await broker.prepare("moment", "copy-moment")
    assert prepared.level == "application"
    assert prepared.estimated_bytes == sum(map(len, before.values()))
    await app.put("documents/0001.bin", b"changed later")
    await app.put("later", b"made later")
    await app.delete("documents/0002.bin")
    assert await broker.prepare("moment", "copy-moment") == prepared
    copied = await broker.copy("moment", "copy-moment", repository.open_write("copy-moment"))
    (part,) = copied.parts
    assert (copied.copy_format, part.name, part.entries) == ("s3-objects", "objects", len(before))
    repository.repository.commit("copy-moment")
    provisioned = await broker.provision("moment-2", restore=repository.open_read("copy-moment"))
    assert provisioned.restored_bytes == part.size
    target = await broker.bucket("moment-2")
    assert await target.content() == before
    await target.delete("documents/0003.bin")
    assert "documents/0003.bin" in await app.content()


@pytest.mark.full
async def test_big_objects_odd_keys_and_metadata_come_through(broker: S3, repository: Site) -> None:
    await broker.provision("odd")
    app = await broker.bucket("odd")
    big = RANDOM.randbytes(1 << 20) * 21
    extra = {"ContentType": "application/x-big", "Metadata": {"owner": "me", "n": "1"}}
    await asyncio.to_thread(app.client.upload_fileobj, io.BytesIO(big), app.name, "big", ExtraArgs=extra)
    await app.put("coded", b"zz", ContentEncoding="gzip", CacheControl="no-cache", ContentDisposition="attachment")
    await app.fill({key: key.encode() for key in ODD_KEYS})
    grant = await save(broker, repository, "odd", "copy-odd")
    await broker.provision("odd-2", restore=grant)
    target = await broker.bucket("odd-2")
    body, answer = await target.get("big")
    assert hashlib.sha256(body).digest() == hashlib.sha256(big).digest()
    assert (answer["ContentType"], answer["Metadata"]) == ("application/x-big", {"owner": "me", "n": "1"})
    _, answer = await target.get("coded")
    assert (answer["ContentEncoding"], answer["CacheControl"], answer["ContentDisposition"]) == (
        "gzip",
        "no-cache",
        "attachment",
    )
    content = await target.content()
    assert {key: content[key] for key in ODD_KEYS} == {key: key.encode() for key in ODD_KEYS}


async def test_a_folder_marker_comes_through(broker: S3, repository: Site) -> None:
    await broker.provision("folder")
    app = await broker.bucket("folder")
    await app.put("empty folder/", b"")
    await app.put("folder/file", b"1")
    grant = await save(broker, repository, "folder", "copy-folder")
    await broker.provision("folder-2", restore=grant)
    assert await (await broker.bucket("folder-2")).content() == await app.content()


async def test_an_empty_bucket_is_a_copy_too(broker: S3, repository: Site) -> None:
    await broker.provision("empty")
    grant = await save(broker, repository, "empty", "copy-empty")
    assert (await broker.provision("empty-2", restore=grant)).restored_bytes == 0
    assert await (await broker.bucket("empty-2")).content() == {}


@pytest.mark.full
async def test_a_moment_outlives_the_broker(own_broker: S3, repository: Site) -> None:
    await own_broker.provision("outlives")
    app = await own_broker.bucket("outlives")
    await app.put("a", b"1")
    prepared = await own_broker.prepare("outlives", "copy-outlives")
    await own_broker.kill()
    await app.put("a", b"2")
    await own_broker.start()
    assert await own_broker.prepare("outlives", "copy-outlives") == prepared
    await own_broker.copy("outlives", "copy-outlives", repository.open_write("copy-outlives"))
    repository.repository.commit("copy-outlives")
    await own_broker.provision("outlives-2", restore=repository.open_read("copy-outlives"))
    assert await (await own_broker.bucket("outlives-2")).content() == {"a": b"1"}


async def test_a_moment_is_let_go_after_its_time_and_when_discarded(broker: S3, repository: Site) -> None:
    await broker.provision("held")
    await broker.prepare("held", "copy-short", hold_seconds=0)
    await broker.prepare("held", "copy-discarded")
    await broker.discard("copy-discarded")
    await broker.discard("copy-never-heard-of")
    for copy in ("copy-short", "copy-discarded", "copy-never-heard-of"):
        request = PrepareCopy(id=new_id(), service_id="held", copy=copy)
        assert (await broker.refuses("prepare_copy", request, Prepared)).code == "moment_lost"
        problem = await broker.fails("copy", broker.copy_request("held", copy, repository.open_write(copy)))
        assert (problem.code, problem.temporary) == ("moment_lost", False)


@pytest.mark.parametrize("key", ["a", "odd//key"])
async def test_a_version_that_is_gone_loses_the_moment(broker: S3, repository: Site, key: str) -> None:
    service = f"version-{len(key)}"
    name = (await broker.provision(service)).resource["bucket"]
    admin = broker.as_admin(name)
    await admin.put(key, b"1")
    await broker.prepare(service, f"copy-{service}")
    for version in admin.client.list_object_versions(Bucket=name)["Versions"]:
        admin.client.delete_object(Bucket=name, Key=version["Key"], VersionId=version["VersionId"])
    request = broker.copy_request(service, f"copy-{service}", repository.open_write(f"copy-{service}"))
    problem = await broker.fails("copy", request)
    assert (problem.code, problem.temporary) == ("moment_lost", False)


async def test_an_unversioned_bucket_is_copied_at_level_crash(broker: S3) -> None:
    name = (await broker.provision("suspended")).resource["bucket"]
    admin = broker.as_admin(name)
    admin.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Suspended"})
    assert (await broker.prepare("suspended", "copy-suspended")).level == "crash"


async def test_cancelling_a_restore_leaves_nothing_and_another_id_succeeds(broker: S3, repository: Site) -> None:
    await broker.provision("cancel")
    app = await broker.bucket("cancel")
    await app.fill(DOCUMENTS)
    grant = await save(broker, repository, "cancel", "copy-cancel")
    request = broker.provision_request("cancel-2", restore=grant)
    assert (await broker.begin("provision", request)).state == "running"
    assert (await broker.cancel(request.id)).state == "cancelled"
    assert (await broker.begin("provision", request)).state == "cancelled"
    assert await broker.describe("cancel-2") == ()
    await broker.provision("cancel-2", restore=grant)
    assert await (await broker.bucket("cancel-2")).content() == DOCUMENTS


@pytest.mark.full
async def test_a_broker_killed_in_a_restore_begins_it_anew(own_broker: S3, repository: Site) -> None:
    await own_broker.provision("killed")
    app = await own_broker.bucket("killed")
    await app.fill(DOCUMENTS)
    grant = await save(own_broker, repository, "killed", "copy-killed")
    request = own_broker.provision_request("killed-2", restore=grant)
    # So slow that it is still in the middle when it is killed.
    slow = msgspec.structs.replace(request, restore=msgspec.structs.replace(grant, bytes_per_second=10_000))
    await own_broker.begin("provision", slow)
    admin = own_broker.as_admin(bucket_of("killed-2"))
    await until(lambda: asyncio.to_thread(_has_objects, admin.client, admin.name), what="the restore has begun")
    await own_broker.kill()
    assert _making(admin.client, admin.name)
    await own_broker.start()
    await own_broker.run("provision", request, Provisioned)
    assert await (await own_broker.bucket("killed-2")).content() == DOCUMENTS


@pytest.mark.full
async def test_the_server_is_away_and_comes_back(
    nats_server: NatsServer, bus: Bus, repository: Site, tmp_path: Path
) -> None:
    async with run_s3(tmp_path / "server") as server:
        broker = S3(server, bus=bus, nats_url=nats_server.url, directory=tmp_path / "broker", name="faults")
        await broker.start()
        try:
            await broker.provision("faults")
            app = await broker.bucket("faults")
            await app.put("a", b"1")
            await broker.prepare("faults", "copy-faults")
            await server.supervisor.stop()
            copy = broker.copy_request("faults", "copy-faults", repository.open_write("copy-faults"))
            assert (await broker.fails("copy", copy)).temporary
            assert (await broker.fails("provision", broker.provision_request("later"))).temporary
            assert not (await broker.ask("health", DataServiceHealth(), Health)).healthy
            await server.supervisor.start()
            await broker.copy("faults", "copy-faults", repository.open_write("copy-faults"))
            await broker.provision("later")
        finally:
            await broker.stop()


def _making(admin: object, bucket: str) -> bool:
    try:
        tags = admin.get_bucket_tagging(Bucket=bucket)["TagSet"]  # type: ignore[attr-defined]
    except ClientError:
        return False
    return {"Key": "calque.state", "Value": "making"} in tags


async def test_cancelling_a_copy_and_another_try(broker: S3, repository: Site) -> None:
    await broker.provision("try")
    app = await broker.bucket("try")
    await app.fill(DOCUMENTS)
    await broker.prepare("try", "copy-try")
    request = broker.copy_request("try", "copy-try", repository.open_write("copy-try"))
    await asyncio.gather(broker.begin("copy", request), broker.begin("copy", request))
    assert (await broker.cancel(request.id)).state in ("cancelled", "succeeded")
    copied = await broker.copy("try", "copy-try", repository.open_write("copy-try"))
    assert copied.parts[0].entries == len(DOCUMENTS)


@pytest.mark.full
async def test_cancelling_in_the_middle_ends_it_and_leaves_nothing(broker: S3, repository: Site) -> None:
    """At this rate it would go on for longer than the test waits."""
    slow = 50_000
    await broker.provision("middle")
    app = await broker.bucket("middle")
    await app.fill({"a": b"first", "big": RANDOM.randbytes(1 << 20) * 18, "z": b"last"})
    await broker.prepare("middle", "copy-middle", hold_seconds=600)
    grant = msgspec.structs.replace(repository.open_write("copy-middle"), bytes_per_second=slow)
    copy = broker.copy_request("middle", "copy-middle", grant)
    assert (await broker.begin("copy", copy)).state == "running"
    await until(lambda: some_done(broker, copy.id), what="the copy is under way")
    assert (await broker.cancel(copy.id)).state == "cancelled"
    with pytest.raises(RepositoryError):
        repository.repository.commit("copy-middle")

    await broker.copy("middle", "copy-middle", repository.open_write("copy-middle"))
    repository.repository.commit("copy-middle")
    grant = msgspec.structs.replace(repository.open_read("copy-middle"), bytes_per_second=slow)
    restore = broker.provision_request("middle-2", restore=grant)
    assert (await broker.begin("provision", restore)).state == "running"
    admin = broker.as_admin(bucket_of("middle-2"))
    await until(lambda: asyncio.to_thread(_has_objects, admin.client, admin.name), what="the first object is there")
    assert (await broker.cancel(restore.id)).state == "cancelled"
    assert await broker.describe("middle-2") == ()
    assert admin.name not in {each["Name"] for each in admin.client.list_buckets()["Buckets"]}


async def until(holds: Callable[[], Awaitable[bool]], *, what: str) -> None:
    deadline = asyncio.get_running_loop().time() + patience(60)
    while not await holds():
        assert asyncio.get_running_loop().time() < deadline, f"never: {what}"
        await asyncio.sleep(0.02)


async def some_done(broker: S3, id: str) -> bool:
    progress = (await broker.status(id)).progress
    return progress is not None and progress.done > 0


def _has_objects(admin: Any, bucket: str) -> bool:
    try:
        return bool(admin.list_objects_v2(Bucket=bucket).get("Contents"))
    except ClientError:
        return False
