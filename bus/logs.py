"""Logging that a fault can't flood: one line per kind of fault and period, with the number left out."""

from __future__ import annotations

import logging
import time


class RateLimitedLog:
    """Logs a warning per ``key`` at most once in ``period_seconds``; counts what it holds back."""

    def __init__(self, logger: logging.Logger, *, period_seconds: float = 10.0) -> None:
        self._logger = logger
        self._period = period_seconds
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def warning(self, key: str, message: str) -> None:
        """Log ``message``, or count it."""
        now = time.monotonic()
        last = self._last.get(key)
        if last is not None and now - last < self._period:
            self._held[key] = self._held.get(key, 0) + 1
            return
        self._last[key] = now
        held = self._held.pop(key, 0)
        self._logger.warning("%s%s", message, f" (and {held} more like it)" if held else "")
