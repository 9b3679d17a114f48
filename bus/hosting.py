"""The life of a process on the bus: settings, log, readiness, and a bounded stop at SIGTERM or SIGINT.

Exit codes: 0 stopped by a signal, 1 could not start or go on (a supervisor may try again), 2 broken settings. The file
that ``CALQUE_READY_FILE`` names is there while the process is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TypeVar

from bus.metrics import MEASURES, Sample, sample
from bus.settings import ProcessSettings, SettingsError, load_settings
from schemas import metrics
from schemas.brokers import SERVICE_VERSION
from schemas.problems import CalqueError

READY_VARIABLE = "CALQUE_READY_FILE"
METRICS_VARIABLE = "CALQUE_METRICS_LISTEN"
"""Goes over the setting ``metrics_listen``."""
STOP_SECONDS = 10.0

logger = logging.getLogger(__name__)

P = TypeVar("P", bound=ProcessSettings)
Running = AbstractAsyncContextManager[Awaitable[object] | None]
"""A running service. What it yields, if anything, ends when the service can't go on."""


class LineFormatter(logging.Formatter):
    """One line per record, tracebacks included, so that a log can be read and searched line by line."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


def run_process(
    settings_type: type[P], run: Callable[[P], Running], *, name: Callable[[P], str], stop_seconds: float = STOP_SECONDS
) -> None:
    """Run until a signal, or until it can't go on. Does not return.

    ``name`` says what the process is, for its log and its last words.
    """
    try:
        settings = load_settings(settings_type)
    except SettingsError as error:
        sys.exit(_complain(str(error), code=2))
    _log_lines(settings.log_level)
    try:
        with _measured(settings, name=name(settings)):
            listen = os.environ.get(METRICS_VARIABLE) or settings.metrics_listen
            running = partial(_watched, partial(run, settings), listen=listen)
            asyncio.run(_until_signalled(running, name=name(settings), stop_seconds=stop_seconds))
    except CalqueError as error:
        sys.exit(_complain(f"{name(settings)}: {error}", code=1))
    except Exception:
        logger.exception("%s can't go on", name(settings))
        sys.exit(1)
    sys.exit(0)


@contextlib.asynccontextmanager
async def _watched(run: Callable[[], Running], *, listen: str | None) -> AsyncIterator[Awaitable[object] | None]:
    """The service, and who looks at it from outside."""
    async with contextlib.AsyncExitStack() as outside:
        if listen:
            from bus.exposition import exposed  # only here: it brings the Prometheus client

            await outside.enter_async_context(exposed(listen))
        async with run() as failed:
            yield failed


@contextlib.contextmanager
def _measured(settings: ProcessSettings, *, name: str) -> Iterator[None]:
    site = getattr(settings, "site", "hub")

    async def info() -> list[Sample]:
        return [sample(metrics.BUILD_INFO, 1, name, site, SERVICE_VERSION)]

    with MEASURES.collecting(info):
        yield


async def _until_signalled(run: Callable[[], Running], *, name: str, stop_seconds: float) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    working = asyncio.create_task(_work(run, name=name), name=name)
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not working.done():
        working.cancel()  # unwinds what is running, in order
        _, late = await asyncio.wait({working}, timeout=stop_seconds)
        if late:
            logger.warning("%s: not everything stopped within %g s; the rest ends with the process", name, stop_seconds)
            return
    try:
        await working
    except asyncio.CancelledError:
        logger.info("%s stopped", name)


async def _work(run: Callable[[], Running], *, name: str) -> None:
    named = os.environ.get(READY_VARIABLE)
    ready = Path(named) if named else None
    if ready is not None:
        ready.unlink(missing_ok=True)
    async with run() as failed:
        logger.info("%s is ready", name)
        if ready is not None:
            ready.write_text("ready\n")
        try:
            await (failed if failed is not None else asyncio.Event().wait())
        finally:
            if ready is not None:
                ready.unlink(missing_ok=True)


def _log_lines(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # vendor libraries log requests at debug level, credentials included
    for vendor in ("nats", "botocore", "boto3", "urllib3", "aiohttp", "psycopg", "asyncio"):
        logging.getLogger(vendor).setLevel(logging.WARNING)


def _complain(message: str, *, code: int) -> int:
    sys.stderr.write(message.replace("\n", " ") + "\n")
    return code
