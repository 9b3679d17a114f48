"""The hub's process (``bus.hosting``)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from bus.hosting import run_process
from hub.process import hub
from hub.settings import HubSettings

STOP_SECONDS = 10.0


def main() -> None:
    """Run until a signal. Does not return."""
    run_process(HubSettings, _running, name=lambda _: "hub", stop_seconds=STOP_SECONDS)


@contextlib.asynccontextmanager
async def _running(settings: HubSettings) -> AsyncIterator[asyncio.Future[None]]:
    async with hub(settings) as running:
        yield running.failed
