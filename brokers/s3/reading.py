"""Reads exactly the listed versions of a bucket as entries of a copy, in order.

One row of requests is always under way, whatever the sizes: many small objects, or ranges of a big one, or the end of
that and the small ones behind it. The row holds a fixed number of bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from brokers.s3 import attributes
from brokers.s3.answers import Answer
from brokers.s3.pages import Version, tags_of
from brokers.s3.refusals import Refused, refusal
from brokers.s3.signing import query_of
from brokers.s3.wire import Wire
from brokers.sdk.copystream import KeptEntry, KnownEntry
from brokers.sdk.digests import Buffer
from brokers.sdk.errors import permanent_error, temporary_error
from schemas.problems import CalqueError

REQUESTS = 24
RANGE_BYTES = 8 << 20
LOOK_AHEAD = 1000
"""How many entries are decided on ahead, with those that are kept."""
ROW_BYTES = 32 << 20
"""How many bytes the requests under way may bring; one range always may."""
_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound", "MethodNotAllowed"})
_DECIDED = frozenset({404, 405, 412})
"""Statuses of answers that another try would not change."""

Entry = tuple[str, Mapping[str, str], int, AsyncIterator[Buffer]]


class VersionGone(Exception):
    """An object's version is not there any more; the message names the object."""


class _Piece(NamedTuple):
    """A range of an object: the whole of a small one."""

    version: Version
    offset: int
    length: int


async def entries(
    wire: Wire, listing: Iterable[Version], *, known: AsyncIterator[KnownEntry] | None = None
) -> AsyncIterator[Entry | KeptEntry]:
    """The listed versions as entries. What is as it was in the copy before, whose entries are ``known`` in the order of
    the listing, is kept and not read. Raises :class:`VersionGone`, and what the wire raises."""
    row = _Row(wire, _decided(listing, known))
    try:
        while (first := await row.next()) is not None:
            if isinstance(first, KeptEntry):
                yield first
                continue
            piece, answer = first
            metadata = await _metadata(wire, piece.version, answer)
            yield piece.version.key, metadata, piece.version.size, _blocks(row, piece.version, answer)
    finally:
        await row.close()


async def _decided(
    listing: Iterable[Version], known: AsyncIterator[KnownEntry] | None
) -> AsyncIterator[Version | KeptEntry]:
    """Each version, or the entry that it was before and still is."""
    before = await anext(known, None) if known is not None else None
    for version in listing:
        while known is not None and before is not None and before.key < version.key:
            before = await anext(known, None)
        same = before is not None and before.key == version.key and before.size == version.size
        if before is not None and same and before.metadata.get(attributes.MARK) == version.mark:
            yield KeptEntry(before.key, before.metadata, before.size, before.digest)
        else:
            yield version


