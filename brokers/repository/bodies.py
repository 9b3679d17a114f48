"""Bodies of requests and answers: what a request says that its body is, and pieces joined to what is worth sending."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from brokers.repository.errors import InvalidPart
from brokers.sdk.digests import Buffer
from brokers.sdk.frames import ENTRIES_TYPE, RAW_TYPE, STREAM_TYPE, Layout

BATCH_BYTES = 1 << 20


class Batches:
    """Takes pieces in batches of about BATCH_BYTES, small ones joined; an empty batch is the end."""

    def __init__(self, pieces: Iterator[Buffer]) -> None:
        self._pieces = pieces

    def next(self) -> list[Buffer]:
        batch: list[Buffer] = []
        small = bytearray()
        size = 0
        for piece in self._pieces:
            size += len(piece)
            if len(piece) < BATCH_BYTES // 8:
                small += piece
            else:
                if small:
                    batch.append(bytes(small))
                    small.clear()
                batch.append(piece)
            if size >= BATCH_BYTES:
                break
        if small:
            batch.append(bytes(small))
        return batch


def layout_of(request: web.Request, *, copy: str, part: str) -> tuple[Layout, bool]:
    """The layout of the body, and whether it comes in frames. Raises InvalidPart."""
    known = {STREAM_TYPE: (Layout.STREAM, True), ENTRIES_TYPE: (Layout.ENTRIES, True), RAW_TYPE: (Layout.STREAM, False)}
    found = known.get(request.content_type)
    if found is None:
        raise InvalidPart(f"content type {request.content_type} is none of {', '.join(known)}", copy=copy, part=part)
    return found
