"""A restore out of a repository on the same machine, into a server that answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brokers.s3.filling import fill
from brokers.s3.refusals import Refused
from brokers.s3.wire import Wire
from brokers.s3.writing import Writing
from brokers.sdk import near
from brokers.sdk.copystream import CopyReader, CopyWriter
from tests.integration.filesystem.certificates import Authority
from tests.integration.filesystem.site import Site
from tests.patience import patience
from tests.unit.s3.scripted import Scripted, answer, scripted

pytestmark = pytest.mark.skipif(not near.available(), reason="this system has no such sockets")

SMALL = 400
BIG = 3 << 20


@pytest.fixture
async def close(tmp_path: Path) -> AsyncIterator[Site]:
    """A repository with a copy: many small entries, a bigger one among them."""

    async def entries() -> AsyncIterator[tuple[str, dict[str, str], int, AsyncIterator[bytes]]]:
        async def blocks(size: int) -> AsyncIterator[bytes]:
            yield bytes(size)

        for number in range(SMALL):
            size = BIG if number == SMALL // 2 else 20_000
            yield f"{number:05}", {}, size, blocks(size)

    async with Site("close", directory=tmp_path, authority=Authority(tmp_path), near=True) as site:
        await CopyWriter(site.open_write("c1")).write_entries("objects", entries())
        site.repository.commit("c1")
        yield site


async def filled(site: Site, server: Scripted) -> None:
    async with Wire(server.place, "b") as wire, Writing(wire) as writing:
        await fill(writing, CopyReader(site.open_read("c1")), "objects")


async def test_all_entries_are_put_once(close: Site) -> None:
    async with scripted(*[[answer(b"")]] * SMALL) as server:
        await filled(close, server)
    assert sorted(each.line for each in server.seen) == [f"PUT /b/{number:05} HTTP/1.1" for number in range(SMALL)]
    assert sum(len(each.body) for each in server.seen) == (SMALL - 1) * 20_000 + BIG


async def test_cancelling_ends_it_while_the_server_is_silent(close: Site) -> None:
    async with scripted(*[[]] * SMALL) as server:
        filling = asyncio.create_task(filled(close, server))
        await asyncio.wait_for(server.asked.wait(), patience())
        filling.cancel()
        done, _ = await asyncio.wait({filling}, timeout=patience())
        assert done
        assert filling.cancelled()
        seen = len(server.seen)
    assert len(server.seen) == seen


async def test_what_the_server_refuses_ends_it(close: Site) -> None:
    refused = answer(b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>", "403 Forbidden")
    async with scripted(*[[answer(b"")]] * 20, *[[refused]] * SMALL) as server:
        with pytest.raises(Refused, match="no"):
            await filled(close, server)
