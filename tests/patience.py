"""How long a test waits for what must come: much longer than it takes.

A wait ends as soon as its condition holds, so patience costs nothing where all is well. It is for a machine that is
many times slower than the one a test was written on, and busy with others.
"""

from __future__ import annotations

PATIENCE_SECONDS = 60.0
"""The least that any wait for a condition gets."""


def patience(seconds: float = PATIENCE_SECONDS) -> float:
    """What a wait that was given ``seconds`` gets."""
    return max(seconds, PATIENCE_SECONDS)
