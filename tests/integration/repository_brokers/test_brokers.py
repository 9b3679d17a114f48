"""The S3 and Postgres repositories as processes: what they keep through kills, and how they exchange copies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from brokers.sdk.copystream import CopyStreamError, CopyWriter
from schemas.brokers import Committed, DataServiceHealth, Health, Verified, VerifyCopy
from schemas.ids import new_id
from tests.integration.repository_brokers.brokers import BLOCK, Surroundings, blocks, commit_request

KINDS = ("s3", "postgres")
DATA = random.Random(11).randbytes(40 * BLOCK + 7)
"""More than one pack."""
FEW = DATA[: 6 * BLOCK + 1]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_copy_outlives_a_kill_and_its_bytes_are_freed_when_it_is_deleted(
    surroundings: Surroundings, kind: str
) -> None:
    broker = surroundings.broker(kind)
    try:
        await broker.start()
        committed = await broker.save("c1", FEW)
        assert committed.summary.size == len(FEW)
        assert (await broker.save("c2", FEW[: 3 * BLOCK])).summary.size == 3 * BLOCK
        stats = await broker.stats()
        assert stats.copies == 2
        assert len(FEW) < stats.stored < 1.1 * len(FEW)  # the second one is part of the first

        await broker.kill()
        await broker.start()

        assert await broker.copies() == ["c1", "c2"]
        assert await broker.read("c1") == FEW
        assert await broker.run("verify", VerifyCopy(id=new_id(), copy="c1"), Verified) == Verified(copy="c1")
        assert (await broker.ask("health", DataServiceHealth(), Health)).healthy
        await broker.delete("c1")
        assert await broker.copies() == ["c2"]
        assert await broker.read("c2") == FEW[: 3 * BLOCK]
    finally:
        await broker.stop()


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
async def test_a_kill_in_the_middle_of_a_save_is_resumed(surroundings: Surroundings, kind: str) -> None:
    """What was stored before the kill is not stored again."""
    broker = surroundings.broker(kind)
    await broker.start()
    halfway = asyncio.Event()
    go_on = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        async for block in blocks(DATA):
            yield block
            if not halfway.is_set():
                halfway.set()
        await go_on.wait()

    try:
        grant = await broker.open_write("c1")
        writing = asyncio.create_task(CopyWriter(grant).write_stream("dump", slowly()))
        await halfway.wait()
        await broker.kill()
        go_on.set()
        with pytest.raises(CopyStreamError) as failed:
            await writing
        assert failed.value.problem.temporary

        await broker.start()
        assert await broker.copies() == []
        part = await CopyWriter(grant).write_stream("dump", blocks(DATA))
        await broker.run("commit", commit_request("c1", part), Committed)
        assert await broker.read("c1") == DATA
    finally:
        await broker.stop()


@pytest.mark.full
async def test_copies_travel_between_repositories_of_all_kinds(surroundings: Surroundings) -> None:
    made = [surroundings.broker(kind) for kind in ("s3", "filesystem", "postgres")]
    try:
        await asyncio.gather(*(broker.start() for broker in made))
        first = await made[0].save("c1", DATA)
        for source, target in zip(made, [*made[1:], made[0]], strict=True):
            if target is made[0]:
                await target.delete("c1")
            moved = await target.fetch("c1", source=source)
            assert moved.summary == first.summary
            assert await target.read("c1") == DATA
    finally:
        await asyncio.gather(*(broker.stop() for broker in made))


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
async def test_a_kill_in_the_middle_of_a_transfer_is_resumed(surroundings: Surroundings, kind: str) -> None:
    source, target = surroundings.broker("filesystem"), surroundings.broker(kind)
    try:
        await asyncio.gather(source.start(), target.start())
        await source.save("c1", DATA)
        fetching = asyncio.create_task(target.fetch("c1", source=source))
        await asyncio.sleep(0.2)
        await target.kill()
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
        await target.start()
        await target.fetch("c1", source=source)
        assert await target.read("c1") == DATA
    finally:
        await asyncio.gather(source.stop(), target.stop())
