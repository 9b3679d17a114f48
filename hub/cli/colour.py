"""Whether to colour what goes to a stream: on a terminal, unless the user wants none (no-color.org)."""

from __future__ import annotations

import contextlib
import os
from contextvars import ContextVar

UNCOLOURED: ContextVar[bool] = ContextVar("uncoloured", default=False)
"""Set by ``--no-color`` for the rest of one run of the program."""


def colour(stream: object) -> bool:
    """Whether ``stream`` may get colours: not with ``--no-color``, ``NO_COLOR`` or ``TERM=dumb``."""
    if UNCOLOURED.get() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return terminal(stream)


def terminal(stream: object) -> bool:
    """Whether ``stream`` is a terminal."""
    with contextlib.suppress(AttributeError, ValueError):
        return bool(stream.isatty())  # type: ignore[attr-defined]
    return False
