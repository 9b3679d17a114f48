"""Endpoints of many kinds, and what their refusals are called."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from brokers.repository.format1.repository import Options, Repository
from brokers.repository.manifest import CopyInfo
from brokers.repository.objects import ObjectExists, ObjectMissing
from brokers.s3_repository.settings import BucketSection
from brokers.s3_repository.store import PROBE, S3Store
from brokers.sdk.frames import Data
from hub.stack.ports import Ports
from schemas.problems import CalqueError, Problem
from tests.integration.repository_stores.fake_s3 import BUCKET, WHEN, FakeS3
from tests.integration.repository_stores.stores import Shelf, s3_settings
from tests.integration.s3.rclone import ACCESS_KEY, SECRET_KEY, second_server
from tests.servers import RunningS3, run_s3
from tests.unit.repository.copies import write_part


async def problem_of(call: Callable[[], object]) -> Problem:
    """The problem that a call fails with."""
    with pytest.raises(CalqueError) as failed:
        await asyncio.to_thread(call)
    return failed.value.problem


def store_of(settings: dict[str, Any], **other: Any) -> S3Store:
    return S3Store(BucketSection.model_validate({**settings, **other}))


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeS3]:
    server = FakeS3(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def faked(fake: FakeS3) -> Iterator[S3Store]:
    store = store_of(fake.settings)
    yield store
    store.close()


async def test_a_real_endpoint_keeps_conditions(s3_server: RunningS3) -> None:
    store = store_of(s3_settings(s3_server))
    try:
        assert await asyncio.to_thread(lambda: store.conditional)
    finally:
        store.close()


async def test_a_wrong_bucket_is_not_an_empty_repository(s3_server: RunningS3) -> None:
    store = store_of(s3_settings(s3_server), name="not-our-bucket", create=False)
    calls: list[Callable[[], object]] = [
        store.check,
        lambda: store.look("a"),
        lambda: store.read("a"),
        lambda: list(store.list("")),
        lambda: store.put("a", b"x"),
    ]
    try:
        for call in calls:
            problem = await problem_of(call)
            assert (problem.code, problem.field, problem.temporary) == ("no_bucket", "bucket.name", False)
            assert "not-our-bucket" in problem.message
    finally:
        store.close()


async def test_refused_keys_name_their_setting_and_are_read_again(s3_server: RunningS3, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("wrong")
    store = store_of(s3_settings(s3_server), secret_key_file=str(secret))
    try:
        for call in (store.check, lambda: store.look("a"), lambda: store.put("a", b"x")):
            problem = await problem_of(call)
            assert (problem.code, problem.field) == ("unauthorised", "bucket.access_key_file")
            assert not problem.temporary
            assert "wrong" not in problem.sentence()
        secret.write_text(s3_server.secret_key)
        await asyncio.to_thread(store.put, "a", b"x")
        secret.unlink()
        problem = await problem_of(lambda: store.look("a"))
        assert (problem.field, problem.temporary) == ("bucket.secret_key_file", True)
    finally:
        store.close()


async def test_an_endpoint_that_is_away_is_temporary(tmp_path: Path, s3_server: RunningS3) -> None:
    port = Ports(tmp_path / "ports.json").pick("nobody")
    store = store_of(s3_settings(s3_server), endpoint=f"http://127.0.0.1:{port}")
    try:
        problem = await problem_of(lambda: store.look("a"))
        assert (problem.code, problem.temporary) == ("unavailable", True)
        assert str(port) in problem.message
    finally:
        store.close()


async def test_uploads_that_a_crash_left_are_removed_only_when_they_are_old(s3_server: RunningS3) -> None:
    """Another writer's upload of this moment must not be taken from it."""
    settings = s3_settings(s3_server)
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=settings["endpoint"],
        region_name="us-east-1",
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )
    shelf = Shelf("s3", settings)
    try:
        await asyncio.to_thread(shelf.store.check)  # type: ignore[attr-defined]
        key = settings["prefix"] + "packs/young"
        await asyncio.to_thread(lambda: client.create_multipart_upload(Bucket=settings["name"], Key=key))
        await shelf.put("a", b"x")
        left = await asyncio.to_thread(
            lambda: client.list_multipart_uploads(Bucket=settings["name"], Prefix=settings["prefix"])
        )
        assert [each["Key"] for each in left["Uploads"]] == [key]
    finally:
        shelf.close()
        client.close()


