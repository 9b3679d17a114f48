"""Rows over the bare socket of a session: nothing is lost or taken for the end that is none, and what the server
refuses is told as everywhere else."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator

import pytest

from brokers.postgres.copywire import SILENCE_SECONDS, CopyWire, Payloads, message_of
from brokers.postgres.logins import Login
from brokers.postgres.server import Lost, Server, ServerError, Session
from schemas.secrets import Secret
from tests.servers import RunningPostgres

ENDINGS = (
    b"c\0\0\0\x04C\0\0\0\x0bCOPY 1\0Z\0\0\0\x05T",
    b"c\0\0\0\x04C\0\0\0\x0bCOPY 1\0Z\0\0\0\x05I",
    b"E\0\0\0\x0aSERROR\0\0Z\0\0\0\x05E",
    b"Z\0\0\0\x05E",
)


@pytest.fixture(params=["bare", "libpq"])
async def session(postgres_server: RunningPostgres, request: pytest.FixtureRequest) -> AsyncIterator[Session]:
    """One whose rows go past libpq, and one where that can't be, as with TLS."""
    address, password = postgres_server.server, Secret(value=postgres_server.password)
    login = Login(address.host, address.port, address.user, "postgres", password)
    made = await Server(lambda: login, bare=request.param == "bare").connect()
    await made.run("BEGIN")
    yield made
    await made.close()


async def copied(session: Session, statement: str) -> bytes:
    payloads = Payloads()
    return b"".join([payloads.feed(block) async for block in session.copy_out(statement)])


async def test_many_and_few_rows_arrive_whole(session: Session) -> None:
    for count in (0, 1, 2, 50, 3000, 200_000):
        text = await copied(session, f"COPY (SELECT n FROM generate_series(1, {count}) n) TO STDOUT")
        assert text == b"".join(b"%d\n" % number for number in range(1, count + 1))
    assert await session.value("SELECT 1") == 1


async def test_rows_that_look_like_the_end_are_rows(session: Session) -> None:
    await session.run("CREATE TEMPORARY TABLE odd (b bytea) ON COMMIT DROP")
    for ending in ENDINGS:
        await session.run("INSERT INTO odd SELECT %s FROM generate_series(1, 20)", (b"x" * 30_000 + ending,))
    content = await copied(session, "COPY odd TO STDOUT (FORMAT binary)")
    for ending in ENDINGS:
        assert content.count(b"x" * 30_000 + ending) >= 20
    assert content.endswith(b"\xff\xff")


async def test_what_goes_out_comes_in_again(session: Session) -> None:
    await session.run("CREATE TEMPORARY TABLE there (n int, t text) ON COMMIT DROP")
    statement = "COPY (SELECT n, repeat(n::text, n % 90) FROM generate_series(1, 200000) n) TO STDOUT (FORMAT binary)"
    blocks = [block async for block in session.copy_out(statement)]
    assert len(blocks) > 3

    async def again() -> AsyncIterator[bytes]:
        for block in blocks:
            yield block

    await session.copy_in("COPY there FROM STDIN (FORMAT binary)", again())
    assert await session.rows("SELECT count(*), sum(n), sum(length(t)) FROM there") == await session.rows(
        "SELECT count(*), sum(n), sum(length(repeat(n::text, n % 90))) FROM generate_series(1, 200000) n"
    )


@pytest.mark.parametrize("at", [1, 5000, 150_000])
async def test_a_failure_among_the_rows_is_told_by_its_name(session: Session, at: int) -> None:
    with pytest.raises(ServerError) as caught:
        await copied(session, f"COPY (SELECT 1 / (n - {at}) FROM generate_series(1, 200000) n) TO STDOUT")
    assert caught.value.sqlstate == "22012"
    assert "division by zero" in str(caught.value)


async def test_a_statement_that_is_none_is_refused(session: Session) -> None:
    with pytest.raises(ServerError) as caught:
        await copied(session, "COPY no_such_table TO STDOUT")
    assert caught.value.sqlstate == "42P01"
    await session.run("ROLLBACK")
    assert await session.value("SELECT 1") == 1


