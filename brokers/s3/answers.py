"""Reads answers of HTTP/1.1 out of the bytes that arrive: no socket here. What is not exactly what HTTP says is
refused, never guessed at: an answer that was taken for another one would be wrong data in a copy.

Bytes are received into the buffer in which the body is handed on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

HEAD_BYTES = 64 << 10
"""The longest head of an answer, and how much is read at once while it isn't known how long a body is."""
BODY_BYTES = 64 << 20
"""The longest body of an answer: whoever asks for more asks for ranges."""
INTERIM_ANSWERS = 16
"""How many answers like 100 Continue may come before the real one."""

_NO_BODY = frozenset({204, 304})
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")


class Answer(NamedTuple):
    """What a server answered. Header names in small letters; one that came twice holds both values."""

    status: int
    headers: Mapping[str, str]
    body: bytearray


class Malformed(ValueError):
    """What came is no answer of HTTP, or none that was asked for."""


class AnswerReader:
    """The answers that come over one connection, one at a time: `expect`, then `room` and `arrived` until that gives
    the answer. After :class:`Malformed` nothing more may be asked of it."""

    def __init__(self) -> None:
        self._scratch = bytearray(HEAD_BYTES)
        self._view = memoryview(self._scratch)
        self._have = 0
        self._expected = False
        self._without_body = False
        self._interim = 0
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body: bytearray | None = None
        self._into: memoryview | None = None
        self._filled = 0
        self._chunked = False
        self._left = 0
        self.keep = True
        """Whether the server keeps the connection for another answer."""

    @property
    def clean(self) -> bool:
        """Whether nothing came that nobody expected."""
        return self._have == 0

    def expect(self, *, without_body: bool = False) -> None:
        """One more answer will come. ``without_body``: as to HEAD."""
        self._expected, self._without_body, self._interim = True, without_body, 0

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return self._view[self._have :] if self._into is None else self._into[self._filled :]

    def arrived(self, count: int) -> Answer | None:
        """So many bytes were put at the beginning of `room`; the answer, when it is whole. Raises Malformed."""
        if self._into is not None:
            self._filled += count
            return self._whole() if self._filled == len(self._into) else None
        self._have += count
        answer = self._read()
        if answer is None and self._have == HEAD_BYTES:
            raise Malformed("a head is too long")
        return answer

    def ended(self) -> Answer | None:
        """The connection was closed in order; an answer whose end is that."""
        if self._body is None or self._into is not None or self._chunked:
            return None
        return self._whole()

    def _read(self) -> Answer | None:
        if self._body is None:
            return self._head()
        if self._chunked:
            return self._chunks()
        self._grow(self._have)
        return None

    def _head(self) -> Answer | None:
        while (end := self._scratch.find(b"\r\n\r\n", 0, self._have)) >= 0:
            if not self._expected:
                raise Malformed("an answer came that nobody asked for")
            lines = bytes(self._view[:end]).split(b"\r\n")
            found = _STATUS.fullmatch(lines[0])
            if found is None:
                raise Malformed("an answer does not begin as HTTP does")
            status = int(found[2])
            if status >= 200:
                self._status, self._headers = status, _headers(lines)
                return self._begin(end + 4, persistent=found[1] == b"1")
            self._interim += 1
            if status == 101 or self._interim > INTERIM_ANSWERS:
                raise Malformed(f"answers of status {status} were not asked for")
            self._shift(end + 4)
        return None

    def _begin(self, at: int, *, persistent: bool) -> Answer | None:
        headers = self._headers
        said = headers.get("connection", "").lower()
        if said != "keep-alive" and (not persistent or "close" in said):
            self.keep = False
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if self._without_body or self._status in _NO_BODY:
            self._shift(at)
            self._body = bytearray()
            return self._whole()
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise Malformed("how long an answer is can't be told")
            self._body, self._chunked, self._left = bytearray(), True, 0
            self._shift(at)
            return self._chunks()
        if length is not None:
            return self._receive(length, at)
        self._body, self.keep = bytearray(), False
        self._shift(at)
        self._grow(self._have)
        return None

    def _receive(self, told: str, at: int) -> Answer | None:
        if _LENGTH.fullmatch(told) is None or int(told) > BODY_BYTES:
            raise Malformed(f"an answer of length {told[:40]} was not asked for")
        length, here = int(told), self._have - at
        if here > length:
            raise Malformed("more came than was announced")
        body = bytearray(length)
        body[:here] = self._view[at : self._have]
        self._have, self._body = 0, body
        if here == length:
            return self._whole()
        self._into, self._filled = memoryview(body), here
        return None

    def _chunks(self) -> Answer | None:
        """Takes the chunks that are here, and parts of one. ``_left`` is what is missing of one, with its line end."""
        while self._have:
            if self._left > 2:
                take = min(self._left - 2, self._have)
                self._left -= take
                self._grow(take)
                continue
            if self._left:
                if self._have < 2:
                    return None
                if self._scratch[:2] != b"\r\n":
                    raise Malformed("a chunk is longer than it said")
                self._shift(2)
                self._left = 0
                continue
            end = self._scratch.find(b"\r\n", 0, self._have)
            if end < 0:
                return None
            found = _CHUNK.fullmatch(self._view[:end])
            if found is None:
                raise Malformed("a chunk has no length")
            size = int(found[1], 16)
            if size == 0:
                return self._trailers(end)
            if size > BODY_BYTES:
                raise Malformed("an answer is longer than was asked for")
            self._shift(end + 2)
            self._left = size + 2
        return None

    def _trailers(self, end: int) -> Answer | None:
        last = self._scratch.find(b"\r\n\r\n", end, self._have)
        if last < 0:
            return None
        self._shift(last + 4)
        return self._whole()

    def _grow(self, count: int) -> None:
        """Moves bytes from the scratch buffer into a body whose length is not announced."""
        if self._body is None:
            raise Malformed("bytes came outside an answer")
        self._body += self._view[:count]
        self._shift(count)
        if len(self._body) > BODY_BYTES:
            raise Malformed("an answer is longer than was asked for")

    def _shift(self, count: int) -> None:
        left = self._have - count
        if left:
            self._scratch[:left] = self._scratch[count : self._have]
        self._have = left

    def _whole(self) -> Answer:
        answer = Answer(self._status, self._headers, self._body if self._body is not None else bytearray())
        self._body, self._into, self._filled = None, None, 0
        self._chunked = self._expected = False
        if self._have:
            self.keep = False  # what is this?
        return answer


def _headers(lines: list[bytes]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or _NAME.fullmatch(name) is None or b"\n" in value or b"\r" in value or b"\0" in value:
            raise Malformed("the head of an answer has a line that is no header")
        known, text = name.lower().decode("ascii"), _text(value.strip(b" \t"))
        found[known] = f"{found[known]},{text}" if known in found else text
    return found


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
