"""Lists in pages: a reply is one message, so a page is what was asked for or what fits."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import msgspec

from schemas.problems import CalqueError, invalid

T = TypeVar("T")

MOST_ON_A_PAGE = 1000
MOST_BYTES = 768 * 1024
"""Of views in one reply: a message has at most 1 MiB, and the envelope needs some of it."""


class Page(NamedTuple):
    """Positions of the items of a page, and how many there are in all."""

    first: int
    last: int
    total: int


def fits(views: Sequence[msgspec.Struct]) -> int:
    """How many of ``views``, from the first on, go into one reply; at least one, if there is one."""
    size = 0
    for count, view in enumerate(views):
        size += len(msgspec.json.encode(view)) + 1
        if size > MOST_BYTES and count > 0:
            return count
    return len(views)


def check_limit(limit: int) -> None:
    """Raises :class:`CalqueError` (invalid) for a page of no or of too many items."""
    if not 1 <= limit <= MOST_ON_A_PAGE:
        raise CalqueError(invalid("limit", f"{limit} is out of range", f"use 1 to {MOST_ON_A_PAGE}"))


def place(key: tuple[str, ...]) -> str:
    """The place behind the item with this key, as a text to hand out."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode()


def key_of(place: str) -> tuple[str, ...]:
    """The key that :func:`place` made a text of. Raises :class:`CalqueError` (invalid)."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(place), type=tuple[str, ...])
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        problem = invalid("after", "this is no place in a list", "use what `next` of the page before says")
        raise CalqueError(problem) from None


def page_of(keys: Sequence[tuple[str, ...]], *, limit: int, after: str | None) -> Page:
    """The page of items with these ascending keys that follows ``after``. Raises :class:`CalqueError` (invalid)."""
    check_limit(limit)
    first = 0
    if after is not None:
        first = bisect_right(keys, key_of(after))
    return Page(first, min(first + limit, len(keys)), len(keys))
