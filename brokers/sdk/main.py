"""The life of a broker's process: settings, log, bus, service, and a stop within five seconds (``bus.hosting``)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from brokers.sdk.service import Broker, BrokerService
from brokers.sdk.settings import BrokerSettings
from bus.connection import Bus
from bus.hosting import run_process
from bus.metrics import MEASURES
from schemas.problems import CalqueError, permanent

STOP_SECONDS = 4.5
CONNECT_SECONDS = 30.0

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=BrokerSettings)


def run_broker(factory: Callable[[S], Broker], settings_type: type[S]) -> None:
    """Run the broker that ``factory`` makes until a signal stops it. Does not return."""
    run_process(
        settings_type,
        lambda settings: _serving(factory, settings),
        name=lambda settings: f"{settings.kind} broker {settings.name} of site {settings.site}",
        stop_seconds=STOP_SECONDS,
    )


@contextlib.asynccontextmanager
async def _serving(factory: Callable[[S], Broker], settings: S) -> AsyncIterator[None]:
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise CalqueError(
            permanent("state_dir", f"{settings.state_dir} can't be used: {error.strerror}", field="state_dir")
        ) from None
    bus = await Bus.connect(settings.bus.connection(), deadline_seconds=CONNECT_SECONDS)
    try:
        service = BrokerService(factory(settings), bus)
        await service.start()
        try:
            with MEASURES.collecting(service.collect):
                yield
        finally:
            await service.stop()
    finally:
        await bus.close()
