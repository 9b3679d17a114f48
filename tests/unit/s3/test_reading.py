"""Entries of a copy from what a server answers: in order, exactly the listed versions, nothing read that is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from email.utils import format_datetime

import pytest

from brokers.s3 import attributes, listing, reading
from brokers.s3.listing import versions_since
from brokers.s3.listings import Listed
from brokers.s3.pages import Unreadable, Version
from brokers.s3.reading import VersionGone, entries
from brokers.s3.wire import Wire
from brokers.sdk.copystream import KeptEntry, KnownEntry
from schemas.problems import CalqueError
from tests.unit.s3.scripted import Scripted, answer, scripted

ETAG = '"e"'
THEN, NOW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def found(body: bytes, *headers: str) -> list[bytes | None]:
    return [answer(body, "200 OK", f"ETag: {ETAG}", *headers)]


def ranged(body: bytes, offset: int) -> list[bytes | None]:
    told = f"Content-Range: bytes {offset}-{offset + len(body) - 1}/23"
    return [answer(body, "206 Partial Content", f"ETag: {ETAG}", told)]


async def read(
    server: Scripted, versions: Iterable[Version], *, known: Sequence[KnownEntry] | None = None
) -> list[tuple[str, bytes] | KeptEntry]:
    async def before() -> AsyncIterator[KnownEntry]:
        for entry in known or ():
            yield entry

    got: list[tuple[str, bytes] | KeptEntry] = []
    async with Wire(server.place, "b") as wire:
        async for entry in entries(wire, versions, known=before() if known is not None else None):
            if isinstance(entry, KeptEntry):
                got.append(entry)
                continue
            key, _, size, blocks = entry
            body = b"".join([bytes(block) async for block in blocks])
            assert len(body) == size
            got.append((key, body))
    return got


@pytest.fixture
def _one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a script tells which answer is whose."""
    monkeypatch.setattr(reading, "REQUESTS", 1)
    monkeypatch.setattr(listing, "REQUESTS", 1)


@pytest.mark.usefixtures("_one_at_a_time")
async def test_a_big_object_is_read_in_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "RANGE_BYTES", 10)
    pieces = [ranged(b"0123456789", 0), ranged(b"abcdefghij", 10), ranged(b"xyz", 20), found(b"end")]
    async with scripted(*pieces) as server:
        got = await read(server, [Version("big", "v1", 23, ETAG), Version("small", "v2", 3, ETAG)])
    assert got == [("big", b"0123456789abcdefghijxyz"), ("small", b"end")]
    assert [each.headers.get("range") for each in server.seen] == ["bytes=0-9", "bytes=10-19", "bytes=20-22", None]
    assert server.seen[0].line == "GET /b/big?versionId=v1 HTTP/1.1"


async def test_what_is_kept_is_not_read() -> None:
    same, moved = Version("a", "v1", 3, ETAG, THEN), Version("c", "v9", 3, ETAG, NOW)
    known = [
        KnownEntry("a", 3, {attributes.MARK: same.mark}, "d1"),
        KnownEntry("b", 3, {attributes.MARK: "gone since"}, "d2"),
        KnownEntry("c", 3, {attributes.MARK: Version("c", "v2", 3, ETAG, THEN).mark}, "d3"),
        KnownEntry("d", 3, {}, "of a copy that knew no marks"),
    ]
    async with scripted(found(b"new"), found(b"new")) as server:
        got = await read(server, [same, moved, Version("d", "v4", 3, ETAG, THEN)], known=known)
    assert got == [KeptEntry("a", {attributes.MARK: same.mark}, 3, "d1"), ("c", b"new"), ("d", b"new")]
    assert len(server.seen) == 2


@pytest.mark.parametrize("body", [b"longer than it was", b"new"])
async def test_what_was_written_since_is_noticed_where_no_condition_is_kept(body: bytes) -> None:
    etag = ETAG if len(body) > 3 else '"other"'
    async with scripted([answer(body, "200 OK", f"ETag: {etag}")]) as server:
        with pytest.raises(CalqueError) as changed:
            await read(server, [Version("a", "", 3, ETAG)])
    assert (changed.value.problem.code, changed.value.problem.temporary) == ("entry_changed", True)
    assert server.seen[0].headers["if-match"] == ETAG


