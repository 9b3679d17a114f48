"""The hub's process. Exit codes: 0 stopped by SIGTERM or SIGINT, 1 could not start or go on, 2 broken settings."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from hub.process import hub
from hub.settings import HubSettings, SettingsError, load_settings
from schemas.problems import CalqueError

READY_VARIABLE = "CALQUE_READY_FILE"

logger = logging.getLogger(__name__)


def main() -> None:
    """Run until a signal. Does not return."""
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("nats").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(settings))
    except CalqueError as error:
        sys.stderr.write(f"hub: {error}\n")
        sys.exit(1)
    except Exception:
        logger.exception("the hub can't go on")
        sys.exit(1)
    sys.exit(0)


async def serve(settings: HubSettings) -> None:
    """Run a hub until SIGTERM or SIGINT; raises when it can't start or go on."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    named = os.environ.get(READY_VARIABLE)
    ready = Path(named) if named else None
    working = asyncio.create_task(_work(settings, ready))
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        stopped.cancel()
    else:
        working.cancel()  # unwinds what is running, in order
    try:
        await working
    except asyncio.CancelledError:
        logger.info("stopped")


async def _work(settings: HubSettings, ready: Path | None) -> None:
    async with hub(settings) as running:
        if ready is not None:
            ready.write_text("ready\n")
        try:
            await running.failed
        finally:
            if ready is not None:
                ready.unlink(missing_ok=True)
