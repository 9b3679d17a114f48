"""Until when a command may be carried out. Pure: the times come with the command and from its handler.

A command is good for the time from its ``time`` to its ``expirytime``, at most seven days, and seven days without one.
That length is counted from when the first server stored the command, so a sender whose clock is wrong by a little sends
good commands; and whatever is sent again, the end that its sender wrote counts too, give or take :data:`SKEW`. What was
decided is remembered for eight days and longer, so a repeat is either recognised or too old.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from schemas.envelope import Envelope, parse_timestamp, timestamp
from schemas.problems import Problem, invalid

MOST = timedelta(days=7)
REMEMBERED = timedelta(days=8)
SKEW = timedelta(minutes=5)


def good_until(envelope: Envelope, *, stored_at: float | None) -> datetime | Problem:
    """When the command in ``envelope`` expires. ``stored_at`` is when the server stored it, in Unix seconds; ``None``
    or 0 when that is not known."""
    try:
        sent = parse_timestamp(envelope.time)
    except ValueError:
        return invalid("time", f"{envelope.time!r} is not a time", "write it as RFC 3339 says")
    length = MOST
    if envelope.expirytime is not None:
        try:
            length = min(parse_timestamp(envelope.expirytime) - sent, MOST)
        except ValueError:
            return invalid("expirytime", f"{envelope.expirytime!r} is not a time", "write it as RFC 3339 says")
    try:
        last = sent + length + (SKEW if length > timedelta(0) else timedelta(0))
        if not stored_at:
            return last
        return min(last, datetime.fromtimestamp(stored_at, UTC) + length)
    except (OverflowError, ValueError, OSError):
        return invalid("time", f"{envelope.time!r} is out of range", "set the sender's clock")


def by_own_clock(envelope: Envelope, *, stored_at: float | None) -> Envelope:
    """``envelope`` with its end by the clock of the server that stored it, for passing it on; unchanged when it has
    none that can be told."""
    end = good_until(envelope, stored_at=stored_at)
    return envelope if isinstance(end, Problem) else msgspec.structs.replace(envelope, expirytime=timestamp(end))


def expired(envelope: Envelope, *, now: datetime, stored_at: float | None) -> Problem | None:
    """Why the command may not be carried out any more, or ``None``."""
    end = good_until(envelope, stored_at=stored_at)
    if isinstance(end, Problem):
        return end
    if end > now:
        return None
    said = envelope.expirytime or f"{MOST.days} days after it was sent at {envelope.time}"
    return Problem(
        code="expired",
        field="expirytime",
        message=f"the command expired at {said}, before it could be decided; it is {timestamp(now)} here",
        remedy="send it again with a new id; if it is fresh, compare the clocks ('calque doctor')",
    )
