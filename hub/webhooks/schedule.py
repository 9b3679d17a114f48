"""When an event is tried again. Pure: the clock and the dice come in."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

JITTER = 0.2
LONGEST_WAIT_SECONDS = 86400.0
PATIENCE = 3
LONGEST_PAUSE_SECONDS = 30.0


def delay_seconds(attempt: int, *, first: float, longest: float, dice: float, asked: float | None = None) -> float:
    """How long to wait after the ``attempt``-th try (from 1). ``dice`` is from 0 to 1; ``asked`` is what the receiver
    wished for, and never shortens the wait."""
    planned = min(first * 2.0 ** min(attempt - 1, 30), longest)
    jittered = planned * (1 - JITTER + 2 * JITTER * dice)
    return max(jittered, min(asked or 0.0, LONGEST_WAIT_SECONDS))


def pause_seconds(failures: int, *, first: float) -> float:
    """How long a receiver is left alone that failed so often in a row; nothing for the first few."""
    if failures < PATIENCE:
        return 0.0
    return min(first * 2.0 ** min(failures - PATIENCE, 30), LONGEST_PAUSE_SECONDS)


def retry_after_seconds(header: str | None, *, now: datetime) -> float | None:
    """The header ``Retry-After`` (RFC 9110, 10.2.3): seconds, or a date. ``None`` for what is neither."""
    if not header:
        return None
    text = header.strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - now).total_seconds(), 0.0)
