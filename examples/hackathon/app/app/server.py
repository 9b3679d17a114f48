"""The process: listens at once, makes its schema when PostgreSQL answers, stops on SIGTERM within 5 s."""

import asyncio
import contextlib
import logging
import signal

from aiohttp import web

from .api import application
from .documents import DocumentStore
from .gate import WriteGate
from .journal import folded
from .service import Ideas
from .settings import Settings
from .store import IdeaStore, UnavailableError
from .thumbs import Thumbs

log = logging.getLogger(__name__)

# The platform gives a stopping process 5 s; what remains is for closing connections.
_FINISH_SECONDS = 3.5
_RETRY_SECONDS = 0.25


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        OSError: the address cannot be listened on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gate = WriteGate()
    store = IdeaStore(settings.ideas_uri)
    thumbs = Thumbs(settings.thumbs_path) if settings.thumbs_path else None
    ideas = Ideas(store=store, documents=DocumentStore(settings), gate=gate, thumbs=thumbs)
    runner = web.AppRunner(application(ideas, title=settings.title), access_log=None, shutdown_timeout=_FINISH_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
        log.info("listening on http://%s:%d", settings.host, settings.port)
        preparing = asyncio.create_task(_prepare(store))
        await stop.wait()
        log.info("stopping")
        preparing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await preparing
        gate.stop()
    finally:
        await runner.cleanup()
        await store.close()
    log.info("stopped")


async def _prepare(store: IdeaStore) -> None:
    """Make the schema, as often as it takes; until then the health check says no."""
    told = ""
    while True:
        try:
            await store.prepare()
        except UnavailableError as error:
            if str(error) != told:
                told = str(error)
                log.warning("waiting for PostgreSQL: %s", told)
            await asyncio.sleep(_RETRY_SECONDS)
        except Exception as error:
            # Such as missing rights: a person may grant them while we run, and health says what is wrong.
            if folded(error) != told:
                told = folded(error)
                log.error("cannot make the schema: %s", told)
            await asyncio.sleep(_RETRY_SECONDS * 8)
        else:
            log.info("schema ready")
            return
