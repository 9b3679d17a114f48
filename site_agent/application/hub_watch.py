"""Listens for the hub's heartbeat, and says when it is missing: a link can look well and carry nothing.

Listening is what makes the heartbeat cross the link at all, so that whoever keeps the site's server can see from the
outside whether anything does (``hub.stack.leafwatch``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from bus.connection import Message

logger = logging.getLogger(__name__)

SILENT_SECONDS = 30.0


class HubWatch:
    """``seconds`` is a clock that only goes forward."""

    def __init__(self, *, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._last = seconds()
        self._silent = False

    async def heard(self, _message: Message) -> None:
        """A heartbeat arrived."""
        if self._silent:
            logger.info("the hub is heard again, after %.0f s", self._seconds() - self._last)
        self._last, self._silent = self._seconds(), False

    async def look(self) -> None:
        """Say it, once, when there was none for long."""
        silence = self._seconds() - self._last
        if not self._silent and silence >= SILENT_SECONDS:
            self._silent = True
            logger.warning(
                "nothing was heard of the hub for %.0f s: the site works on alone, and its events wait here", silence
            )