async def test_rows_that_are_refused_leave_a_session_that_works(session: Session) -> None:
    async def rows() -> AsyncIterator[bytes]:
        for number in range(2000):
            block = b"1\n" * 1000 if number else b"no number\n"
            yield message_of(block) + block

    await session.run("CREATE TEMPORARY TABLE numbers (n int) ON COMMIT DROP")
    with pytest.raises(ServerError) as caught:
        await session.copy_in("COPY numbers FROM STDIN", rows())
    assert caught.value.sqlstate == "22P02"
    await session.run("ROLLBACK")
    assert await session.value("SELECT 1") == 1


async def test_a_source_that_fails_leaves_a_session_that_works(session: Session) -> None:
    async def rows() -> AsyncIterator[bytes]:
        yield message_of(b"1\n") + b"1\n"
        raise RuntimeError("the repository went away")

    await session.run("CREATE TEMPORARY TABLE numbers (n int) ON COMMIT DROP")
    with pytest.raises(RuntimeError, match="went away"):
        await session.copy_in("COPY numbers FROM STDIN", rows())
    await session.run("ROLLBACK")
    assert await session.value("SELECT 1") == 1


async def test_a_source_that_fails_amid_a_row_ends_the_copy(session: Session) -> None:
    async def rows() -> AsyncIterator[bytes]:
        yield message_of(b"1\n" * 1000) + b"1\n"
        raise RuntimeError("the repository went away")

    await session.run("CREATE TEMPORARY TABLE numbers (n int) ON COMMIT DROP")
    with pytest.raises(RuntimeError, match="went away"):
        async with asyncio.timeout(60):
            await session.copy_in("COPY numbers FROM STDIN", rows())


async def test_a_server_that_talks_while_it_takes_rows_gets_all_of_them(session: Session) -> None:
    await session.run("SET client_min_messages = error")  # INFO is sent whatever is set
    await session.run(
        "CREATE FUNCTION pg_temp.told(n int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS "
        "$$ BEGIN RAISE INFO 'seen: % %', n, repeat('x', 200); RETURN true; END $$"
    )
    await session.run("CREATE TEMPORARY TABLE numbers (n int CHECK (pg_temp.told(n))) ON COMMIT DROP")
    count = 60_000  # 13 MB of messages, more than the sockets hold

    async def rows() -> AsyncIterator[bytes]:
        row = message_of(b"12345\n") + b"12345\n"
        for _ in range(60):
            yield row * (count // 60)

    async with asyncio.timeout(120):
        await session.copy_in("COPY numbers FROM STDIN", rows())
    assert await session.value("SELECT count(*) FROM numbers") == count


async def test_rows_that_look_like_an_end_before_a_pause_are_rows() -> None:
    ours, its = socket.socketpair()
    its.setblocking(False)
    wire, loop = CopyWire(ours.fileno()), asyncio.get_running_loop()
    row = b"x" * 100_000 + b"Z\0\0\0\x05E"

    async def answer() -> None:
        word = re.findall(rb"SELECT '(.*)'", await loop.sock_recv(its, 10_000))[0]
        await loop.sock_sendall(its, b"H\0\0\0\x07\0\0\0" + message_of(row) + row)
        await asyncio.sleep(1.5 * SILENCE_SECONDS)
        end = b"c\0\0\0\x04C\0\0\0\x0bCOPY 1\0" + b"D" + (10 + len(word)).to_bytes(4, "big") + b"\0\x01"
        end += len(word).to_bytes(4, "big") + word + b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05T"
        for at in range(len(end)):  # cut at every byte
            await loop.sock_sendall(its, end[at : at + 1])
            await asyncio.sleep(0)

    answering = asyncio.create_task(answer())
    try:
        async with asyncio.timeout(60):
            payloads = Payloads()
            assert b"".join([payloads.feed(block) async for block in wire.rows("COPY odd TO STDOUT")]) == row
    finally:
        await answering
        wire.close()
        ours.close()
        its.close()


async def test_who_reads_from_a_session_that_is_closed_has_lost_it(session: Session) -> None:
    reading = session.copy_out("COPY (SELECT repeat('x', 1000), generate_series(1, 100000000)) TO STDOUT")
    await anext(reading)
    waiting = asyncio.create_task(_all(reading))
    await asyncio.sleep(0)
    await session.close()
    with pytest.raises(Lost):
        await waiting


async def _all(blocks: AsyncIterator[bytes]) -> None:
    async for _ in blocks:
        continue