class _Row:
    """Requests under way, in order, and between them what needs none."""

    def __init__(self, wire: Wire, items: AsyncIterator[Version | KeptEntry]) -> None:
        self._wire = wire
        self._items = items
        self._pieces: Iterator[_Piece] = iter(())
        self._next: _Piece | KeptEntry | None = None
        self._under_way: deque[tuple[_Piece, asyncio.Future[Answer]] | KeptEntry] = deque()
        self._requests = 0
        self._bytes = 0

    async def next(self) -> tuple[_Piece, Answer] | KeptEntry | None:
        """A kept entry, or the answer to the next request; ``None`` when all came."""
        await self._fill()
        if not self._under_way:
            return None
        first = self._under_way.popleft()
        if isinstance(first, KeptEntry):
            return first
        piece, future = first
        self._requests -= 1
        self._bytes -= piece.length
        try:
            answer = future.result() if future.done() else await future
        except Refused as error:
            raise _failure(piece.version, error) from None
        except (OSError, TimeoutError):
            answer = await self._again(piece)
        if answer.status in _DECIDED:
            raise _failure(piece.version, refusal(answer, f"GET {piece.version.key}"))
        if answer.status >= 300:
            answer = await self._again(piece)
        _check(piece, answer)
        return piece, answer

    async def close(self) -> None:
        """Nothing more is wanted."""
        left = [each[1] for each in self._under_way if not isinstance(each, KeptEntry)]
        self._under_way.clear()
        for future in left:
            future.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _fill(self) -> None:
        while len(self._under_way) < LOOK_AHEAD and self._requests < REQUESTS:
            if self._next is None:
                self._next = await self._following()
            if self._next is None:
                return
            if isinstance(self._next, KeptEntry):
                self._under_way.append(self._next)
            else:
                if self._requests and self._bytes + self._next.length > ROW_BYTES:
                    return
                self._under_way.append((self._next, self._begin(self._next)))
                self._requests += 1
                self._bytes += self._next.length
            self._next = None

    async def _following(self) -> _Piece | KeptEntry | None:
        piece = next(self._pieces, None)
        if piece is not None:
            return piece
        item = await anext(self._items, None)
        if item is None or isinstance(item, KeptEntry):
            return item
        self._pieces = _pieces(item)
        return next(self._pieces)

    def _begin(self, piece: _Piece) -> asyncio.Future[Answer]:
        version, headers = piece.version, _conditions(piece)
        query = query_of({"versionId": version.version}) if version.kept else ""
        begun = self._wire.begin(version.key, query=query, headers=headers)
        return begun if begun is not None else asyncio.ensure_future(self._ask(piece))

    async def _again(self, piece: _Piece) -> Answer:
        try:
            return await self._ask(piece)
        except Refused as error:
            raise _failure(piece.version, error) from None

    def _ask(self, piece: _Piece) -> Coroutine[Any, Any, Answer]:
        version = piece.version
        query = {"versionId": version.version} if version.kept else {}
        return self._wire.ask("GET", version.key, query=query, headers=_conditions(piece))


def _pieces(version: Version) -> Iterator[_Piece]:
    yield _Piece(version, 0, min(version.size, RANGE_BYTES))
    for offset in range(RANGE_BYTES, version.size, RANGE_BYTES):
        yield _Piece(version, offset, min(RANGE_BYTES, version.size - offset))


def _conditions(piece: _Piece) -> dict[str, str]:
    version = piece.version
    headers = {"if-match": version.etag} if version.etag and version.version in ("", "null") else {}
    if piece.length < version.size:
        headers["range"] = f"bytes={piece.offset}-{piece.offset + piece.length - 1}"
    return headers


def _check(piece: _Piece, answer: Answer) -> None:
    """Not every server keeps conditions, or ranges."""
    version = piece.version
    if piece.length < version.size:
        told, last = answer.headers.get("content-range", ""), piece.offset + piece.length - 1
        if not told.startswith(f"bytes {piece.offset}-{last}/"):  # some say so with status 200
            raise permanent_error(
                "unsupported", f"{version.key!r}: the server gives other ranges than it is asked for", field="endpoint"
            )
    told = answer.headers.get("etag", "")
    if len(answer.body) != piece.length or (version.etag and told and told.strip('"') != version.etag.strip('"')):
        raise _changed(version)


async def _metadata(wire: Wire, version: Version, answer: Answer) -> dict[str, str]:
    found = attributes.of_answer(answer.headers)
    if answer.headers.get("x-amz-tagging-count", "0") != "0":
        query = {"tagging": "", **({"versionId": version.version} if version.kept else {})}
        try:
            tags = await wire.ask("GET", version.key, query=query)
        except Refused as error:
            raise _failure(version, error) from None
        found[attributes.TAGS] = attributes.tagged(tags_of(tags.body))
    found[attributes.MARK] = version.mark
    return found


async def _blocks(row: _Row, version: Version, answer: Answer) -> AsyncIterator[Buffer]:
    passed = len(answer.body)
    if passed:
        yield answer.body
    while passed < version.size:
        following = await row.next()
        if following is None or isinstance(following, KeptEntry) or following[0].version is not version:
            raise RuntimeError(f"the rest of {version.key!r} was not asked for")
        passed += following[0].length
        yield following[1].body


def _failure(version: Version, error: Refused) -> Exception:
    if error.status == 412 or error.code == "PreconditionFailed":
        return _changed(version)
    if error.code in _GONE:
        return VersionGone(f"version {version.version} of object {version.key!r} is gone")
    return error


def _changed(version: Version) -> CalqueError:
    return temporary_error(
        "entry_changed", f"object {version.key!r} was written to after the moment was fixed, and keeps no versions"
    )
