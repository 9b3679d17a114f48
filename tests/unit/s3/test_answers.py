"""Whatever a server sends: the answer that it means, or an error that says what is wrong; never another answer, and
never nothing."""

from __future__ import annotations

import http.client
import io
import itertools
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.s3.answers import BODY_BYTES, HEAD_BYTES, Answer, AnswerReader, Malformed

same_examples = settings(derandomize=True, max_examples=60)
CLOSED = "closed"
NAME = st.text(alphabet="abcXYZ-19", min_size=1, max_size=12).map(lambda name: f"x-{name}")
VALUE = st.text(alphabet=st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=30)
CUTS = st.lists(st.integers(1, 400), max_size=30)


def pieces(data: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """The data, cut as told; the rest in one."""
    at = 0
    for cut in cuts:
        if at >= len(data):
            return
        yield data[at : at + cut]
        at += cut
    if at < len(data):
        yield data[at:]


def read(data: bytes, cuts: Sequence[int] = (), *, without_body: bool = False) -> tuple[Answer | None, bool]:
    """The answer in what a server sends before it closes the connection, and whether that is to be kept."""
    reader = AnswerReader()
    reader.expect(without_body=without_body)
    for piece in pieces(data, cuts):
        at = 0
        while at < len(piece):
            room = reader.room()
            assert len(room) > 0, "there must be room, or the transport turns in circles"
            take = min(len(room), len(piece) - at)
            room[:take] = piece[at : at + take]
            at += take
            answer = reader.arrived(take)
            if answer is not None:
                return answer, reader.keep and reader.clean and at == len(piece)
    return reader.ended(), False


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, int, bytes, str]:
    """An answer as bytes, its status, its body, and how its length is told."""
    status = draw(st.sampled_from([200, 206, 301, 403, 404, 500, 503]))
    body = draw(st.one_of(st.binary(max_size=300), st.binary(min_size=1, max_size=3).map(lambda some: some * 30_000)))
    how = draw(st.sampled_from(["length", "chunks", CLOSED]))
    lines = [f"{name}: {value}".encode("latin-1") for name, value in draw(st.lists(st.tuples(NAME, VALUE), max_size=4))]
    content = body
    if how == "length":
        lines.insert(draw(st.integers(0, len(lines))), b"Content-Length: %d" % len(body))
    elif how == "chunks":
        lines.insert(0, draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked"])))
        sizes = draw(st.lists(st.integers(1, 9000), max_size=8))
        content = b"".join(
            b"%x%s\r\n%s\r\n" % (len(some), b";a=b" * (len(some) % 2), some) for some in pieces(body, sizes)
        )
        content += b"0\r\n" + draw(st.sampled_from([b"", b"x-trailer: t\r\n"])) + b"\r\n"
    before = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\na: b\r\n\r\n"]))
    head = b"\r\n".join([b"HTTP/1.1 %d %s" % (status, draw(st.sampled_from([b"OK", b"", b"Not So"]))), *lines])
    return before + head + b"\r\n\r\n" + content, status, body, how


@same_examples
@given(made=answers(), cuts=CUTS)
def test_an_answer_is_read_whole_however_it_is_cut(made: tuple[bytes, int, bytes, str], cuts: list[int]) -> None:
    data, status, body, how = made
    answer, kept = read(data, cuts)
    assert answer is not None
    assert (answer.status, bytes(answer.body)) == (status, body)
    assert kept == (how != CLOSED)


@same_examples
@given(made=answers(), cuts=CUTS, share=st.floats(0, 1, exclude_max=True))
def test_an_answer_that_ends_early_is_none(made: tuple[bytes, int, bytes, str], cuts: list[int], share: float) -> None:
    data, _, body, how = made
    cut = data[: int(len(data) * share)]
    answer, _ = read(cut, cuts)
    if how == CLOSED and answer is not None:
        # Nothing in it tells; whoever asked knows the size.
        assert body.startswith(bytes(answer.body))
    else:
        assert answer is None


@same_examples
@given(made=answers(), cuts=CUTS, data=st.data())
def test_an_answer_that_was_damaged_is_never_a_crash(
    made: tuple[bytes, int, bytes, str], cuts: list[int], data: st.DataObject
) -> None:
    damaged = bytearray(made[0][:2000])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b"\r\n", b":", b"\r\n\r\n", b"-1", b"0", b"\n", b"\0"]))
        )
    try:
        answer, kept = read(bytes(damaged), cuts)
    except Malformed:
        return
    if answer is not None and kept and damaged.startswith(b"HTTP/1.1 2"):
        # What we take for whole, another reader takes for the same.
        assert as_python_reads(bytes(damaged)) == bytes(answer.body)