@pytest.mark.parametrize(("addressing", "host"), [("path", ""), ("virtual", f"{BUCKET}.")])
async def test_a_bucket_is_named_in_the_path_or_in_the_host(
    fake: FakeS3, monkeypatch: pytest.MonkeyPatch, addressing: str, host: str
) -> None:
    asked, look_up = set(), socket.getaddrinfo

    def here(name: str, *more: Any, **named: Any) -> Any:
        asked.add(name)
        return look_up("127.0.0.1", *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    endpoint = fake.settings["endpoint"].replace("127.0.0.1", "s3.test")
    store = store_of(fake.settings, endpoint=endpoint, addressing=addressing)
    try:
        await asyncio.to_thread(store.put, "a", b"content")
        assert await asyncio.to_thread(store.read, "a") == b"content"
    finally:
        store.close()
    assert asked == {f"{host}s3.test"}


async def test_a_server_of_another_make(tmp_path: Path) -> None:
    """One that keeps no conditions, no metadata and no storage classes."""
    (tmp_path / "served" / "repository").mkdir(parents=True)
    for name, value in (("access", ACCESS_KEY), ("secret", SECRET_KEY)):
        (tmp_path / name).write_text(value)
    async with second_server(tmp_path / "served", tmp_path) as endpoint:
        settings = {
            "endpoint": endpoint,
            "name": "repository",
            "prefix": "below/",
            "access_key_file": str(tmp_path / "access"),
            "secret_key_file": str(tmp_path / "secret"),
        }
        shelf = Shelf("s3", settings)
        try:
            big = bytes(range(256)) * (36 << 12)
            await shelf.put("packs/big", big)
            await shelf.put("a", b"kept")
            await shelf.put("a", b"kept")
            with pytest.raises(ObjectExists):
                await shelf.put("a", b"else")
            assert await shelf.read("packs/big", offset=20 << 20, length=1000) == big[20 << 20 :][:1000]
            assert await shelf.read("packs/big") == big
            assert await shelf.names() == ["a", "packs/big"]
            await shelf.delete("packs/big")
            assert await shelf.look("packs/big") is None
            with pytest.raises(ObjectMissing):
                await shelf.read("packs/big")
        finally:
            await asyncio.to_thread(shelf.close)


@pytest.mark.parametrize("conditions", ["kept", "ignored", "refused"])
async def test_other_content_is_refused_with_and_without_conditions(
    fake: FakeS3, faked: S3Store, conditions: str
) -> None:
    fake.behaviour.conditions = conditions
    await asyncio.to_thread(faked.put, "a", b"kept")

    assert faked.conditional == (conditions == "kept")
    await asyncio.to_thread(faked.put, "a", b"kept")
    with pytest.raises(ObjectExists):
        await asyncio.to_thread(faked.put, "a", b"else")
    assert await asyncio.to_thread(faked.read, "a") == b"kept"
    assert [each.name for each in faked.list("")] == ["a"]
    assert f"PUT {PROBE}" in fake.behaviour.seen


async def test_a_put_whose_answer_was_lost_is_no_conflict(fake: FakeS3, faked: S3Store) -> None:
    await asyncio.to_thread(faked.put, "first", b"x")
    fake.behaviour.seen.clear()
    fake.behaviour.refusals = [("SlowDown", 503), ("InternalError", 500)]

    await asyncio.to_thread(faked.put, "a", b"content")

    assert fake.behaviour.seen == ["PUT a"] * 3
    assert await asyncio.to_thread(faked.read, "a") == b"content"


@pytest.mark.full
async def test_a_busy_endpoint_is_temporary(fake: FakeS3, faked: S3Store) -> None:
    fake.behaviour.always = ("SlowDown", 503)
    problem = await problem_of(lambda: faked.read("a"))
    assert (problem.code, problem.temporary) == ("unavailable", True)


@pytest.mark.parametrize(
    ("code", "status", "problem", "temporary"),
    [
        ("AccessDenied", 403, "unauthorised", False),
        ("AuthorizationHeaderMalformed", 400, "wrong_region", False),
        ("XMinioStorageFull", 507, "full", True),
        ("RequestTimeTooSkewed", 403, "clock_skew", True),
        ("SomethingElse", 400, "s3", False),
    ],
)
async def test_refusals(fake: FakeS3, faked: S3Store, code: str, status: int, problem: str, temporary: bool) -> None:
    fake.behaviour.always = (code, status)
    for call in (lambda: faked.read("a"), lambda: faked.look("a"), lambda: list(faked.list(""))):
        found = await problem_of(call)
        assert (found.code, found.temporary) == (problem, temporary), found


async def test_a_difference_of_clocks_is_told_in_seconds(fake: FakeS3, faked: S3Store) -> None:
    fake.behaviour.date = datetime.now(UTC) - timedelta(hours=1)
    fake.behaviour.always = ("RequestTimeTooSkewed", 403)
    found = await problem_of(lambda: faked.read("a"))
    assert any(f"by {seconds} s" in found.message for seconds in range(3595, 3800)), found.message


async def test_the_clock_is_that_of_the_endpoint(fake: FakeS3, faked: S3Store) -> None:
    now = await asyncio.to_thread(faked.now)
    assert abs(now - WHEN.timestamp()) < 60


async def test_an_answer_that_breaks_off_is_asked_for_again(fake: FakeS3, faked: S3Store) -> None:
    await asyncio.to_thread(faked.put, "a", bytes(100_000))
    fake.behaviour.broken_answers = 2
    assert await asyncio.to_thread(faked.read, "a") == bytes(100_000)
    fake.behaviour.broken_answers = 50
    problem = await problem_of(lambda: faked.read("a"))
    assert (problem.code, problem.temporary) == ("unavailable", True)


async def test_an_archived_object_is_asked_for_once_and_is_temporary(fake: FakeS3, faked: S3Store) -> None:
    await asyncio.to_thread(faked.put, "packs/old", b"content")
    fake.behaviour.archived.add("packs/old")

    first = await problem_of(lambda: faked.read("packs/old"))
    second = await problem_of(lambda: faked.read("packs/old"))

    for problem in (first, second):
        assert (problem.code, problem.temporary) == ("archived", True)
        assert problem.retry_after_seconds is not None
        assert problem.retry_after_seconds >= 60
    assert fake.behaviour.restores == ["packs/old"] * 2
    fake.behaviour.archived.clear()
    assert await asyncio.to_thread(faked.read, "packs/old") == b"content"


async def test_all_packs_of_a_copy_are_brought_back_together(fake: FakeS3, faked: S3Store, tmp_path: Path) -> None:
    repository = Repository.open(faked, state=tmp_path / "state", options=Options(pack_bytes=64 << 10))
    try:
        content = random.Random(4).randbytes(600_000)

        def write() -> None:
            write_part(repository.open_write("c", CopyInfo()), "dump", content)
            repository.commit("c")

        def read() -> bytes:
            events = repository.read_part("c", repository.committed("c").parts[0])
            return b"".join(bytes(event.data) for event in events if isinstance(event, Data))

        await asyncio.to_thread(write)
        packs = {each.name for each in await asyncio.to_thread(lambda: list(faked.list("packs/")))}
        assert len(packs) > 2
        fake.behaviour.archived |= packs
        problem = await problem_of(read)
        assert (problem.code, problem.temporary) == ("archived", True)
        assert set(fake.behaviour.restores) == packs
        fake.behaviour.archived.clear()
        assert await asyncio.to_thread(read) == content
    finally:
        repository.close()


async def test_only_packs_go_to_the_storage_class(fake: FakeS3) -> None:
    store = store_of(fake.settings, storage_class="GLACIER_IR")
    try:
        await asyncio.to_thread(store.put, "packs/one", b"x")
        await asyncio.to_thread(store.put, "manifests/one", b"x")
    finally:
        store.close()
    assert fake.behaviour.classes["packs/one"] == "GLACIER_IR"
    assert fake.behaviour.classes["manifests/one"] == ""


async def test_what_another_program_put_is_compared_by_its_bytes(s3_server: RunningS3) -> None:
    settings = s3_settings(s3_server)
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=settings["endpoint"],
        region_name="us-east-1",
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )
    shelf = Shelf("s3", settings)
    try:
        await shelf.put("first", b"x")
        key = settings["prefix"] + "copied"
        await asyncio.to_thread(lambda: client.put_object(Bucket=settings["name"], Key=key, Body=b"from elsewhere"))
        await shelf.put("copied", b"from elsewhere")
        with pytest.raises(ObjectExists):
            await shelf.put("copied", b"from somewhere")
    finally:
        shelf.close()
        client.close()


