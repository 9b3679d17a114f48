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

from bus import tracing
from bus.loglines import log_lines
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
    site, called = getattr(settings, "site", "hub"), name(settings)
    log_lines(settings.log_level, format=settings.log_format, process=called, site=site)
    tracing.set_up(service=_service(settings), version=SERVICE_VERSION, site=site)
    try:
        with _measured(name=called, site=site):
            listen = os.environ.get(METRICS_VARIABLE) or settings.metrics_listen
            running = partial(_watched, partial(run, settings), listen=listen)
            asyncio.run(_until_signalled(running, name=called, stop_seconds=stop_seconds))
    except CalqueError as error:
        logger.error("%s: %s", called, error)
        sys.exit(1)
    except Exception:
        logger.exception("%s can't go on", called)
        sys.exit(1)
    finally:
        tracing.flush()
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
def _measured(*, name: str, site: str) -> Iterator[None]:
    async def info() -> list[Sample]:
        return [sample(metrics.BUILD_INFO, 1, name, site, SERVICE_VERSION)]

    with MEASURES.collecting(info):
        yield


def _service(settings: ProcessSettings) -> str:
    """How traces call the process: ``calque-hub``, ``calque-agent``, ``calque-dsb-postgres``, ..."""
    kind = getattr(settings, "kind", None)
    return f"calque-{kind}-{getattr(settings, 'name', '')}" if kind else f"calque-{settings.PROCESS}"


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


def _complain(message: str, *, code: int) -> int:
    sys.stderr.write(message.replace("\n", " ") + "\n")
    return code
