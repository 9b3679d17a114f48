"""When a service that ended is started again. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

Policy = Literal["always", "on-failure", "never"]

FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 30.0
STABLE_SECONDS = 30.0


class Restart(NamedTuple):
    """Start it again after ``delay_seconds``; ``crashes`` is how often it ended without having been stable."""

    delay_seconds: float
    crashes: int


def after_exit(policy: Policy, *, exit_code: int | None, ran_seconds: float, crashes: int) -> Restart | None:
    """What to do when a service ended by itself; ``None``: leave it. An unknown exit code counts as a failure."""
    if policy == "never" or (policy == "on-failure" and exit_code == 0):
        return None
    count = 1 if ran_seconds >= STABLE_SECONDS else crashes + 1
    # the exponent is bounded, so that a loop of years is no number of years' length
    return Restart(min(FIRST_DELAY_SECONDS * 2 ** min(count - 1, 20), LONGEST_DELAY_SECONDS), count)


def ending(exit_code: int | None) -> str:
    """How a process ended, for people."""
    if exit_code is None:
        return "ended while the broker was away"
    if exit_code < 0:
        return f"was killed by signal {-exit_code}"
    return f"exited with code {exit_code}"
