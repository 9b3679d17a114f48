"""Requests over the wire: what servers may answer, and what is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from brokers.s3.places import Keys
from brokers.s3.refusals import Refused, Unreachable, explain
from brokers.s3.wire import Wire
from schemas.problems import Problem
from schemas.secrets import Secret
from tests.unit.s3.scripted import answer, scripted

DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokers.s3.wire.BACKOFF_SECONDS", 0.0)


@pytest.mark.parametrize(
    "pieces",
    [
        [answer(b"hello world")],
        [bytes([each]) for each in answer(b"hello world", "200 OK", "X-Odd:  v ")],
        [b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"hello world")],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhel", b"lo\r", b"\n6\r\n world\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\nTrailer: t\r\n", b"\r\n"],
        [b"HTTP/1.0 200 OK\r\n\r\nhello", b" world", None],
        [answer(b"hello world", "200 OK", "Connection: close"), None],
    ],
)
async def test_an_answer_comes_whole_however_it_is_cut(pieces: list[bytes | None]) -> None:
    async with scripted(pieces, [answer(b"next")]) as server, Wire(server.place, "b") as wire:
        assert (await wire.ask("GET", "key")).body == b"hello world"
        assert (await wire.ask("GET", "key")).body == b"next"


async def test_a_connection_is_used_again() -> None:
    async with scripted(*[[answer(bytes(100_000))]] * 5) as server, Wire(server.place, "b") as wire:
        for _ in range(4):
            assert len((await wire.ask("GET", "key")).body) == 100_000
        begun = wire.begin("key", query="", headers={})
        assert begun is not None
        assert len((await begun).body) == 100_000
        assert server.connections == 1


@pytest.mark.parametrize(
    "first",
    [
        [None],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", None],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nlonger"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n"],
        [b"no http at all\r\n\r\n"],
        [answer(b"", "503 Slow Down")],
        [answer(b"", "500 Internal Server Error")],
    ],
)
async def test_what_may_help_is_tried_again(first: list[bytes | None]) -> None:
    async with scripted(first, [answer(b"sound")]) as server, Wire(server.place, "b") as wire:
        assert (await wire.ask("GET", "key")).body == b"sound"
        assert len(server.seen) == 2


async def test_what_can_not_help_is_not() -> None:
    async with scripted([answer(DENIED, "403 Forbidden")]) as server, Wire(server.place, "b") as wire:
        with pytest.raises(Refused) as refused:
            await wire.ask("GET", "key")
    assert (refused.value.code, refused.value.status) == ("AccessDenied", 403)
    problem = explain(refused.value)
    assert problem is not None
    assert (problem.code, problem.temporary) == ("unauthorised", False)


async def test_an_object_in_an_archive_is_named() -> None:
    body = DENIED.replace(b"AccessDenied", b"InvalidObjectState")
    async with scripted([answer(body, "403 Forbidden")]) as server, Wire(server.place, "b") as wire:
        with pytest.raises(Refused) as refused:
            await wire.ask("GET", "old/one")
    problem = explain(refused.value)
    assert problem is not None
    assert (problem.code, problem.temporary) == ("archived", False)
    assert "old/one" in problem.message


@pytest.mark.parametrize(
    ("code", "status", "message", "problem", "remedy"),
    [
        (
            "InvalidRequest",
            "400 Bad Request",
            "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to"
            " retrieve the object.",
            "own_key",
            "write them anew",
        ),
        (
            "AccessDenied",
            "403 Forbidden",
            "User: u is not authorized to perform: kms:Decrypt on resource: r",
            "unauthorised",
            "kms:Decrypt",
        ),
    ],
)
async def test_encryption_that_keeps_us_out_is_named(
    code: str, status: str, message: str, problem: str, remedy: str
) -> None:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    async with scripted([answer(body, status)]) as server, Wire(server.place, "b") as wire:
        with pytest.raises(Refused) as refused:
            await wire.ask("GET", "secret/one")
    found = explain(refused.value)
    assert found is not None
    assert (found.code, found.temporary) == (problem, False)
    assert "secret/one" in found.message
    assert remedy in str(found.remedy)


async def test_a_server_that_never_answers_is_away() -> None:
    async with scripted(*[[None]] * 5) as server, Wire(server.place, "b") as wire:
        with pytest.raises(Unreachable) as away:
            await wire.ask("GET", "key")
    problem = explain(away.value)
    assert problem is not None
    assert (problem.code, problem.temporary) == ("unavailable", True)


async def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokers.s3.wire.SILENT_SECONDS", 0.1)
    monkeypatch.setattr("brokers.s3.wire.WATCH_SECONDS", 0.05)
    async with scripted([], [answer(b"awake")]) as server, Wire(server.place, "b") as wire:
        assert (await wire.ask("GET", "key")).body == b"awake"


async def test_a_body_of_any_size_is_sent_whole() -> None:
    body = bytes(range(256)) * 12_000
    async with scripted([answer(b"")]) as server, Wire(server.place, "b") as wire:
        await wire.ask("PUT", "key", headers={"Content-Type": "x/y", "x-amz-meta-a": "b  c"}, body=body)
    assert server.seen[0].body == body
    assert server.seen[0].headers["content-type"] == "x/y"
    assert server.seen[0].headers["x-amz-meta-a"] == "b  c"


async def test_an_answer_that_nobody_waits_for_any_more_harms_nobody() -> None:
    async with scripted([], [answer(b"mine")]) as server, Wire(server.place, "b") as wire:
        first = asyncio.create_task(wire.ask("GET", "slow"))
        await server.asked.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert (await wire.ask("GET", "other")).body == b"mine"


@pytest.mark.parametrize(("virtual", "line", "host"), [(False, "/b/k%20y", ""), (True, "/k%20y", "b.")])
async def test_where_the_bucket_is_named(virtual: bool, line: str, host: str) -> None:
    async with scripted([answer(b"")]) as server:
        named = server.place._replace(virtual=virtual, endpoint=server.place.endpoint.replace("127.0.0.1", "s3.test"))
        wire = Wire(named, "b")
        wire.route = wire.route._replace(address="127.0.0.1")  # there is no name server for the test
        async with wire:
            await wire.ask("GET", "k y")
    assert server.seen[0].line == f"GET {line} HTTP/1.1"
    assert server.seen[0].headers["host"].startswith(f"{host}s3.test:")


async def test_keys_that_were_renewed_are_taken_up() -> None:
    pairs = iter(
        [
            Keys("OLD", Secret(value="s"), Secret(value="token-1")),
            Keys("NEW", Secret(value="s2"), Secret(value="token-2")),
        ]
    )
    body = DENIED.replace(b"AccessDenied", b"ExpiredToken")
    async with (
        scripted([answer(body, "400 Bad Request")], [answer(b"sound")]) as server,
        Wire(server.place._replace(keys=lambda: next(pairs)), "b") as wire,
    ):
        assert (await wire.ask("GET", "key")).body == b"sound"
    assert [each.headers["x-amz-security-token"] for each in server.seen] == ["token-1", "token-2"]
    assert ["NEW/" in each.headers["authorization"] for each in server.seen] == [False, True]


async def test_keys_that_expired_and_were_not_renewed() -> None:
    body = DENIED.replace(b"AccessDenied", b"ExpiredToken")
    async with scripted([answer(body, "400 Bad Request")]) as server, Wire(server.place, "b") as wire:
        with pytest.raises(Refused) as refused:
            await wire.ask("GET", "key")
    assert told(refused.value).code == "unauthorised"


async def test_a_server_with_too_much_to_do_is_left_alone_for_as_long_as_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        await asyncio.tasks.sleep(0)

    slow = [answer(b"", "503 Slow Down", "Retry-After: 3")]
    async with scripted(*[slow] * 7, [answer(b"sound")]) as server, Wire(server.place, "b") as wire:
        monkeypatch.setattr("brokers.s3.wire.asyncio", Patched(sleep=sleep))
        assert (await wire.ask("GET", "key")).body == b"sound"
        assert wire.begin("other", query="", headers={}) is None
    assert max(waited) > 2.5


async def test_connections_that_the_server_ended_meanwhile_are_no_tries() -> None:
    good: list[bytes | None] = [answer(b"1"), None]
    async with scripted(*[good] * 12, [answer(b"last")]) as server, Wire(server.place, "b") as wire:
        await asyncio.gather(*(wire.ask("GET", "key") for _ in range(12)))
        assert (await wire.ask("GET", "key", attempts=1)).body == b"last"


@pytest.mark.parametrize(
    ("status", "headers", "code", "temporary", "says"),
    [
        ("301 Moved", ["x-amz-bucket-region: eu-9"], "wrong_region", False, "eu-9"),
        ("302 Found", ["Location: https://login.example/x?token=abc"], "s3", False, "https://login.example"),
        ("307 Temporary Redirect", ["Location: http://b.s3.example/k"], "unavailable", True, "307"),
        ("308 Permanent Redirect", ["Location: https://127.0.0.1/b/k"], "s3", False, "https://127.0.0.1"),
        ("407 Proxy Authentication Required", [], "proxy", False, "HTTP_PROXY"),
    ],
)
async def test_a_redirect_is_not_followed(
    status: str, headers: list[str], code: str, temporary: bool, says: str
) -> None:
    async with scripted([answer(b"", status, *headers)]) as server, Wire(server.place, "b") as wire:
        with pytest.raises(Refused) as refused:
            await wire.ask("GET", "key")
    problem = told(refused.value)
    assert (problem.code, problem.temporary) == (code, temporary)
    assert says in f"{problem.message} {problem.remedy}"
    assert "token=abc" not in str(problem)


async def test_clocks_that_differ_are_told() -> None:
    body = DENIED.replace(b"AccessDenied", b"RequestTimeTooSkewed")
    late = answer(body, "403 Forbidden", "Date: Thu, 01 Jan 1970 00:00:00 GMT")
    async with scripted([late]) as server, Wire(server.place, "b") as wire:
        with pytest.raises(Refused) as refused:
            await wire.ask("GET", "key")
    problem = told(refused.value)
    assert (problem.code, problem.temporary) == ("clock_skew", True)
    assert "s ahead" in problem.message


def told(error: BaseException) -> Problem:
    problem = explain(error)
    assert problem is not None
    return problem


class Patched:
    """asyncio with another sleep, for one module."""

    def __init__(self, *, sleep: Callable[[float], Awaitable[None]]) -> None:
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)
