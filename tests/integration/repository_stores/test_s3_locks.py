"""A bucket that locks objects keeps what a repository locks, whoever asks it to delete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from brokers.repository.format1.repository import Options, Repository
from brokers.repository.objects import ObjectMissing, ObjectRetained
from brokers.repository.retention import CopyLocked, retains
from brokers.s3_repository.settings import BucketSection
from brokers.s3_repository.store import S3Store
from schemas.problems import CalqueError
from tests.integration.broker_process import eventually
from tests.integration.repository_stores.stores import s3_settings
from tests.servers import RunningS3
from tests.unit.repository.test_retention import image_of, saved

BUCKET = "repository-locks"


class Locks:
    """The store, and its bucket as the server's administrator sees it."""

    def __init__(self, server: RunningS3) -> None:
        settings = {**s3_settings(server), "name": BUCKET, "object_lock": "COMPLIANCE"}
        self.prefix = settings["prefix"]
        self.store = S3Store(BucketSection.model_validate(settings))
        self.client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=server.server.endpoint,
            region_name=server.server.region,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )

    def versions(self, prefix: str = "") -> list[dict[str, Any]]:
        """Versions and marks of deletion below the prefix."""
        found = self.client.list_object_versions(Bucket=BUCKET, Prefix=self.prefix + prefix)
        return [*found.get("Versions", ()), *found.get("DeleteMarkers", ())]

    def locked(self, name: str) -> datetime | None:
        try:
            found = self.client.get_object_retention(Bucket=BUCKET, Key=self.prefix + name)["Retention"]
        except ClientError:
            return None
        assert found["Mode"] == "COMPLIANCE"
        until: datetime = found["RetainUntilDate"]
        return until


@pytest.fixture
async def locks(s3_server: RunningS3) -> AsyncIterator[Locks]:
    made = Locks(s3_server)
    await asyncio.to_thread(made.store.check)
    yield made
    await asyncio.to_thread(made.store.close)
    made.client.close()


def told(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def test_the_bucket_keeps_what_is_locked_and_lets_go_of_it_afterwards(locks: Locks) -> None:
    now, store = datetime.now(UTC), locks.store
    assert retains(store) is store

    def long_and_short() -> None:
        store.put("packs/long", b"1")
        store.put("packs/short", b"2")
        store.put("packs/free", b"3")
        store.retain(["packs/long"], until=told(now + timedelta(hours=2)))
        store.retain(["packs/long"], until=told(now + timedelta(hours=1)))
        store.retain(["packs/short"], until=told(datetime.now(UTC) + timedelta(seconds=6)))
        store.retain(["packs/free"], until=told(now))

    await asyncio.to_thread(long_and_short)
    until = await asyncio.to_thread(locks.locked, "packs/long")
    assert until is not None
    assert timedelta(0) <= until - (now + timedelta(hours=2)) <= timedelta(seconds=1)
    with pytest.raises(ObjectRetained, match="packs/long is locked until"):
        await asyncio.to_thread(store.delete, "packs/long")
    (version,) = await asyncio.to_thread(locks.versions, "packs/long")
    with pytest.raises(ClientError):
        locks.client.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
    assert await asyncio.to_thread(store.read, "packs/long") == b"1"

    def let_go(name: str) -> Callable[[], bool]:
        def gone() -> bool:
            try:
                store.delete(name)
            except ObjectRetained:
                return False
            return True

        return gone

    await eventually(let_go("packs/short"), seconds=30, what="the lock ends")
    await asyncio.to_thread(store.delete, "packs/free")
    await asyncio.to_thread(store.delete, "packs/never")
    for name in ("packs/short", "packs/free"):
        # Nothing stays that would only be marked as deleted.
        assert await asyncio.to_thread(locks.versions, name) == []
    with pytest.raises(ObjectMissing):
        await asyncio.to_thread(store.retain, ["packs/free"], until=told(now + timedelta(hours=2)))


async def test_a_bucket_that_locks_nothing_is_refused_by_the_name_of_its_setting(s3_server: RunningS3) -> None:
    store = S3Store(BucketSection.model_validate({**s3_settings(s3_server), "object_lock": "GOVERNANCE"}))
    other = S3Store(BucketSection.model_validate(s3_settings(s3_server)))
    try:
        await asyncio.to_thread(other.check)  # makes the bucket
        with pytest.raises(CalqueError) as refused:
            await asyncio.to_thread(store.check)
    finally:
        store.close()
        other.close()
    problem = refused.value.problem
    assert (problem.code, problem.field, problem.temporary) == ("no_object_lock", "bucket.object_lock", False)


async def test_an_image_in_a_bucket_that_locks(locks: Locks, tmp_path: Path) -> None:
    """Packs, commit and manifest are locked with the image; what belongs to no image is not."""
    options = Options(retention_seconds=3600)
    repository = await asyncio.to_thread(lambda: Repository.open(locks.store, state=tmp_path, options=options))
    try:
        await asyncio.to_thread(saved, repository, "c1", bytes(100_000))
        names = [each.name for each in await asyncio.to_thread(lambda: list(locks.store.list("")))]
        assert {locks.locked(name) for name in names} == {None}

        await asyncio.to_thread(repository.record_image, image_of("c1"))

        until = datetime.fromisoformat(repository.committed("c1").keep_until)
        names = [each.name for each in await asyncio.to_thread(lambda: list(locks.store.list("")))]
        kept = {name: locks.locked(name) for name in names}
        assert {name.partition("/")[0] for name, to in kept.items() if to} == {"packs", "copies", "images"}
        assert all(until <= to <= until + timedelta(seconds=1) for to in kept.values() if to)
        with pytest.raises(CopyLocked):
            await asyncio.to_thread(repository.delete, "c1", operation="save-1")
        assert (await asyncio.to_thread(repository.collect)).freed_bytes == 0
    finally:
        await asyncio.to_thread(repository.close)
