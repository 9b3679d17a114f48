"""A data service broker writes and reads copies over HTTPS."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest

from brokers.repository.errors import CopyNotFound, IncompleteCopy
from brokers.sdk.copystream import CopyReader, CopyStreamError, CopyWriter
from brokers.sdk.copystream_http import connection
from schemas.brokers import CopyGrant
from schemas.problems import Actor
from schemas.secrets import Secret
from tests.integration.filesystem.site import Site, blocks

RANDOM = random.Random(7)
BIG = RANDOM.randbytes(5_000_000)


async def test_a_stream_comes_back_as_it_was_written(north: Site) -> None:
    passed: list[int] = []
    grant = north.open_write("c1")
    part = await CopyWriter(grant, progress=passed.append).write_stream("dump", blocks(BIG), media_type="a/b")
    assert (part.size, part.media_type, sum(passed)) == (len(BIG), "a/b", len(BIG))
    committed = north.repository.commit("c1")
    assert committed.manifest.part("dump") is not None
    head = await CopyReader(north.open_read("c1")).describe()
    assert head.parts[0].digest == part.digest
    assert await north.read("c1", "dump") == BIG


@pytest.mark.parametrize("data", [b"", b"x"])
async def test_tiny_streams(north: Site, data: bytes) -> None:
    await north.write_copy("c1", dump=data)
    assert await north.read("c1", "dump") == data


async def test_entries_come_back_in_order_with_their_metadata(north: Site) -> None:
    written = [(f"key/{n}", {"n": str(n)}, RANDOM.randbytes(RANDOM.choice([0, 1, 5000, 700_000]))) for n in range(60)]

    async def source() -> AsyncIterator[tuple[str, Mapping[str, str], int, AsyncIterator[bytes]]]:
        for key, metadata, data in written:
            yield key, metadata, len(data), blocks(data, size=65_536)

    part = await CopyWriter(north.open_write("c1")).write_entries("objects", source())
    assert part.entries == len(written)
    north.repository.commit("c1")
    reader = CopyReader(north.open_read("c1"))
    found = [
        (head.key, head.metadata, b"".join([bytes(block) async for block in data]))
        async for head, data in reader.read_entries("objects")
    ]
    assert found == written
    skipped = [head.key async for head, _ in reader.read_entries("objects")]
    assert skipped == [key for key, _, _ in written]


async def test_what_the_source_raises_comes_out_and_nothing_stays(north: Site) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield BIG
        raise RuntimeError("the database went away")

    with pytest.raises(RuntimeError, match="the database went away"):
        await CopyWriter(north.open_write("c1")).write_stream("dump", failing())
    await north.settled("c1")
    with pytest.raises(IncompleteCopy):
        north.repository.commit("c1")
    assert list(north.repository.copies()) == []


async def test_an_entry_that_changed_while_it_was_read_is_refused(north: Site) -> None:
    async def source() -> AsyncIterator[tuple[str, Mapping[str, str], int, AsyncIterator[bytes]]]:
        yield "a", {}, 10, blocks(b"only nine")

    with pytest.raises(CopyStreamError, match="announced with 10 bytes and has 9") as caught:
        await CopyWriter(north.open_write("c1")).write_entries("objects", source())
    assert caught.value.problem.temporary


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_raw_body_cut_short_leaves_nothing(north: Site, framing: str) -> None:
    grant = north.open_write("c1")
    host, port = grant.url.removeprefix("https://").split("/")[0].split(":")
    context = ssl.create_default_context(cadata=grant.ca)
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    head = "Content-Length: 100000" if framing == "length" else "Transfer-Encoding: chunked"
    path = grant.url.split(port, 1)[1]
    writer.write(
        f"PUT {path}/parts/dump HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {grant.token.value}\r\n"
        f"Content-Type: application/octet-stream\r\n{head}\r\n\r\n".encode()
    )
    data = b"x" * 5000
    writer.write(data if framing == "length" else b"%x\r\n%b\r\n" % (len(data), data))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    opened = await north.settled("c1")
    assert opened.sealed() == {}
    with pytest.raises(IncompleteCopy):
        north.repository.commit("c1")


async def test_a_damaged_chunk_ends_the_stream_in_an_error(north: Site) -> None:
    committed = await north.write_copy("c1", dump=BIG)
    chunk = north.chunks(committed, "dump")[-2]
    north.damage(chunk)
    received = bytearray()

    async def read() -> None:
        async for block in CopyReader(north.open_read("c1")).read_stream("dump"):
            received.extend(block)

    with pytest.raises(CopyStreamError, match=chunk) as caught:
        await read()
    assert caught.value.problem.actor is Actor.BROKER
    assert BIG.startswith(received)
    assert len(received) < len(BIG)


async def test_tokens_and_open_copies_outlive_a_restart(north: Site) -> None:
    grant = north.open_write("c1")
    await CopyWriter(grant).write_stream("one", blocks(BIG))
    await north.stop()
    await north.start()
    await CopyWriter(grant).write_stream("two", blocks(b"two"))
    committed = north.repository.commit("c1")
    assert [part.name for part in committed.manifest.parts] == ["one", "two"]
    assert await north.read("c1", "one") == BIG


async def test_any_http_client_can_write_and_read_a_raw_stream(north: Site) -> None:
    grant = north.open_write("c1")
    async with connection(grant) as session:
        url = f"{grant.url}/parts/dump"
        async with session.put(url, data=blocks(BIG), headers={"Content-Type": "application/octet-stream"}) as response:
            assert response.status == 201
            assert (await response.json())["size"] == len(BIG)
    committed = north.repository.commit("c1")
    grant = north.open_read("c1")
    async with connection(grant) as session:
        async with session.get(f"{grant.url}/parts/dump") as response:
            assert response.headers["Calque-Digest"] == committed.manifest.parts[0].digest
            assert await response.read() == BIG
        async with session.get(f"{grant.url}/parts/none") as response:
            assert response.status == 404
            assert (await response.json())["code"] == "not_found"


async def test_a_raw_stream_of_a_damaged_part_is_broken_off(north: Site) -> None:
    committed = await north.write_copy("c1", dump=BIG)
    north.damage(north.chunks(committed, "dump")[-1])
    grant = north.open_read("c1")
    async with connection(grant) as session, session.get(f"{grant.url}/parts/dump") as response:
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_a_reader_that_goes_away_disturbs_nobody(north: Site, caplog: pytest.LogCaptureFixture) -> None:
    await north.write_copy("c1", dump=BIG * 4)
    for _ in range(20):
        stream = CopyReader(north.open_read("c1")).read_stream("dump")
        assert await anext(stream)
        await stream.aclose()
    assert await north.read("c1", "dump") == BIG * 4
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def _with_token(grant: CopyGrant, token: str) -> CopyGrant:
    return CopyGrant(
        copy=grant.copy,
        purpose=grant.purpose,
        url=grant.url,
        token=Secret(value=token),
        fingerprint=grant.fingerprint,
        ca=grant.ca,
        expires_at=grant.expires_at,
    )


async def test_a_write_needs_a_write_token_of_this_copy(north: Site) -> None:
    grant = north.open_write("c1")
    for wrong, message in [
        (north.open_read("c1").token.value, "not for writing"),
        (north.open_write("c2").token.value, "another copy"),
        (grant.token.value[:-4] + "AAAA", "not one of this repository"),
        ("nonsense", "not one of|can't be read"),
    ]:
        with pytest.raises(CopyStreamError, match=message):
            await CopyWriter(_with_token(grant, wrong)).write_stream("dump", blocks(BIG))
    north.offset_seconds = 3600
    with pytest.raises(CopyStreamError, match="expired"):
        await CopyWriter(grant).write_stream("dump", blocks(BIG))


async def test_a_server_with_another_certificate_gets_no_token(north: Site, south: Site) -> None:
    grant = north.open_write("c1")
    elsewhere = CopyGrant(
        copy="c1",
        purpose="write",
        url=grant.url,
        token=grant.token,
        fingerprint=south.grants.fingerprint,
        ca=grant.ca,
        expires_at=grant.expires_at,
    )
    with pytest.raises(CopyStreamError, match="fingerprint") as caught:
        await CopyWriter(elsewhere).write_stream("dump", blocks(BIG))
    assert not caught.value.problem.temporary


async def test_what_is_not_there_is_said(north: Site) -> None:
    await north.write_copy("c1", dump=b"x")
    with pytest.raises(CopyStreamError, match="no such part"):
        await anext(CopyReader(north.open_read("c1")).read_stream("other"))
    with pytest.raises(CopyStreamError, match="not in this repository"):
        await CopyReader(north.open_read("c9")).describe()
    with pytest.raises(CopyNotFound):
        north.repository.committed("c9")
