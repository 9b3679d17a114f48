"""What an object is besides its bytes comes through, by the reading of others; what did not change is kept."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig

from schemas.brokers import Attach, Attachable, Copied, CopyData, CopyGrant, Existing, PrepareCopy, Prepared
from schemas.ids import new_id
from schemas.secrets import Secret
from tests.integration.filesystem.certificates import Authority
from tests.integration.filesystem.site import Site
from tests.integration.s3.rclone import ACCESS_KEY, SECRET_KEY, Rclone, second_server
from tests.integration.s3.services import S3, Bucket

pytestmark = pytest.mark.asyncio(loop_scope="session")

RANDOM = random.Random(5)
ODD_KEYS = [
    "with space",
    "100%/%20",
    "q?x#y&z=+",
    "ünï/çødé/日本",
    "~*'()!;:@$",
    "a\\b",
    ".hidden/..x",
    "tab\there",
    "[x]{y}",
]
TAGS = {"team": "red & blue", "ünï": "a=b"}


@pytest.fixture
def rclone(broker: S3, tmp_path: Path) -> Rclone:
    made = Rclone(tmp_path)
    server = broker.server
    keys = {"access_key": server.access_key, "secret_key": server.secret_key}
    made.remote("own", endpoint=server.server.endpoint, provider="SeaweedFS", **keys)
    return made


async def fill(app: Bucket) -> None:
    """A bucket with something of everything."""
    await app.fill({key: key.encode() for key in ODD_KEYS})
    await app.put("empty", b"")
    await app.put("folder/", b"")
    await app.put("folder/inside", b"1", ContentType="text/x-inside")
    await app.put(
        "told",
        b"zz" * 100,
        ContentType="application/x-told",
        ContentEncoding="identity",
        ContentLanguage="de",
        ContentDisposition='attachment; filename="t"',
        CacheControl="no-cache, max-age=3",
        Expires="Thu, 01 Dec 2033 16:00:00 GMT",
        Metadata={"owner": "me and you", "n": "1"},
    )
    tagging = "&".join(("team=red%20%26%20blue", "%C3%BCn%C3%AF=a%3Db"))
    await app.put("tagged", b"t", Tagging=tagging)
    big = RANDOM.randbytes(1 << 20) * 21 + b"end"
    extra = {"ContentType": "application/x-big", "Metadata": {"big": "yes"}, "Tagging": "size=big"}
    await asyncio.to_thread(app.client.upload_fileobj, io.BytesIO(big), app.name, "big", ExtraArgs=extra)
    five = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    await asyncio.to_thread(app.client.upload_fileobj, io.BytesIO(big[: 11 << 20]), app.name, "by five", Config=five)
    await app.put("of middling size", big[: 900 << 10])
    one = TransferConfig(multipart_threshold=1, multipart_chunksize=5 << 20)
    await asyncio.to_thread(app.client.upload_fileobj, io.BytesIO(b"one"), app.name, "in one part", Config=one)


async def save(broker: S3, repository: Site, service_id: str, copy: str, *, parent: str = "") -> CopyGrant:
    await broker.prepare(service_id, copy)
    await broker.copy(service_id, copy, repository.open_write(copy, parent=parent))
    repository.repository.commit(copy)
    await broker.discard(copy)
    return repository.open_read(copy)


def tags(bucket: Bucket, key: str) -> dict[str, str]:
    found = bucket.client.get_object_tagging(Bucket=bucket.name, Key=key)["TagSet"]
    return {each["Key"]: each["Value"] for each in found}


def etags(bucket: Bucket) -> dict[str, str]:
    found = bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]
    return {each["Key"]: each["ETag"] for each in found}


def head(bucket: Bucket, key: str) -> dict[str, Any]:
    told = bucket.client.head_object(Bucket=bucket.name, Key=key)
    names = ("ContentType", "ContentEncoding", "ContentLanguage", "ContentDisposition", "CacheControl", "Metadata")
    return {
        **{name: told.get(name) for name in names},
        "Expires": told["ResponseMetadata"]["HTTPHeaders"].get("expires"),
    }


@pytest.fixture
async def close(tmp_path: Path) -> AsyncIterator[Site]:
    """A repository on the machine of the broker, which brokers may come to without TLS."""
    async with Site("close", directory=tmp_path, authority=Authority(tmp_path), near=True) as site:
        yield site


async def test_a_bucket_with_everything_is_restored_as_it_was(broker: S3, close: Site, rclone: Rclone) -> None:
    """Out of a repository on the same machine, and out of any."""
    source = (await broker.provision("all")).resource["bucket"]
    await fill(broker.as_admin(source))
    await save(broker, close, "all", "copy-all")
    before = broker.as_admin(source)
    content, listed = await before.content(), await rclone.listed(f"own:{source}")
    for close.told_near in (True, False):
        grant, service = close.open_read("copy-all"), f"all-{close.told_near}"
        provisioned = await broker.provision(service, restore=grant)
        assert provisioned.restored_bytes == sum(map(len, content.values()))
        target = provisioned.resource["bucket"]
        after = broker.as_admin(target)
        await rclone.same(f"own:{source}", f"own:{target}")
        assert await rclone.listed(f"own:{target}") == listed
        assert await after.content() == content
        assert tags(after, "tagged") == TAGS
        assert tags(after, "big") == {"size": "big"}
        assert etags(after) == etags(before)
        parts = {key: etag[33:-1] for key, etag in etags(after).items() if "-" in etag}
        assert parts == {"big": "-3", "by five": "-3", "in one part": "-1"}
        assert head(after, "told") == head(before, "told")
        assert head(after, "told")["Metadata"] == {"owner": "me and you", "n": "1"}
        assert after.client.get_bucket_versioning(Bucket=target)["Status"] == "Enabled"


async def test_a_restored_bucket_has_moments_like_any_other(broker: S3, repository: Site) -> None:
    """What the restore wrote was written before the bucket kept versions."""
    await broker.provision("fidelity-again")
    app = await broker.bucket("fidelity-again")
    await app.fill({"kept": b"1", "overwritten": b"2", "deleted": b"3"})
    grant = await save(broker, repository, "fidelity-again", "copy-fidelity-again")
    await broker.provision("again-2", restore=grant)
    app = await broker.bucket("again-2")

    prepared = await broker.prepare("again-2", "copy-again-2")
    await app.put("overwritten", b"later")
    await app.delete("deleted")
    assert prepared.level == "application"
    await broker.copy("again-2", "copy-again-2", repository.open_write("copy-again-2"))
    repository.repository.commit("copy-again-2")
    await broker.provision("again-3", restore=repository.open_read("copy-again-2"))

    assert await (await broker.bucket("again-3")).content() == {"kept": b"1", "overwritten": b"2", "deleted": b"3"}


@pytest.mark.full
async def test_copies_on_top_of_each_other_are_what_the_bucket_was(
    broker: S3, repository: Site, rclone: Rclone
) -> None:
    source = (await broker.provision("chain")).resource["bucket"]
    admin = broker.as_admin(source)
    await admin.fill({f"doc/{n:03}": RANDOM.randbytes(2000) for n in range(60)} | {"odd//key": b"x", "z": b"last"})
    await admin.put("tagged", b"t", Tagging="a=b")
    await save(broker, repository, "chain", "chain-1")
    same = repository.repository.stats().stored_bytes
    await save(broker, repository, "chain", "chain-2", parent="chain-1")
    assert repository.repository.stats().stored_bytes - same < 20_000
    await admin.put("doc/007", b"changed")
    await admin.put("doc/008", RANDOM.randbytes(2000), Metadata={"now": "with"})
    await admin.put("doc/0075", b"new")
    await admin.delete("doc/001")
    grant = await save(broker, repository, "chain", "chain-3", parent="chain-2")

    target = (await broker.provision("chain-b", restore=grant)).resource["bucket"]
    await rclone.same(f"own:{source}", f"own:{target}")
    assert await rclone.listed(f"own:{target}") == await rclone.listed(f"own:{source}")
    assert tags(broker.as_admin(target), "tagged") == {"a": "b"}


@pytest.mark.full
async def test_a_parent_that_is_gone_makes_a_whole_copy(broker: S3, repository: Site) -> None:
    await broker.provision("orphan")
    app = await broker.bucket("orphan")
    await app.fill({f"{n}": RANDOM.randbytes(3000) for n in range(20)})
    for changed in (False, True):
        first, second = f"orphan-1-{changed}", f"orphan-2-{changed}"
        await save(broker, repository, "orphan", first)
        if changed:
            await app.put("3", b"changed")
        await broker.prepare("orphan", second)
        write = repository.open_write(second, parent=first)
        repository.repository.delete(first)
        repository.repository.collect(compact=True)
        await broker.copy("orphan", second, write)
        repository.repository.commit(second)
        service = f"orphan-{changed}"
        await broker.provision(service, restore=repository.open_read(second))
        assert await (await broker.bucket(service)).content() == await app.content()


@pytest.mark.full
async def test_a_bucket_of_another_server_is_taken_over(
    broker: S3, repository: Site, rclone: Rclone, tmp_path: Path
) -> None:
    directory = tmp_path / "second"
    (directory / "shop" / "deep").mkdir(parents=True)
    (directory / "shop" / "deep" / "a b").write_bytes(b"a b")
    (directory / "shop" / "empty").write_bytes(b"")
    (directory / "shop" / "big").write_bytes(RANDOM.randbytes(1 << 20) * 20)
    async with second_server(directory, tmp_path) as endpoint:
        url = f"s3://shop?endpoint={endpoint}&access_key={ACCESS_KEY}"
        existing = Existing(url=url, secret=Secret(value=SECRET_KEY))
        attach = Attach(id=new_id(), service_id="shop", type="objectstore", existing=existing)
        assert (await broker.run("attach", attach, Attachable)).resource["versioned"] == "no"
        prepare = PrepareCopy(id=new_id(), service_id="shop", copy="shop-1", existing=existing)
        assert (await broker.ask("prepare_copy", prepare, Prepared)).level == "crash"
        grant = repository.open_write("shop-1")
        copying = CopyData(id=new_id(), service_id="shop", copy="shop-1", grant=grant, existing=existing)
        await broker.run("copy", copying, Copied)
        repository.repository.commit("shop-1")
        target = (await broker.provision("shop-2", restore=repository.open_read("shop-1"))).resource["bucket"]
        rclone.remote("second", endpoint=endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY, provider="Rclone")
        await rclone.same("second:shop", f"own:{target}")
        # What was read before is kept; what must be read and changed after the moment is noticed.
        shop = Bucket(endpoint=endpoint, bucket="shop", access_key=ACCESS_KEY, secret_key=SECRET_KEY)
        await shop.put("empty", b"not any more")
        prepare = PrepareCopy(id=new_id(), service_id="shop", copy="shop-3", existing=existing)
        await broker.ask("prepare_copy", prepare, Prepared)
        await shop.put("empty", b"nor is it this")
        grant = repository.open_write("shop-3", parent="shop-1")
        changed = CopyData(id=new_id(), service_id="shop", copy="shop-3", grant=grant, existing=existing)
        assert (await broker.fails("copy", changed)).code == "entry_changed"