@pytest.mark.parametrize("told", ["", "Content-Range: bytes 0-9/23", "Content-Range: bytes 20-29/30"])
@pytest.mark.usefixtures("_one_at_a_time")
async def test_a_server_that_gives_another_range_is_refused(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setattr(reading, "RANGE_BYTES", 10)
    second = answer(b"abcdefghij", "206 Partial Content", f"ETag: {ETAG}", *([told] if told else []))
    async with scripted(ranged(b"0123456789", 0), [second]) as server:
        with pytest.raises(CalqueError, match="other ranges"):
            await read(server, [Version("big", "v1", 23, ETAG)])


async def test_a_version_that_is_gone() -> None:
    async with scripted([answer(b"<Error><Code>NoSuchVersion</Code></Error>", "404 Not Found")]) as server:
        with pytest.raises(VersionGone, match="'a'"):
            await read(server, [Version("a", "v1", 3, ETAG)])


async def test_an_object_that_goes_before_its_tags_are_read() -> None:
    gone = answer(b"<Error><Code>NoSuchVersion</Code></Error>", "404 Not Found")
    async with scripted(found(b"abc", "x-amz-tagging-count: 1"), [gone]) as server:
        with pytest.raises(VersionGone, match="'a' is gone"):
            await read(server, [Version("a", "v1", 3, ETAG)])


@pytest.mark.usefixtures("_one_at_a_time")
async def test_a_connection_that_breaks_in_the_row_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokers.s3.wire.BACKOFF_SECONDS", 0.0)
    script = [found(b"one"), [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nt", None], found(b"two"), found(b"3")]
    async with scripted(*script) as server:
        got = await read(server, [Version("1", "v", 3, ETAG), Version("2", "v", 3, ETAG), Version("3", "v", 1, ETAG)])
    assert got == [("1", b"one"), ("2", b"two"), ("3", b"3")]


def listed(*versions: Version) -> bytes:
    lines = "".join(
        f"<Contents><Key>{each.key}</Key><Size>{each.size}</Size><ETag>{each.etag}</ETag>"
        f"<LastModified>{each.modified}</LastModified></Contents>"
        for each in versions
    )
    return answer(f"<ListBucketResult>{lines}</ListBucketResult>".encode())


@pytest.mark.usefixtures("_one_at_a_time")
async def test_only_versions_of_what_changed_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "CHANGED_SHARE", 1.0)
    same, short = Version("a", "v1", 3, "e", THEN), Version("b", "v2", 3, "e", NOW)
    before = Listed([same, short, Version("c", "v3", 3, "e", THEN)], at=1_767_312_001.0)  # a second behind `short`
    http = format_datetime(datetime.fromisoformat(NOW), usegmt=True)
    told = ["ETag: e", f"Last-Modified: {http}"]
    head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nx-amz-version-id: {}\r\n" + "\r\n".join(told) + "\r\n\r\n"
    now = [
        same._replace(version=""),
        short._replace(version=""),
        Version("c", "", 3, "e", NOW),
        Version("d", "", 1, "e"),
    ]
    script: list[list[bytes | None]] = [
        [listed(*now)],
        [head.format("v2b").encode()],
        [head.format("v4").encode()],
        [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"],
    ]
    async with scripted(*script) as server, Wire(server.place, "b") as wire:
        got = await versions_since(wire, before)
    assert got == [same, Version("b", "v2b", 3, "e", NOW), Version("c", "v4", 3, "e", NOW)]
    assert [each.line.split(" ")[0] for each in server.seen] == ["GET", "HEAD", "HEAD", "HEAD"]


async def test_a_listing_that_turns_in_circles_is_given_up() -> None:
    page = answer(
        b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
        b"<Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>"
    )
    async with scripted([page], [page], [page]) as server, Wire(server.place, "b") as wire:
        with pytest.raises(Unreadable, match="does not get on"):
            await listing.objects_now(wire)
    assert len(server.seen) == 2
