"""How long an operation may take before it goes back: what its caller says, else what its verb gives it.

The deadline counts from the acceptance, by the clock of whoever accepted, and stands in ``operation.accepted``. A
deletion of an image has none that a caller could set: it waits for sites that are away, however long.
"""

from __future__ import annotations

from schemas.problems import Problem, invalid

HOUR = 3600.0
DEFAULT_SECONDS: dict[str, float] = {
    "deploy": 2 * HOUR,
    "start": 1 * HOUR,
    "stop": 1 * HOUR,
    "save": 24 * HOUR,
    "run": 24 * HOUR,
    "delete": 24 * HOUR,
    "transfer": 24 * HOUR,
}
"""By kind of operation; what moves data gets a day."""
OTHER_SECONDS = 24 * HOUR
LEAST_SECONDS = 1.0
MOST_SECONDS = 30 * 24 * HOUR


def check_deadline(seconds: float | None) -> Problem | None:
    """``None`` for a deadline that a caller may set."""
    if seconds is None or LEAST_SECONDS <= seconds <= MOST_SECONDS:
        return None
    return invalid(
        "deadline_seconds", f"{seconds:g} s is no deadline", f"use {LEAST_SECONDS:g} s to {MOST_SECONDS / 86400:g} days"
    )


def deadline(kind: str, wanted: float | None) -> float:
    """Seconds that an operation of this kind has."""
    return DEFAULT_SECONDS.get(kind, OTHER_SECONDS) if wanted is None else wanted
