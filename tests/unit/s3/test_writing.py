"""Objects on their way into a bucket: in the parts that they had, and whatever happens to an answer."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import pytest

from brokers.s3 import attributes
from brokers.s3.refusals import Refused, explain
from brokers.s3.signing import UNSIGNED
from brokers.s3.wire import Wire
from brokers.s3.writing import Small, Writing
from schemas.problems import CalqueError
from tests.unit.s3.scripted import Scripted, answer, scripted

BEGUN = answer(b"<R><UploadId>u1</UploadId></R>")
PART = answer(b"", "200 OK", 'ETag: "p1"')
DONE = answer(b'<R><ETag>"e-1"</ETag></R>')
NO_UPLOAD = answer(b"<Error><Code>NoSuchUpload</Code></Error>", "404 Not Found")
OF_ONE_PART = {attributes.MARK: f'v1 "{"0" * 32}-1" 2026-01-01T00:00:00Z', "Content-Type": "a/b", ":tags": "a=b"}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokers.s3.wire.BACKOFF_SECONDS", 0.0)


async def write(server: Scripted, metadata: dict[str, str], body: bytes = b"content") -> None:
    async def blocks() -> AsyncIterator[bytes]:
        yield body[:3]
        yield body[3:]

    async with Wire(server.place, "b") as wire, Writing(wire) as writing:
        await writing.add("key", metadata, len(body), blocks())


async def test_a_small_object_is_one_request_with_all_it_has() -> None:
    metadata = {"Content-Type": "a/b", "owner": "me", ":tags": "a=b", attributes.MARK: "v1 e x"}
    async with scripted([answer(b"")]) as server:
        await write(server, metadata)
    (seen,) = server.seen
    assert (seen.line, seen.body) == ("PUT /b/key HTTP/1.1", b"content")
    sent = {name: seen.headers.get(name) for name in ("content-type", "x-amz-meta-owner", "x-amz-tagging")}
    assert sent == {"content-type": "a/b", "x-amz-meta-owner": "me", "x-amz-tagging": "a=b"}
    assert not any("mark" in name for name in seen.headers)


async def test_an_object_of_parts_is_made_of_parts_again() -> None:
    async with scripted([BEGUN], [PART], [DONE]) as server:
        await write(server, OF_ONE_PART)
    begun, part, done = server.seen
    assert begun.line == "POST /b/key?uploads= HTTP/1.1"
    assert (begun.headers["content-type"], begun.headers["x-amz-tagging"]) == ("a/b", "a=b")
    assert (part.line, part.body) == ("PUT /b/key?partNumber=1&uploadId=u1 HTTP/1.1", b"content")
    assert b"<PartNumber>1</PartNumber><ETag>&quot;p1&quot;</ETag>" in done.body.replace(b'"p1"', b"&quot;p1&quot;")


@pytest.mark.parametrize(("length", "there"), [(7, True), (6, False)])
async def test_an_upload_whose_completion_was_not_heard_of(length: int, there: bool) -> None:
    found = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length
    script: list[list[bytes | None]] = [[BEGUN], [PART], [None], [NO_UPLOAD], [found], [answer(b"", "204 No Content")]]
    async with scripted(*script) as server:
        if there:
            await write(server, OF_ONE_PART)
        else:
            with pytest.raises(Refused, match="NoSuchUpload"):
                await write(server, OF_ONE_PART)
    assert [each.line.split(" ")[0] for each in server.seen[4:]] == (["HEAD"] if there else ["HEAD", "DELETE"])


@pytest.mark.parametrize(
    ("code", "times", "temporary"), [("InternalError", 3, True), ("SlowDown", 3, True), ("InvalidPart", 1, False)]
)
async def test_a_completion_that_fails_behind_the_head_of_its_answer(code: str, times: int, temporary: bool) -> None:
    late: list[bytes | None] = [answer(f"\n\n<Error><Code>{code}</Code><Message>sorry</Message></Error>".encode())]
    script: list[list[bytes | None]] = [
        [BEGUN],
        [PART],
        *[late] * times,
        [answer(b"", "204 No Content")],
    ]
    async with scripted(*script) as server:
        with pytest.raises(Refused) as refused:
            await write(server, OF_ONE_PART)
    assert server.seen[-1].line.startswith("DELETE ")
    problem = explain(refused.value)
    assert problem is not None
    assert problem.temporary == temporary
    assert "sorry" in problem.message


async def test_a_completion_that_succeeds_at_another_try() -> None:
    late = answer(b"<Error><Code>InternalError</Code><Message>sorry</Message></Error>")
    async with scripted([BEGUN], [PART], [late], [DONE]) as server:
        await write(server, OF_ONE_PART)
    assert len(server.seen) == 4


async def test_metadata_that_no_header_can_hold_are_refused_by_the_name_of_their_object() -> None:
    async with scripted() as server:
        with pytest.raises(CalqueError, match="'key' has metadata"):
            await write(server, {"owner": "me\r\nx-amz-acl: public-read"})
    assert server.seen == []


async def test_what_the_server_refuses_surfaces_at_the_end() -> None:
    body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    async with scripted([answer(body, "403 Forbidden")], [answer(body, "403 Forbidden")]) as server:
        with pytest.raises(Refused, match="PUT key: no"):
            await write(server, {})


def nothing() -> None:
    """Nobody waits for it."""


async def test_small_objects_are_sent_over_connections_that_are_kept_and_tried_again() -> None:
    """Bytes are let go of once each, when the server has them."""
    sent: list[str] = []

    def small(key: str) -> Small:
        return Small(key, {"n": key}, key.encode(), lambda: sent.append(key))

    taken: list[bytes | None] = [answer(b"")]
    async with scripted(taken, [answer(b"", "503 Slow Down")], [None], *[taken] * 4) as server:
        async with Wire(server.place, "b") as wire, Writing(wire) as writing:
            await writing.put_small([small("a")])
            await writing.put_small([small("b")])
            await writing.put_small([small("c"), small("d")])
        bodies = {each.body for each in server.seen}
    assert sorted(sent) == ["a", "b", "c", "d"]
    assert bodies == {b"a", b"b", b"c", b"d"}
    assert all(each.line == f"PUT /b/{each.body.decode()} HTTP/1.1" for each in server.seen)
    assert all(each.headers["x-amz-meta-n"] == each.body.decode() for each in server.seen)


async def test_a_small_object_that_is_refused_ends_all_of_them() -> None:
    body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"

    async def write_both(server: Scripted) -> None:
        async with Wire(server.place, "b") as wire, Writing(wire) as writing:
            await writing.put_small([Small("a", {}, b"a", nothing)])
            await writing.put_small([Small("b", {}, b"b", nothing)])

    refused: list[bytes | None] = [answer(body, "403 Forbidden")]
    async with scripted(*[refused] * 9) as server:
        with pytest.raises(Refused, match=r"PUT [ab]: no"):
            await write_both(server)


async def test_content_is_signed_unless_its_way_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    body = answer(b"<Error><Code>AccessDenied</Code><Message>sign</Message></Error>", "403 Forbidden")
    async with scripted([answer(b"")], [body], [answer(b"")], [answer(b"")], [answer(b"")]) as server:
        async with Wire(server.place, "b") as wire:
            for _ in range(3):
                await wire.ask("PUT", "key", body=(b"con", b"tent"))
        monkeypatch.setattr("brokers.s3.route._is_loopback", lambda _: False)
        async with Wire(server.place, "b") as wire:
            await wire.ask("PUT", "key", body=b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    assert [each.headers["x-amz-content-sha256"] for each in server.seen] == [UNSIGNED, UNSIGNED, *[digest] * 3]
    assert {each.body for each in server.seen} == {b"content"}
