"""The life of a broker's process: settings, log, bus, service, and a stop within five seconds.

Exit codes: 0 stopped by SIGTERM or SIGINT, 1 could not start (a supervisor may try again), 2 broken settings.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from brokers.sdk.atomic import write_atomically
from brokers.sdk.service import Broker, BrokerService
from brokers.sdk.settings import BrokerSettings, SettingsError, load_settings
from bus.connection import Bus, BusSettings
from schemas.problems import CalqueError

READY_VARIABLE = "CALQUE_READY_FILE"
STOP_SECONDS = 4.5
CONNECT_SECONDS = 30.0

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=BrokerSettings)


class LineFormatter(logging.Formatter):
    """One line per record, tracebacks included, so that a log can be read and searched line by line."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


def run_broker(factory: Callable[[S], Broker], settings_type: type[S]) -> None:
    """Run the broker that ``factory`` makes until a signal stops it. Does not return."""
    try:
        settings = load_settings(settings_type)
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except SettingsError as error:
        sys.exit(_complain(str(error), code=2))
    except OSError as error:
        sys.exit(_complain(f"state_dir: {error}", code=2))
    _log_lines(settings.log_level)
    try:
        asyncio.run(_serve(factory, settings))
    except CalqueError as error:
        sys.exit(_complain(f"{settings.kind} {settings.name}: {error}", code=1))
    except Exception:
        logger.exception("%s broker %s ended", settings.kind, settings.name)
        sys.exit(1)
    sys.exit(0)


async def _serve(factory: Callable[[S], Broker], settings: S) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    ready_file = _ready_file()
    if ready_file:
        ready_file.unlink(missing_ok=True)
    starting = asyncio.create_task(_start(factory, settings))
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return
    bus, service = starting.result()
    logger.info("%s broker %s serves %s", settings.kind, settings.name, settings.site)
    if ready_file:
        write_atomically(ready_file, b"ready\n", mode=0o644)
    await waiting
    if ready_file:
        ready_file.unlink(missing_ok=True)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await service.stop()
            await bus.close()
    except TimeoutError:
        logger.warning("not everything stopped within %.1f s; the rest ends with the process", STOP_SECONDS)
    logger.info("%s broker %s stopped", settings.kind, settings.name)


async def _start(factory: Callable[[S], Broker], settings: S) -> tuple[Bus, BrokerService]:
    section = settings.bus
    bus = await Bus.connect(
        BusSettings(servers=list(section.servers), nkey_seed_file=section.nkey_seed_file, name=section.name),
        deadline_seconds=CONNECT_SECONDS,
    )
    try:
        service = BrokerService(factory(settings), bus)
        await service.start()
    except BaseException:
        await bus.close()
        raise
    return bus, service


def _ready_file() -> Path | None:
    named = os.environ.get(READY_VARIABLE)
    return Path(named) if named else None


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
