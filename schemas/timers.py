"""How long is left of a wait, a deadline, an attempt: computed from the times of stored events, never from memory.

A timer is a stored time and a length; a process that starts anew comes to the same end. Clocks are wall clocks, and may
be set: a clock that was set back makes nothing wait longer than its whole length.
"""

from __future__ import annotations

import zlib

SPREAD = 0.2


def left(seconds: float, *, since: float, now: float) -> float:
    """Seconds until ``seconds`` after ``since`` (times in seconds of one clock): none when that is past."""
    elapsed = max(now - since, 0.0)
    return max(seconds - elapsed, 0.0)


def spread(seconds: float, *, seed: str) -> float:
    """``seconds`` and up to a fifth more: what failed together is not tried again together. The same for one ``seed``
    (the id of the attempt), so that whoever asks again, in whatever process, waits for the same moment."""
    chance = zlib.crc32(seed.encode()) / 2**32
    return seconds * (1.0 + SPREAD * chance)
