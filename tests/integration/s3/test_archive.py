"""Buckets with objects in an archive: refused before the copy begins, left out, or brought back, as settings say."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from brokers.s3.broker import S3Broker
from brokers.s3.settings import S3Settings
from brokers.sdk.errors import problem_of
from brokers.sdk.progress import Reporter
from schemas.brokers import BytesDone, CopyData, Existing, PrepareCopy, StageCopy
from schemas.ids import new_id
from schemas.problems import Problem
from schemas.secrets import Secret
from tests.integration.filesystem.site import Site
from tests.integration.s3.archiving import BUCKET, Archive, Stored, archive_server

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Saving:
    """A broker of this process, and what it tells of a copy of the bucket."""

    def __init__(self, broker: S3Broker, archive: Archive) -> None:
        self.broker = broker
        url = f"s3://{BUCKET}?endpoint={archive.endpoint}&access_key=KEY"
        self.request: dict[str, Any] = {
            "service_id": "docs",
            "existing": Existing(url=url, secret=Secret(value="secret")),
        }
        self.told: list[BytesDone] = []
        self.reporter = Reporter(tell=self.told.append, clock=itertools.count().__next__)

    async def stage(self, copy: str) -> None:
        await self.broker.stage_copy(StageCopy(id=new_id(), copy=copy, **self.request), self.reporter)

    async def prepare(self, copy: str) -> Any:
        return await self.broker.prepare_copy(PrepareCopy(id=new_id(), copy=copy, **self.request))

    async def copy(self, copy: str, repository: Site) -> int | None:
        grant = repository.open_write(copy)
        request = CopyData(id=new_id(), copy=copy, grant=grant, **self.request)
        return (await self.broker.copy(request, self.reporter)).parts[0].entries

    def problem(self, error: BaseException) -> Problem:
        return problem_of(error, explain=self.broker.explain, doing="saving")


@asynccontextmanager
async def saving(archive: Archive, directory: Path, **settings: Any) -> AsyncIterator[Saving]:
    """With the broker's settings beside those that it can't do without."""
    for name in ("key", "secret"):
        (directory / name).write_text("x")
    given = {
        "name": "s3",
        "site": "north",
        "kind": "dsb",
        "state_dir": directory / "state",
        "endpoint": archive.endpoint,
        **settings,
    }
    keys = {"access_key_file": directory / "key", "secret_key_file": directory / "secret"}
    broker = S3Broker(S3Settings.model_validate({**given, **keys, "bus": {"servers": ["nats://127.0.0.1:1"]}}))
    await broker.start()
    try:
        yield Saving(broker, archive)
    finally:
        await broker.stop()


@pytest.fixture
async def archive() -> AsyncIterator[Archive]:
    objects = {
        "hot": Stored(b"hot"),
        "instant": Stored(b"instant", "GLACIER_IR"),
        "old/1": Stored(b"old 1", "GLACIER"),
        "old/2": Stored(b"old two", "DEEP_ARCHIVE", looks=4),
    }
    async with archive_server(objects) as made:
        yield made


async def test_they_are_refused_before_anything_is_copied(archive: Archive, tmp_path: Path) -> None:
    async with saving(archive, tmp_path) as saves:
        await saves.stage("c1")
        with pytest.raises(Exception, match="2 objects") as refused:
            await saves.prepare("c1")
        problem = saves.problem(refused.value)
    assert (problem.code, problem.field, problem.temporary) == ("archived", "archived", False)
    assert "'old/1'" in problem.message
    assert "12 bytes" in problem.message
    assert archive.asked == [], "to bring something back costs money"


async def test_they_are_left_out_and_that_is_said_first(archive: Archive, repository: Site, tmp_path: Path) -> None:
    async with saving(archive, tmp_path, archived="leave_out") as saves:
        await saves.stage("archive-left")
        prepared = await saves.prepare("archive-left")
        (sentence,) = prepared.left_out
        assert "2 objects" in sentence
        assert await saves.prepare("archive-left") == prepared
        assert await saves.copy("archive-left", repository) == 2


async def test_they_are_brought_back_before_anybody_waits(archive: Archive, repository: Site, tmp_path: Path) -> None:
    settings = {"archived": "restore", "archive_days": 3, "archive_tier": "Bulk", "archive_poll_seconds": 0.01}
    async with saving(archive, tmp_path, **settings) as saves:
        await saves.stage("archive-back")
        assert sorted(archive.asked) == [("old/1", "3", "Bulk", 202), ("old/2", "3", "Bulk", 202)]
        first, last = saves.told[0], saves.told[-1]
        assert (first.done, first.total, first.message) == (0, 12, "0 of 2 objects are back from the archive")
        assert (last.done, last.total) == (12, 12)
        assert (await saves.prepare("archive-back")).left_out == ()
        assert await saves.copy("archive-back", repository) == 4


async def test_waiting_ends_and_goes_on_at_the_next_try(archive: Archive, tmp_path: Path) -> None:
    archive.objects["old/2"].looks = None
    settings = {"archived": "restore", "archive_poll_seconds": 0.01, "archive_wait_hours": 0}
    async with saving(archive, tmp_path, **settings) as saves:
        for _ in range(4):  # the first is back after some looks, the other one never
            with pytest.raises(Exception, match="still being brought back") as late:
                await saves.stage("c1")
        problem = saves.problem(late.value)
        assert (problem.code, problem.temporary) == ("archived", True)
        assert problem.retry_after_seconds is not None
        assert problem.retry_after_seconds >= 60
        assert "'old/2' (7 bytes)" in problem.message
        assert [each.status for each in archive.asked if each.key == "old/2"] == [202, 409, 409, 409]
        with pytest.raises(Exception, match="not back from its archive yet"):
            await saves.prepare("c1")


async def test_who_may_not_bring_them_back_is_told_which_right_is_missing(archive: Archive, tmp_path: Path) -> None:
    archive.denied = True
    async with saving(archive, tmp_path, archived="restore") as saves:
        with pytest.raises(Exception, match="bring objects back") as refused:
            await saves.stage("c1")
        problem = saves.problem(refused.value)
    assert (problem.code, problem.temporary) == ("unauthorised", False)
    assert "s3:RestoreObject" in str(problem.remedy)


async def test_one_archived_after_the_moment_is_named(archive: Archive, repository: Site, tmp_path: Path) -> None:
    del archive.objects["old/1"], archive.objects["old/2"]
    async with saving(archive, tmp_path) as saves:
        await saves.prepare("archive-late")
        archive.objects["hot"].storage_class = "GLACIER"
        with pytest.raises(Exception, match="archive") as refused:
            await saves.copy("archive-late", repository)
        problem = saves.problem(refused.value)
    assert (problem.code, problem.temporary) == ("archived", False)
    assert "hot" in problem.message