@pytest.mark.full
async def test_an_endpoint_that_is_killed_in_the_middle_is_temporary_and_then_goes_on(tmp_path: Path) -> None:
    async with run_s3(tmp_path) as server:
        shelf = Shelf("s3", s3_settings(server))
        try:
            await shelf.put("before", b"x")
            putting = asyncio.create_task(shelf.put("packs/big", bytes(64 << 20)))
            await asyncio.sleep(0.1)
            await server.supervisor.stop()
            with pytest.raises(CalqueError) as failed:
                await putting
            assert failed.value.problem.temporary
            await server.supervisor.start()
            assert await shelf.names() in (["before"], ["before", "packs/big"])
            await shelf.put("packs/big", bytes(64 << 20))
            assert await shelf.read("before") == b"x"
            with pytest.raises(ObjectMissing):
                await shelf.read("nothing")
        finally:
            shelf.close()


@pytest.mark.parametrize(
    "broken",
    [
        {"prefix": "no-slash"},
        {"prefix": "../"},
        {"endpoint": "ftp://x"},
        {"access_key_file": None},
        {"storage_class": "small letters"},
        {"name": "x"},
    ],
)
def test_settings_that_can_not_be(broken: dict[str, Any]) -> None:
    sound = {"endpoint": "https://x", "name": "bucket", "access_key_file": "a", "secret_key_file": "b"}
    BucketSection.model_validate(sound)
    with pytest.raises(ValueError):
        BucketSection.model_validate({**sound, **broken})
