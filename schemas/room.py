"""How full a stream is that refuses rather than loses, and when to stop beginning new things. Pure.

Everything that an operation does is an event, so an operation that runs needs room to end: to thaw writers, to undo. So
the last part of such a stream is kept for what goes on, and nothing new begins when only that is left.
"""

from __future__ import annotations

from typing import NamedTuple

from schemas.base import Fact
from schemas.problems import Actor, Problem
from schemas.questions import Query, View
from schemas.registry import message

MOST_HEADROOM_BYTES = 16 << 20
HEADROOM_SHARE = 8
LAST_SHARE = 4


class Fill(NamedTuple):
    """``used`` of ``limit`` bytes of a stream at a place (a site, or ``hub``); ``limit`` is ``None`` where none is."""

    place: str
    stream: str
    used: int = 0
    limit: int | None = None

    @property
    def headroom(self) -> int:
        """What is kept for what goes on: an eighth of the stream, 16 MiB at most."""
        return min(MOST_HEADROOM_BYTES, (self.limit or 0) // HEADROOM_SHARE)

    @property
    def low(self) -> bool:
        """Whether nothing new may begin."""
        return self.limit is not None and self.limit - self.used < self.headroom

    @property
    def last(self) -> bool:
        """Whether not even refusals are recorded any more: they take room too, and anybody can ask for one."""
        return self.limit is not None and self.limit - self.used < self.headroom // LAST_SHARE

    def problem(self) -> Problem:
        """Why something new is refused."""
        return Problem(
            code="stream_full",
            message=f"stream {self.stream} at {self.place} is full: {self.used} of {self.limit} bytes; what is left is"
            " kept for what runs",
            actor=Actor.ENVIRONMENT,
            remedy=f"raise max_bytes of {self.stream} at the server of {self.place}, then send it again with a new id",
            retry_after_seconds=5.0,
        )


class StreamFill(Fact, frozen=True, kw_only=True):
    """How full a stream of the hub is, in bytes; ``limit`` is ``None`` where there is none. ``refuses``: what does not
    fit is refused; of others the oldest goes."""

    stream: str
    used: int
    limit: int | None = None
    refuses: bool = True


@message("query.room")
class RoomQuery(Query, frozen=True, kw_only=True):
    """How full are the hub's streams?"""


@message("view.room")
class RoomView(View, frozen=True, kw_only=True):
    """Streams by name."""

    streams: tuple[StreamFill, ...]
