"""Removing kept databases that are too old, from time to time while the broker runs."""

from __future__ import annotations

import asyncio
import logging

from brokers.postgres.instant.kept import KeptDatabases
from brokers.postgres.server import ServerError
from schemas.problems import CalqueError

logger = logging.getLogger(__name__)

EVERY_SECONDS = 3600.0
AGAIN_SECONDS = 60.0


class Tidying:
    """At the start and every hour; sooner again when the server did not answer."""

    def __init__(self, kept: KeptDatabases) -> None:
        self._kept = kept
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on."""
        self._task = asyncio.create_task(self._for_ever(), name="tidy kept databases")

    async def stop(self) -> None:
        """No more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _for_ever(self) -> None:
        while True:
            try:
                await self._kept.tidy()
                seconds = EVERY_SECONDS
            except (ServerError, CalqueError, OSError) as error:
                logger.info("kept databases are looked through later: %s", type(error).__name__)
                seconds = AGAIN_SECONDS
            await asyncio.sleep(seconds)