@same_examples
@given(st.binary(max_size=3000), CUTS)
def test_noise_is_never_an_answer(noise: bytes, cuts: list[int]) -> None:
    try:
        answer, _ = read(noise, cuts)
    except Malformed:
        return
    assert answer is None


def head(*lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *lines]).encode() + b"\r\n\r\n"


@pytest.mark.parametrize("cuts", [(), (1,) * 200, (40, 3, 2, 1, 1, 1, 1)])
@pytest.mark.parametrize(
    "data",
    [
        head("Content-Length: 1", "Content-Length: 2") + b"ab",
        head("Content-Length: +1") + b"a",
        head("Content-Length: -1"),
        head("Content-Length: 1_0") + b"a" * 10,
        head("Content-Length: 0x1") + b"a",
        head("Content-Length: ٣") + b"abc",
        head(f"Content-Length: {BODY_BYTES + 1}"),
        head("Content-Length: 1", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
        head("Transfer-Encoding: identity") + b"abc",
        head("Transfer-Encoding: chunked") + b"-1\r\na\r\n0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"0x1\r\na\r\n0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"1\r\nab\r\n0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"1\r\naxx0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"\r\n",
        head("Transfer-Encoding: chunked") + b"%x\r\n" % (BODY_BYTES + 1),
        head("Transfer-Encoding: chunked") + b"1;" + b"x" * HEAD_BYTES,
        head("Transfer-Encoding: chunked") + b"0\r\n" + b"x: y\r\n" * HEAD_BYTES,
        head("Content-Length : 1") + b"a",
        head("no colon"),
        head(" folded: line"),
        head("a: b\nContent-Length: 1") + b"a",
        head("a: b\0c"),
        head("a: " + "b" * HEAD_BYTES),
        head(*["a: b"] * HEAD_BYTES),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + head("Content-Length: 0"),
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5000,
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\r\n\r\n",
    ],
    ids=itertools.count(),
)
def test_what_is_no_http_is_refused(data: bytes, cuts: Sequence[int]) -> None:
    with pytest.raises(Malformed):
        read(data, cuts)


def test_more_than_was_announced_is_refused_or_ends_the_connection() -> None:
    data = head("Content-Length: 2") + b"longer"
    with pytest.raises(Malformed, match="more came"):
        read(data)
    answer, kept = read(data, [len(data) - 5])
    assert answer is not None
    assert (bytes(answer.body), kept) == (b"lo", False)


def test_an_answer_that_nobody_asked_for_is_refused() -> None:
    reader, data = AnswerReader(), head("Content-Length: 0")
    reader.room()[: len(data)] = data
    with pytest.raises(Malformed, match="nobody asked for"):
        reader.arrived(len(data))


def test_an_answer_to_head_has_no_body() -> None:
    answer, kept = read(head("Content-Length: 100", "ETag: x"), without_body=True)
    assert answer is not None
    assert kept
    assert (answer.headers["etag"], bytes(answer.body)) == ("x", b"")


def as_python_reads(data: bytes) -> bytes:
    class Socket:
        def makefile(self, *_: object) -> io.BytesIO:
            return io.BytesIO(data)

    answer = http.client.HTTPResponse(Socket(), method="GET")  # type: ignore[arg-type]
    answer.begin()
    return answer.read()
